"""What a training job is told and what it answers: the two JSON documents between the daemon and its child. No TensorFlow here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from features.definition import WINDOW_ROWS
from features.timeline import DEFAULT_GAP_MULTIPLE
from model.judge.gate import GatePolicy, Verdict
from model.registry.durable import atomic_write
from model.spec.architecture import Architecture, Lstm, tagged
from model.version.metadata import VERSION_PATTERN

RESULT_NAME: Final = "result.json"
EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_BAD_JOB: Final = 2

Record = TypeVar("Record")
Status = Literal["candidate", "refused", "too_little_data", "failed"]


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained. A window is 30 rows of one link; `max` bounds what a large buffer may cost."""

    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-3
    fine_tune_learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    epoch_windows_max: int | None = None
    """Windows drawn afresh for each epoch; None: all of them."""
    recent_windows_max: int | None = None
    """Fine-tuning: newest windows to train on; None: all."""
    replay_windows: int = 1024
    """Fine-tuning: older windows mixed in, against forgetting."""
    validation_share: float = 0.10
    """Of the new windows, those before the gate's: for early stopping."""
    gate_share: float = 0.15
    """The newest windows, which judge candidate and parent; neither is trained on them."""
    windows_min: int = 256
    """Fewer training windows than this are too little data: four steps an epoch teach nothing that the linear path does not know."""
    patience: int = 20
    seed: int = 42
    time_budget_s: float | None = None
    """Training ends with the epoch in which this is spent, and keeps the best weights so far."""
    threads: int = 0
    """Threads of one TensorFlow operation; 0: one per core."""
    nice: int = 10
    """Added to the child's niceness, so that ingest goes first on a shared core."""

    def __post_init__(self) -> None:
        positive = {"epochs": self.epochs, "batch_size": self.batch_size, "windows_min": self.windows_min, "patience": self.patience}
        rates = {"learning_rate": self.learning_rate, "fine_tune_learning_rate": self.fine_tune_learning_rate}
        for name, value in {**positive, **rates}.items():
            if value <= 0:
                raise ValueError(f"{name} must be over 0, not {value}")
        if min(self.validation_share, self.gate_share) <= 0 or self.validation_share + self.gate_share >= 1:
            raise ValueError("validation_share and gate_share must be over 0 and leave something to train on")
        if self.replay_windows < 0 or self.threads < 0:
            raise ValueError("replay_windows and threads must not be negative")


@dataclass(frozen=True)
class JobSpec:
    """One training: what to learn from, what to build, what to beat.

    snapshot: folder of immutable Parquet segments. candidate: folder to build, empty or not there yet.
    parent: folder of the live version, from whose weights the training starts; None: the first version, which starts at its linear path.
    latest_row_s: UTC seconds after which no row can be. Those of the snapshot were taken while a clock was wrong, and are left out.
    """

    job_id: str
    version: str
    created_at_s: float
    reason: str
    snapshot: str
    candidate: str
    parent: str | None = None
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    gate: GatePolicy = field(default_factory=GatePolicy)
    architecture: Architecture = field(default_factory=Lstm)
    gap_multiple: float = DEFAULT_GAP_MULTIPLE
    latest_row_s: float | None = None

    def __post_init__(self) -> None:
        if not VERSION_PATTERN.fullmatch(self.version):
            raise ValueError(f"version must be vYYYYMMDD_HHMMSS, not {self.version!r}")
        if not self.gap_multiple > 1:
            raise ValueError(f"gap_multiple must be over 1, not {self.gap_multiple}")
        if self.architecture.window_rows != WINDOW_ROWS:
            raise ValueError(f"what a daemon publishes has windows of {WINDOW_ROWS} rows, not {self.architecture.window_rows}")

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    @classmethod
    def from_json(cls, document: bytes) -> JobSpec:
        """Raises ValueError that names the field which is missing, unknown, of the wrong type or out of range."""
        return decode_strictly(document, cls)


@dataclass(frozen=True)
class JobResult:
    """How a training ended. status "failed" has an error; "too_little_data" says in `error` what is missing; the others have a verdict.

    stage_s: wall seconds of each stage. windows: how many were trained on, validated on and judged on.
    metrics: of the candidate, the parent and persistence on the gate's windows, per target.
    trained_until_s: UTC seconds of the newest row that the candidate was trained on. unsound: segments that were left out, and why.
    """

    job_id: str
    version: str
    status: Status
    candidate: str | None = None
    verdict: Verdict | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    windows: dict[str, int] = field(default_factory=dict)
    stage_s: dict[str, float] = field(default_factory=dict)
    trained_until_s: float | None = None
    error: str | None = None
    unsound: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    @classmethod
    def from_json(cls, document: bytes) -> JobResult:
        """Raises ValueError where the document is not a complete result."""
        try:
            return msgspec.json.decode(document, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def write(self, folder: Path) -> None:
        """Puts result.json into the folder: whole or not at all."""
        atomic_write(folder / RESULT_NAME, self.to_json())


def decode_strictly(document: bytes, kind: type[Record]) -> Record:
    """The dataclass in a JSON document. Raises ValueError that names what is missing, unknown, of the wrong type or out of range."""
    try:
        content = msgspec.json.decode(document)
        if isinstance(content, dict) and "architecture" in content:
            content["architecture"] = tagged(content["architecture"])
        record = msgspec.convert(content, kind)
        _refuse_unknown_keys(content, record, "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return record


def _refuse_unknown_keys(document: object, record: object, where: str) -> None:
    """msgspec ignores keys that a dataclass does not have; a job with a misspelt setting must not train with the default instead."""
    if not is_dataclass(record) or not isinstance(document, dict):
        return
    known = {item.name for item in fields(record)}
    for key, value in document.items():
        if key not in known:
            raise ValueError(f"unknown key `$.{where}{key}`; known are {', '.join(sorted(known))}")
        _refuse_unknown_keys(value, getattr(record, key), f"{where}{key}.")
