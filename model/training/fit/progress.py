"""Progress of a training, and its time budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PROGRESS_EVERY_S = 2.0
"""Seconds between two reports of progress."""


@dataclass(frozen=True)
class Progress:
    """The progress of a training.

    Args:
        epoch: Counts from 1.
        step: Counts over the whole training.
        loss: Masked MAE of the epoch so far, in scaled units; NaN before the first step.
        validation_loss: Masked MAE after the epoch; NaN before that.
        left_s: Estimate of the time that is left, seconds.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    validation_loss: float
    left_s: float


class Clock:
    """Reports the progress of the training every two seconds, and tracks its time budget."""

    def __init__(
        self, epochs: int, budget_s: float | None, steps: int, on_progress: Callable[[Progress], None], interrupted: Callable[[], bool]
    ) -> None:
        self._epochs, self._steps, self._on_progress, self._interrupted = epochs, steps, on_progress, interrupted
        self._began = self._reported = self._compiled = time.monotonic()
        self._budget_s = budget_s or np.inf

    def report(self, epoch: int, step: int, loss: float, validation_loss: float, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if step == 1 and not at_once:
            self._compiled = now  # the first step traces and compiles: its time does not count
        if at_once or now - self._reported >= PROGRESS_EVERY_S:
            self._reported = now
            left_s = (now - self._compiled) / (step - 1) * (self._steps - step) if step > 1 else np.nan
            left_s = float(np.fmin(left_s, max(0.0, self._budget_s - (now - self._began))))
            self._on_progress(Progress(epoch, self._epochs, step, self._steps, loss, validation_loss, left_s))

    def is_over(self) -> bool:
        return self._interrupted() or time.monotonic() - self._began > self._budget_s
