"""Settings of a training, which a job file and a run file hold alike."""

from __future__ import annotations

import msgspec


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the training of a network. A setting that ends in `_max` bounds the cost of a large buffer; None: no bound."""

    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-3
    fine_tune_learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    epoch_windows_max: int | None = None
    """Windows drawn afresh for each epoch."""
    recent_windows_max: int | None = None
    """Fine-tuning: the newest windows to train on."""
    replay_windows: int = 1024
    """Fine-tuning: older windows mixed in, against forgetting."""
    validation_share: float = 0.10
    """Share of the new windows for early stopping: those just before the gate's."""
    gate_share: float = 0.15
    """Share of the new windows that compare candidate and parent: the newest. Neither is trained on them."""
    windows_min: int = 256
    """Fewer training windows than this are too little data: four steps an epoch add nothing to the linear path."""
    patience: int = 20
    """Epochs without a better validation loss after which the training ends."""
    seed: int = 42
    time_budget_s: float | None = None
    """The training ends with the epoch in which this is spent, and keeps the best weights so far."""
    threads: int = 0
    """Threads of one TensorFlow operation; 0: one per core."""
    nice: int = 10
    """Added to the child's niceness, so that ingest goes first on a shared core."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "windows_min", "patience", "learning_rate", "fine_tune_learning_rate"):
            if (value := getattr(self, name)) <= 0:
                raise ValueError(f"{name} must be over 0, not {value}")
        if min(self.validation_share, self.gate_share) <= 0 or self.validation_share + self.gate_share >= 1:
            raise ValueError("validation_share and gate_share must be over 0 and leave something to train on")
        if self.replay_windows < 0 or self.threads < 0:
            raise ValueError("replay_windows and threads must not be negative")
