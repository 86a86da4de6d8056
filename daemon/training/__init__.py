"""Training of new versions: when one is due, and the child process that runs it."""
