"""Checkpoint: state of all partitions that survives a kill."""
