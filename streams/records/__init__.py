"""Form of telemetry records: decode, validate, describe, and refuse with a reason."""
