"""Training buffer, dataset, network, export, registry, gate and predictor."""
