"""Batch normalisation as all layers of the network use it."""

from __future__ import annotations

from typing import Final

import keras

MOMENTUM: Final = 0.9
"""A fine-tuning may be 80 steps long. Keras's default of 0.99 has then moved the running statistics only 1 - .99**80 = 55 % of the
way to the data, and inference would normalise with numbers that training never saw; 0.9 has moved them 99.98 %."""


def batch_norm(name: str) -> keras.layers.Layer:
    """Return a new layer of batch normalisation."""
    return keras.layers.BatchNormalization(momentum=MOMENTUM, name=name)
