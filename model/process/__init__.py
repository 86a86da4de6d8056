"""Training children as processes: their arguments, surroundings, progress and end."""
