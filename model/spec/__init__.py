"""JSON documents between the daemon and its training child."""
