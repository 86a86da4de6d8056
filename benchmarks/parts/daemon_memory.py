"""Resident memory of the daemon with a live model, after a stream and its checkpoint, without a training."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from daemon.clock import WallClock
from daemon.operator.logs import configure_logging
from daemon.operator.observer import Observer
from daemon.wiring import Daemon, build
from harness import answer, job_of
from parts.daemon_run import config, source_of


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Return resident bytes after every record is read and sealed, and the peak until then.

    Args:
        job: as in parts.daemon_run.
    """
    configure_logging("error", "json", sys.stderr)
    with tempfile.TemporaryDirectory(prefix="dwcp-memory-") as name:
        observer = Observer()
        settings = config(job, Path(name))
        daemon = build(settings, source_of(job, settings, observer), WallClock(), observer)
        found: dict[str, Any] = {}
        daemon.loop.on_step = lambda _polled: _look(daemon, job["records"], found)
        daemon.run()
        return found


def _look(daemon: Daemon, records: int, found: dict[str, Any]) -> None:
    """Measure within the loop: the source is connected, and nothing has been torn down."""
    group = daemon.parts.group
    if group.rows < records or found:
        return
    peak_before = memory()["peak_bytes"]
    daemon.loop.checkpoint_now()  # seals the open rows
    time.sleep(1.0)  # the client's threads give back what the last fetch held
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    found |= memory() | {
        "peak_before_checkpoint_bytes": peak_before,
        "links": group.links,
        "watched_links": group.monitored_links,
        "forecasts": int(daemon.parts.observer.registry.get_sample_value("dwcp_forecasts_total") or 0),
        "open_rows": group.open_rows,
    }
    daemon.loop.stop("everything is measured")


def memory() -> dict[str, int]:
    """Return the memory of this process, as the kernel counts it."""
    status = Path("/proc/self/status").read_text()
    kilobytes = {key: int(value) for key, value in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)}
    return {"resident_bytes": 1024 * kilobytes["VmRSS"], "peak_bytes": 1024 * kilobytes["VmHWM"]}


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
