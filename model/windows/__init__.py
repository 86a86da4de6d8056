"""Training windows: their rows, scaling, bounds and quality."""
