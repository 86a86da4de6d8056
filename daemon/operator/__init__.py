"""What operators see: events in the log, metrics, health, the status page."""
