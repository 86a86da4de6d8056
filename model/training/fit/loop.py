"""The training loop: masked loss, AdamW on a cosine schedule, early stopping, and the same weights for the same seed."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from features.telemetry import Floats, Longs
from model.spec.settings import TrainingSettings
from model.training.dataset import TrainingData
from model.training.fit.progress import Clock, Progress
from model.training.network.encoders import training_twin
from model.windows.index import WindowIndex

Batch = tuple[Any, Floats]
"""Inputs of a network, and targets of any shape, NaN where one is missing."""

FIRST_PERIOD_STEPS = 1_000
"""Steps of the first cosine period. A shorter training has one period of its own length, so that it ends at a low rate."""
PERIOD_GROWTH = 2.0
RESTART_SHARE = 0.9
LEARNING_RATE_FLOOR = 1e-6
CLIP_NORM = 1.0
"""Largest norm of a step's whole gradient: a spike of 1e9 in the telemetry must not undo the training."""
GAIN_RATIO = 2e-4
"""Smallest fall of the validation loss that counts as a gain for patience: a hundredth of its standard error. Without it a loss that
falls by millionths would keep a training going for hours."""
NOTHING_TO_TRAIN = "nothing_to_train"
VALIDATION_WINDOWS_MAX = 4_096
"""Windows that are validated on: enough for a standard error of about 2 % of the loss. All of a large buffer's would cost more than a
short epoch."""


@dataclass(frozen=True)
class Epoch:
    """One epoch. Losses are masked MAE in scaled units, without the L2 penalty.

    Args:
        loss: With dropout, over the epoch's changing weights.
        learning_rate: At the start of the epoch.
    """

    loss: float
    validation_loss: float
    learning_rate: float
    duration_s: float


