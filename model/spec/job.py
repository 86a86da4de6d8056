"""Job file and result of a training child: the two JSON documents between the daemon and `python -m model.job`."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import msgspec

from features.definition import WINDOW_ROWS
from features.timeline import DEFAULT_GAP_MULTIPLE
from model.registry.durable import atomic_write
from model.spec.architecture import Architecture, Lstm, tagged
from model.spec.local_time import LocalTimeSpec
from model.spec.settings import TrainingSettings
from model.spec.verdict import GatePolicy, Verdict
from model.version.metadata import VERSION_PATTERN

RESULT_NAME: Final = "result.json"
DRIFT: Final = "drift"
BEHIND: Final = "behind"
"""Reasons of a training: a drift, or a live version that is worse than what is published; see daemon.training.triggers for the others."""
EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_BAD_JOB: Final = 2

Record = TypeVar("Record")
Status = Literal["candidate", "refused", "too_little_data", "failed"]


class TrainingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request for a training, of the daemon or offline.

    Args:
        version: Name of the version to make, vYYYYMMDD_HHMMSS.
        created_at_s: Time of the request, UTC seconds.
        snapshot: Folder of immutable Parquet segments to learn from.
        gap_multiple: Pauses over this many median intervals of a link end its windows.
        local_time: Time zones and holidays of the regions, by which links remember their day.
    """

    version: str
    created_at_s: float
    snapshot: str
    settings: TrainingSettings = TrainingSettings()
    architecture: Architecture = Lstm()
    gap_multiple: float = DEFAULT_GAP_MULTIPLE
    local_time: LocalTimeSpec = LocalTimeSpec()

    def __post_init__(self) -> None:
        if not VERSION_PATTERN.fullmatch(self.version):
            raise ValueError(f"version must be vYYYYMMDD_HHMMSS, not {self.version!r}")
        if not self.gap_multiple > 1:
            raise ValueError(f"gap_multiple must be over 1, not {self.gap_multiple}")

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    @classmethod
    def from_json(cls, document: bytes) -> Self:
        """Decode the document.

        Raises:
            ValueError: A field is missing, unknown, of the wrong type or out of range. The message names it.
        """
        return _decoded(document, cls)


class JobSpec(TrainingSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training of the daemon: what to learn from, what to build, and what to beat.

    Args:
        candidate: Folder to build, empty or not there yet.
        parent: Folder of the live version, from whose weights the training starts. None: a first version, which starts at its linear path.
        latest_row_s: Newest possible time of a row, UTC seconds. Later rows were stamped by a wrong clock and are left out.
    """

    job_id: str
    reason: str
    candidate: str
    parent: str | None = None
    gate: GatePolicy = GatePolicy()
    latest_row_s: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture.window_rows != WINDOW_ROWS:
            raise ValueError(f"what a daemon publishes has windows of {WINDOW_ROWS} rows, not {self.architecture.window_rows}")


class JobResult(msgspec.Struct, frozen=True):
    """The outcome of a training.

    Args:
        status: "candidate" or "refused": the gate has decided, and there is a verdict. "too_little_data": `error` has what is
            missing. "failed": `error` has the reason.
        metrics: Of the candidate, the parent and persistence on the gate's windows, per target.
        windows: Number of windows that were trained on, validated on and compared on.
        stage_s: Wall seconds of each stage.
        trained_until_s: Time of the newest row that the candidate was trained on, UTC seconds.
        unsound: File names of segments that were left out, and why.
    """

    job_id: str
    version: str
    status: Status
    candidate: str | None = None
    verdict: Verdict | None = None
    metrics: dict[str, Any] = {}
    rows: int = 0
    windows: dict[str, int] = {}
    stage_s: dict[str, float] = {}
    trained_until_s: float | None = None
    error: str | None = None
    unsound: dict[str, str] = {}

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    @classmethod
    def from_json(cls, document: bytes) -> JobResult:
        """Decode the document. Raise ValueError if it is not a complete result."""
        return _decoded(document, cls)

    def write(self, folder: Path) -> None:
        """Write result.json into the folder: whole or not at all. Raise OSError if the disk refuses it."""
        atomic_write(folder / RESULT_NAME, self.to_json())


def plain(record: object) -> Any:
    """Return a record (Struct or dataclass) as it comes back from JSON: dicts, lists, texts and numbers."""
    document = asdict(record) if is_dataclass(record) and not isinstance(record, type) else record  # msgspec leaves out its own defaults
    return msgspec.json.decode(msgspec.json.encode(document))


def _decoded(document: bytes, kind: type[Record]) -> Record:
    try:
        content = msgspec.json.decode(document)
        if isinstance(content, dict) and "architecture" in content:
            content["architecture"] = tagged(content["architecture"])
        return msgspec.convert(content, kind)
    except RecursionError as error:
        raise ValueError(str(error)) from error
