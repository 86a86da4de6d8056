"""dwcp-learner alerts: follow drift alerts, and explain one with the telemetry and the forecasts behind it."""
