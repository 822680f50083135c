"""One file per noun. A route parses, calls one function and renders."""
