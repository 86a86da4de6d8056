"""What an offline training is told: the JSON document between `dwcp-learner train` and its child. No TensorFlow here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from features.timeline import DEFAULT_GAP_MULTIPLE
from model.spec.architecture import Architecture, Lstm
from model.spec.job import TrainingSettings, decode_strictly
from model.version.metadata import VERSION_PATTERN

INTERRUPTED: Final = "interrupted"
"""status of a training that was stopped with Ctrl-C: its best weights so far are kept, and the report says so."""
FINISHED: Final = "finished"


@dataclass(frozen=True)
class RunSpec:
    """One offline training on a whole recording.

    snapshot: folder of the recording's segments. folder: where the files of the run are written; must not exist yet.
    source: name of what was read, for the report. data_quality: what model.windows.quality found, as JSON has it.
    horizon_rows: how many rows ahead is forecast. shares: of each link's rows in train, validation and test, in order of time.
    """

    version: str
    created_at_s: float
    source: str
    snapshot: str
    folder: str
    data_quality: dict[str, Any]
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    architecture: Architecture = field(default_factory=Lstm)
    gap_multiple: float = DEFAULT_GAP_MULTIPLE
    horizon_rows: int = 1
    shares: tuple[float, float, float] = (0.70, 0.15, 0.15)

    def __post_init__(self) -> None:
        if not VERSION_PATTERN.fullmatch(self.version):
            raise ValueError(f"version must be vYYYYMMDD_HHMMSS, not {self.version!r}")
        if not self.gap_multiple > 1:
            raise ValueError(f"gap_multiple must be over 1, not {self.gap_multiple}")
        if self.horizon_rows < 1:
            raise ValueError(f"the horizon must be at least 1 row, not {self.horizon_rows}")
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1.0) > 1e-9:
            raise ValueError(f"the shares of training, validation and test must be over 0 and add up to 1, not {self.shares}")

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    @classmethod
    def from_json(cls, document: bytes) -> RunSpec:
        """Raises ValueError that names the field which is missing, unknown, of the wrong type or out of range."""
        return decode_strictly(document, cls)
