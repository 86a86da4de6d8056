"""A machine of its own with a real systemd."""
