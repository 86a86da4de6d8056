"""Results of parts of a long run, kept by their arguments and the sources that they depend on, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import in_process


class Kept:
    """Results in a folder.

    Args:
        folder: is created; results of other sources stay beside those of these.
        sources: files whose contents the results depend on.
    """

    def __init__(self, folder: Path, sources: Iterable[Path]) -> None:
        version = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:16]
        self.folder = folder / version
        self.folder.mkdir(parents=True, exist_ok=True)

    def of(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a job, whose "module" computes it in a process of its own if it is not there."""
        name = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:24]
        path = self.folder / f"{name}.json"
        if not path.exists():
            fresh = path.with_suffix(".writing")
            fresh.write_text(json.dumps(in_process(job["module"], job)))
            fresh.replace(path)
        found: dict[str, Any] = json.loads(path.read_text())
        return found
