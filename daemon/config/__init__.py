"""Configuration: sections, loading, and what of it can be used on this machine."""
