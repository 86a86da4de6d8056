"""Apache Kafka: the source as a member of a consumer group, and the sink of events."""
