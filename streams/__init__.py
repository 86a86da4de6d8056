"""The edge: Kafka and file sources, decoding, dead letters, event sinks and the fleet simulator."""
