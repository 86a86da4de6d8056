"""A simulated fleet with planted events whose time, place and size are known."""
