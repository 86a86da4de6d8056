"""What makes a process a training child."""
