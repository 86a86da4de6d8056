"""The connection to a Kafka cluster: options, TLS files, client, topics, and advice on errors."""
