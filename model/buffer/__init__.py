"""Training buffer: rows of telemetry in sealed Parquet segments."""
