"""The settings of a daemon's trainings."""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon.training.triggers import TrainingPolicy
from model.spec.architecture import Architecture, Lstm
from model.spec.local_time import LocalTimeSpec
from model.spec.settings import TrainingSettings
from model.spec.verdict import GatePolicy


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a training job.

    Args:
        gap_multiple: as the features have it.
        drift_time_budget_s: seconds for a training after a drift; None: no limit of its own.
        keep_versions: number of versions that stay in the models folder.
        local_time: time zones and holidays, as the features have them.
    """

    policy: TrainingPolicy
    settings: TrainingSettings
    gate: GatePolicy
    gap_multiple: float
    drift_time_budget_s: float | None = None
    architecture: Architecture = field(default_factory=Lstm)
    keep_versions: int = 10
    local_time: LocalTimeSpec = field(default_factory=LocalTimeSpec)
