"""Apache Kafka for tests, benchmarks and people: brokers on loopback."""
