"""Evaluation of forecasts: metrics, baselines, and the gate that a candidate has to pass."""
