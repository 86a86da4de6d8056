"""Interfaces for operators: events in the log, metrics, health, the status page."""
