"""Run file of an offline training: the JSON document between `dwcp-learner train` and `python -m model.run`."""

from __future__ import annotations

from typing import Any, Final

from model.spec.job import TrainingSpec

FINISHED: Final = "finished"
INTERRUPTED: Final = "interrupted"
"""Status of a training that was stopped with Ctrl-C: its best weights so far are kept, and the report has a note about it."""
SHARES: Final = (0.70, 0.15, 0.15)


class RunSpec(TrainingSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One offline training on a whole recording.

    Args:
        source: Name of what was read, for the report.
        folder: Where the files of the run are written; must not exist yet.
        data_quality: Findings of model.windows.quality, as JSON has them.
        horizon_rows: How many rows ahead is forecast.
        shares: Of each link's rows, those for training, validation and test, in order of time.
    """

    source: str
    folder: str
    data_quality: dict[str, Any]

    horizon_rows: int = 1
    shares: tuple[float, float, float] = SHARES

    @property
    def reason(self) -> str:
        return "trained by hand"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon_rows < 1:
            raise ValueError(f"the horizon must be at least 1 row, not {self.horizon_rows}")
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1.0) > 1e-9:
            raise ValueError(f"the shares of training, validation and test must be over 0 and add up to 1, not {self.shares}")
