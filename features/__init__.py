"""Telemetry columns, link table, rolling windows and the 44 features: pure, without files, clock or logging."""
