"""Evaluation of forecasts: metrics, baselines, and the gate of a candidate."""
