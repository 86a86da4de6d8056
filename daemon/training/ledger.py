"""The ledger: what each training has cost, what its gate has promised, and what its version has really brought."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from daemon.training.child import Ended
from model.judge.probation import Proof
from streams.files.sink import rotated

NAME: Final = "ledger-{}.ndjson"
"""Name of a member's ledger in the state directory."""
BYTES_MAX: Final = 4 << 20
"""Size at which it is rotated: some 4,000 trainings."""
_LINE_MOST: Final = 1 << 16


class Ledger:
    """A file of JSON lines to which one daemon appends. Nothing else depends on it, so a full disk loses lines and nothing more."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def training(self, ended: Ended, time_s: float) -> None:
        """Note a training that has ended. time_s: UTC seconds of the stream."""
        spec, result = ended.spec, ended.result
        verdict = None if result is None else result.verdict
        self._append(
            {
                "kind": "training",
                "time_s": round(time_s, 3),
                "version": spec.version,
                "parent": None if spec.parent is None else Path(spec.parent).name,
                "reason": spec.reason,
                "status": "failed" if result is None else result.status,
                "problem": ended.problem if result is None else result.error,
                "seconds": round(ended.seconds, 1),
                "cpu_s": None if ended.cpu_s is None else round(ended.cpu_s, 1),
                "rows": None if result is None else result.rows,
                "promised": None if verdict is None or verdict.overall is None else asdict(verdict.overall),
                "reasons": [] if verdict is None else list(verdict.reasons),
            }
        )

    def proof(self, proof: Proof, time_s: float) -> None:
        """Note the end of a version's probation. time_s: UTC seconds of the stream."""
        self._append({"kind": "proof", "time_s": round(time_s, 3), **asdict(proof)})

    def _append(self, entry: dict[str, Any]) -> None:
        with suppress(OSError):
            with suppress(FileNotFoundError):
                if self.path.stat().st_size > BYTES_MAX:
                    self.path.replace(rotated(self.path))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                os.write(descriptor, json.dumps(entry, allow_nan=False).encode() + b"\n")
            finally:
                os.close(descriptor)


def entries(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the entries of ledgers, oldest first. Lines that are torn or not of a ledger are left out.

    Raises:
        OSError: a file cannot be read.
    """
    found = []
    for path in paths:
        with path.open("rb") as file:
            while line := file.readline(_LINE_MOST):
                with suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, dict) and isinstance(entry.get("version"), str) and isinstance(entry.get("time_s"), int | float):
                        found.append(entry)
    return sorted(found, key=lambda entry: entry["time_s"])


def joined(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry for each training, with the proof of its version as "proof", None if there is none yet."""
    proofs = {entry["version"]: entry for entry in found if entry.get("kind") == "proof"}
    return [entry | {"proof": proofs.get(entry["version"])} for entry in found if entry.get("kind") == "training"]
