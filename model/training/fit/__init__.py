"""Fit of a network: the linear path in closed form, then epochs."""
