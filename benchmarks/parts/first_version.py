"""Seconds of a first version, as the daemon's job makes it: from rows on disk to a folder that is judged, default settings."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from harness import answer, job_of
from model.job import Job
from model.spec.architecture import architecture_of
from model.spec.job import JobSpec
from model.spec.settings import TrainingSettings
from model.version.metadata import Metadata
from parts.bounded_versions import LINKS, fleet_table, snapshot

VERSION: Final = "v20260101_000000"


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Return wall and CPU seconds of the whole job, import of TensorFlow included, and what was published.

    Args:
        job: architecture, rows and settings that differ from the defaults.
    """
    with tempfile.TemporaryDirectory(prefix="dwcp-first-") as name:
        folder = Path(name)
        rows = snapshot(fleet_table(job["rows"] // LINKS, seed=1), folder / "snapshot")
        spec = JobSpec(
            job_id=VERSION, version=VERSION, created_at_s=0.0, reason="first", snapshot=str(rows), candidate=str(folder / VERSION),
            settings=TrainingSettings(nice=0, **job["settings"]), architecture=architecture_of(job["architecture"]),
        )  # fmt: skip
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        result = Job(spec, lambda _: None).run()
        found = {"wall_s": time.monotonic() - began_s, "cpu_s": time.process_time() - began_cpu_s, "rows": result.rows}
        if result.status not in ("candidate", "refused"):
            raise RuntimeError(f"{result.status}: {result.error}")
        return {**found, "windows": result.windows, "encoder": Metadata.read(folder / VERSION).encoder}


if __name__ == "__main__":
    answer(main(job_of(sys.argv)))
