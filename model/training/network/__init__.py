"""Layers of the network and how they are put together."""
