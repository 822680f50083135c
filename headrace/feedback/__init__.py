"""What users said about predictions: taken in (`intake`), joined to both arms (`outcomes`), made labels (`labels`)."""
