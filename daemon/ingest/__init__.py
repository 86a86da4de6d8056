"""Way of a record: from the source through features, forecasts and drift detection to the buffer."""