@dataclass(frozen=True)
class History:
    """A whole training.

    Args:
        start_validation_loss: Before the first epoch.
        best_epoch: The epoch whose weights were kept, from 1; 0: no epoch was better than the start.
        stopped: "epochs" (all done), "no_better_epoch" (patience), "time_budget", "interrupted" or "nothing_to_train" (only a linear path).
    """

    epochs: tuple[Epoch, ...]
    start_validation_loss: float
    best_epoch: int
    stopped: str


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        batch: Returns the batch of some windows; the flag says whether they are trained on.
        loss: Of targets and forecasts; without the L2 penalty it is what early stopping looks at.
        batch_size: Windows of one step.
        epochs: At most.
        patience: Epochs without a gain after which the training ends.
        learning_rate: At the peak of the first period.
        weight_decay: Of AdamW.
        period_steps: Of the first period of the learning rate; None: one period of the whole training.
    """

    batch: Callable[[WindowIndex, bool], Batch]
    loss: Callable[[Any, Any], Any]
    batch_size: int
    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    period_steps: int | None = None


def next_row(data: TrainingData, settings: TrainingSettings, learning_rate: float) -> Task:
    """Return the training of a network from scaled windows (B, T, F) to the next row (B, 4)."""

    def batch(index: WindowIndex, _training: bool) -> Batch:
        return data.windows(index), data.targets[index.target_row]

    size, epochs, patience = settings.batch_size, settings.epochs, settings.patience
    return Task(batch, masked_mae, size, epochs, patience, learning_rate, settings.weight_decay, FIRST_PERIOD_STEPS)


def masked_mae(y_true: Any, y_pred: Any) -> Any:
    """Return the mean absolute error over the known targets.

    Absolute and not squared: throughput and delay have long tails, and a network that follows them is wrong on every ordinary row.

    Args:
        y_true: (B, 4), NaN where a target is missing. Such a target has no gradient.
        y_pred: (B, 4).
    """
    missing = keras.ops.isnan(y_true)
    known = 1.0 - keras.ops.cast(missing, y_pred.dtype)
    # The NaN is replaced before the subtraction: 0 * NaN would be NaN, in the gradient too.
    error = (keras.ops.where(missing, 0.0, y_true) - y_pred) * known
    return keras.ops.sum(keras.ops.abs(error)) / keras.ops.maximum(keras.ops.sum(known), 1.0)


def compile_model(model: keras.Model, task: Task, steps: int) -> None:
    """Set the model's loss, metric and optimiser for a training of `steps` steps.

    The learning rate follows cosine decay with warm restarts (Loshchilov and Hutter 2017, "SGDR"), the optimiser is AdamW (Loshchilov and
    Hutter 2019, "Decoupled weight decay regularization").

    Args:
        steps: Of the whole training.
    """
    schedule = keras.optimizers.schedules.CosineDecayRestarts(
        task.learning_rate,
        first_decay_steps=min(task.period_steps or steps, steps),
        t_mul=PERIOD_GROWTH,
        m_mul=RESTART_SHARE,
        alpha=LEARNING_RATE_FLOOR / task.learning_rate,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=task.weight_decay, global_clipnorm=CLIP_NORM),
        loss=task.loss,
        metrics=[task.loss],  # beside the loss, which has the L2 penalty in it
        jit_compile=False,  # XLA cannot compile the fused cells; on Keras's own it takes 1.5 times their CPU time, and 20 s to compile
    )


def train(
    model: keras.Model,
    data: TrainingData,
    settings: TrainingSettings,
    on_progress: Callable[[Progress], None],
    task: Task,
    *,
    log_path: Path | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> History:
    """Train the model in place, and leave it with the weights that were best on the validation windows.

    The twin of its encoder is trained, and the model gets the weights. The weights at the start count as a candidate too: they stay if no
    epoch is better. A model without trainable weights is left as it is.

    Args:
        log_path: CSV file to write, a line for each epoch; those of an earlier training in it stay.
        interrupted: Asked after every step; once it returns True, the training ends with this epoch.

    Raises:
        ValueError: There are no windows to train or validate on.
    """
    if not len(data.train) or not len(data.validation):
        raise ValueError(f"nothing to train on: {len(data.train)} training and {len(data.validation)} validation windows")
    batch_size, epoch_steps = _batches_of_epoch(len(data.train), task.batch_size, settings.epoch_windows_max)
    steps = epoch_steps * task.epochs
    twin = training_twin(model)
    compile_model(twin, task, steps)

    clock = Clock(task.epochs, settings.time_budget_s, steps, on_progress, interrupted)
    clock.report(1, 0, np.nan, np.nan, at_once=True)
    best = start = _validate(twin, data, task, batch_size)
    if not twin.trainable_weights:
        return History((), start, 0, NOTHING_TO_TRAIN)
    best_weights, best_epoch, stopped = twin.get_weights(), 0, "epochs"
    gained, gained_epoch = start, 0
    epochs: list[Epoch] = []
    batches = shuffled_batches(data, task, batch_size, epoch_steps, settings.seed)
    for epoch in range(1, task.epochs + 1):
        epochs.append(
            _one_epoch(twin, data, task, batches, range((epoch - 1) * epoch_steps, epoch * epoch_steps), epoch, clock, batch_size)
        )
        if log_path is not None:
            _log_epoch(log_path, epoch, epochs[-1])
        if epochs[-1].validation_loss < best:
            best, best_weights, best_epoch = epochs[-1].validation_loss, twin.get_weights(), epoch
        if best < gained * (1.0 - GAIN_RATIO):
            gained, gained_epoch = best, epoch
        if clock.is_over():
            stopped = "interrupted" if interrupted() else "time_budget"
            break
        if epoch - gained_epoch >= task.patience:
            stopped = "no_better_epoch"
            break
    model.set_weights(best_weights)
    return History(tuple(epochs), start, best_epoch, stopped)


def _batches_of_epoch(windows: int, batch_size: int, most: int | None) -> tuple[int, int]:
    """Return the windows of a batch and the batches of an epoch. The rest is dropped: all batches have the same shape and weight."""
    batch_size = min(batch_size, windows)
    return batch_size, max(1, min(windows, most or windows) // batch_size)


def _one_epoch(
    model: keras.Model,
    data: TrainingData,
    task: Task,
    batches: Iterator[Batch],
    steps: range,
    epoch: int,
    clock: Clock,
    batch_size: int,
) -> Epoch:
    began = time.monotonic()
    learning_rate = float(model.optimizer.learning_rate)
    loss = _Mean()
    for step in steps:
        windows, targets = next(batches)
        loss.add(model.train_on_batch(windows, targets, return_dict=True)[task.loss.__name__], targets)
        clock.report(epoch, step + 1, loss.value, np.nan)
        if clock.is_over():
            break
    validation_loss = _validate(model, data, task, batch_size)
    clock.report(epoch, step + 1, loss.value, validation_loss, at_once=True)
    return Epoch(loss.value, validation_loss, learning_rate, time.monotonic() - began)


def shuffled_batches(data: TrainingData, task: Task, batch_size: int, epoch_steps: int, seed: int) -> Iterator[Batch]:
    """Yield endless batches of the task. Every epoch is a fresh draw without repeats.

    Shuffled, because consecutive windows are nearly equal: in stream order the same network reached a correlation of .465 instead of .766.
    """
    random = np.random.default_rng(seed)
    while True:
        drawn = random.permutation(len(data.train))
        for step in range(epoch_steps):
            yield task.batch(data.train.select(drawn[step * batch_size : (step + 1) * batch_size]), True)


def evenly(count: int, most: int) -> Longs:
    """Return int64, at most `most` of `count` positions, evenly spaced."""
    return np.arange(0, count, max(1, -(-count // most)))


def _validate(model: keras.Model, data: TrainingData, task: Task, batch_size: int) -> float:
    """Return the task's loss over the validation windows, evenly thinned to VALIDATION_WINDOWS_MAX."""
    thinned = evenly(len(data.validation), VALIDATION_WINDOWS_MAX)
    loss = _Mean()
    for start in range(0, len(thinned), batch_size):
        part = thinned[start : start + batch_size]
        windows, targets = task.batch(data.validation.select(np.resize(part, batch_size)), False)
        targets[len(part) :] = np.nan  # pads the last batch, whose other shape would be traced anew; NaN is left out
        loss.add(model.test_on_batch(windows, targets, return_dict=True)[task.loss.__name__], targets)
    return loss.value


class _Mean:
    """Mean over the known targets of several batches, which may have different numbers of them."""

    def __init__(self) -> None:
        self._total, self._known = 0.0, 0

    def add(self, batch_mean: float, targets: Floats) -> None:
        known = int(np.isfinite(targets).sum())
        self._total += float(batch_mean) * known
        self._known += known

    @property
    def value(self) -> float:
        return self._total / self._known if self._known else float("nan")


def _log_epoch(path: Path, number: int, epoch: Epoch) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        log = csv.writer(file)
        if new:
            log.writerow(("epoch", *(item.name for item in fields(Epoch))))
        log.writerow((number, *(f"{value:.9g}" for value in astuple(epoch))))
