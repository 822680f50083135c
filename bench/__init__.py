"""Scripts that each answer one question about speed or quality, on the machine they run on."""
