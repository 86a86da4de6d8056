"""Telemetry from CSV and NDJSON files or standard input, and events written to files."""
