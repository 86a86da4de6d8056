"""The soaked daemon: built by daemon/wiring.py in a process of its own, with HTTP server and trainings.

It is measured every simulated hour, when neither a training nor a checkpoint is running.
"""

from __future__ import annotations

import ctypes
import math
import re
import resource
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import psutil
import pyarrow as pa

from daemon.clock import StreamClock
from daemon.ingest.group import journal_path
from daemon.operator.logs import configure_logging
from daemon.operator.observer import Observer
from daemon.reload import reloader
from daemon.training.schedule import WallSchedule
from daemon.wiring import Daemon, build
from harness import answer, in_process, job_of, say
from model.spec.architecture import architecture_of
from parts.soak_plan import ARCHITECTURE, DAY_H, SEED_ROWS, START_S, Plan
from parts.soak_stream import ChangingFleet
from parts.stream import PARTITIONS
from parts.version import SMALL

OUTCOMES: Final = ("accepted", "duplicate", "late", "rejected")
"""Possible outcomes of a record."""
PROBLEMS: Final = ("training_failed", "publication_failed", "checkpoint_failed", "cleaning_failed", "source_paused", "model_unusable")
PROBLEMS_SHOWN: Final = 5
SETTLE_S: Final = 60.0
"""Seconds to wait for a thread whose work is done. One that does not end is counted."""
PROGRESS_SAMPLES: Final = 6
"""Samples between two lines for a person, some two minutes."""


class SimulatedSchedule(WallSchedule):
    """A schedule by the stream's clock. APScheduler knows only the machine's."""

    def __init__(self) -> None:
        super().__init__("", None)
        self.marked = False

    def due_at(self, now_s: float) -> bool:  # noqa: ARG002 - see Schedule
        return self.marked

    def answered(self) -> None:
        self.marked = False


@dataclass
class Soak:
    """The samples and events of a soak."""

    plan: Plan
    folder: Path
    daemon: Daemon
    schedule: SimulatedSchedule
    reload: Callable[[], None] = field(init=False)
    samples: list[dict[str, Any]] = field(default_factory=list)
    due: int = 0
    _next_h: int = 1
    _began_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        parts = self.daemon.parts
        parts.training.schedule = self.schedule
        self._small()
        self.daemon.loop.on_step = lambda _polled: self.look()
        first = self.plan.config(self.folder)
        reload = reloader(self.daemon, first, lambda: self.plan.config(self.folder, self._next_h - 1), parts.observer)
        self.reload = lambda: (reload(), self._small())[0]

    def _small(self) -> None:
        """Trainings of a small network, which the configuration cannot ask for."""
        training = self.daemon.parts.training
        training.config = replace(training.config, architecture=architecture_of(ARCHITECTURE))

    def look(self) -> None:
        """Take a sample every hour, after a pass of the loop, and start a training that is due.

        The stream flows beside a training, and waits for its end before the next hour: every hour has its own, on any machine.
        """
        loop, parts = self.daemon.loop, self.daemon.parts
        hour = (parts.group.event_time_s - START_S) / 3600
        loop.wait_for_training = hour >= self._next_h
        if hour < self._next_h or parts.training.busy or parts.keeper.busy:
            return
        self.samples.append(self.sample(hour))
        passed = range(self._next_h, math.floor(hour) + 1)
        self._next_h = math.floor(hour) + 1
        if any(at % DAY_H in self.plan.refusing_h for at in passed):
            loop.reload_with(self.reload)
        if any(at % self.plan.training_every_h == 0 for at in passed):
            self.schedule.marked = True
            self.due += 1
        if len(self.samples) % PROGRESS_SAMPLES == 1:
            self.tell(self.samples[-1])

    def sample(self, hour: float) -> dict[str, Any]:
        settle()
        process, registry = psutil.Process(), self.daemon.parts.models.registry
        state = self.folder / "state"
        with process.oneshot():
            children = process.children(recursive=True)
            found: dict[str, Any] = {"hour": hour, "wall_s": time.monotonic() - self._began_s, **memory()}
            found |= {"files": process.num_fds(), "threads": process.num_threads(), "children": len(children)}
        journal = journal_path(state, self.daemon.parts.keeper.store.member)
        return found | {
            "python_threads": sorted(thread.name for thread in threading.enumerate()),
            "zombies": sum(child.status() == psutil.STATUS_ZOMBIE for child in children),
            "links": self.daemon.parts.group.links,
            "segments": len(list((state / "buffer").glob("*.parquet"))),
            "buffer_bytes": size(state / "buffer"),
            "buffer_rows": int(self.value("dwcp_buffer_rows")),
            "checkpoints": len(list((state / "checkpoints").iterdir())),
            "checkpoint_bytes": size(state / "checkpoints"),
            "journal_bytes": journal.stat().st_size,
            "journal_entries": journal.read_bytes().count(b"\n"),
            "event_bytes": size(state / "events"),
            "training_folders": len(list((state / "training-main").iterdir())),
            "state_bytes": size(state),
            "model_bytes": size(registry.root),
            "versions": len(registry.versions()),
            "version_bytes_max": max(map(size, (*registry.root.glob("v*"), *registry.root.glob("refused/v*"))), default=0),
            "refused": len(registry.refused()),
            "model_leftovers": sum(path.name.startswith(".") for path in registry.root.iterdir()),
            "metric_lines": self.scrape().count(b"\n"),
        }

    def tell(self, sample: dict[str, Any]) -> None:
        shown = ", ".join(f"{sample[name]} {name}" for name in ("files", "threads", "segments", "versions", "links"))
        say(f"hour {sample['hour']:5.1f} after {sample['wall_s']:5.0f} s: {sample['resident_bytes'] / 1e6:.0f} MB, {shown}")

    def value(self, name: str, **labels: str) -> float:
        return self.daemon.parts.observer.registry.get_sample_value(name, labels) or 0.0

    def scrape(self) -> bytes:
        """Read the metrics as Prometheus does."""
        assert self.daemon.http is not None
        with urllib.request.urlopen(f"{self.daemon.http.address}/metrics", timeout=30) as response:
            content: bytes = response.read()
        return content


def settle() -> None:
    """Wait for threads that end by themselves: readers of a training's output, and those that answered the last request."""
    for thread in threading.enumerate():
        if thread.name == "trainer" or "process_request_thread" in thread.name:
            thread.join(SETTLE_S)


class Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


def memory() -> dict[str, int]:
    """Return resident bytes as the kernel counts them, and what is behind them.

    These are blocks of Python's allocator in use, bytes that the C library has given out and holds free, and bytes of Arrow's allocator.
    A leak is in use. Memory that is only not given back is resident and not in use.
    """
    status = Path("/proc/self/status").read_text()
    kilobytes = {key: int(value) for key, value in re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB$", status, re.MULTILINE)}
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Mallinfo
    heap = library.mallinfo2()
    return {
        "resident_bytes": 1024 * kilobytes["VmRSS"],
        "anonymous_bytes": 1024 * kilobytes["RssAnon"],
        "python_blocks": sys.getallocatedblocks(),
        "malloc_used_bytes": heap.uordblks + heap.hblkhd,
        "malloc_free_bytes": heap.fordblks,
        "arrow_used_bytes": pa.total_allocated_bytes(),
    }


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder. Files that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Return the samples of one soak, and what became of records and trainings. job: the fields of a Plan."""
    configure_logging("error", "json", sys.stderr)
    plan = Plan(**job)
    events: Counter[str] = Counter()
    problems: list[str] = []
    seconds: list[float] = []
    stages: dict[str, list[float]] = {}

    def listen(event: str, fields: dict[str, Any]) -> None:
        events[event] += 1
        if event == "training_finished":
            seconds.append(fields["seconds"])
            for stage, stage_s in fields["stage_s"].items():
                stages.setdefault(stage, []).append(stage_s)
        if event in PROBLEMS and len(problems) < PROBLEMS_SHOWN:
            problems.append(f"{event}: {fields}")

    with tempfile.TemporaryDirectory(prefix="dwcp-soak-") as name:
        folder = Path(name)
        in_process("parts.version", {"models": f"{folder}/models", "architecture": SMALL, "rows": SEED_ROWS})
        duration_s = 3600.0 * plan.hours
        source = ChangingFleet(plan.fleet(), duration_s, duration_s, partitions=PARTITIONS, max_records=plan.poll_records)
        daemon = build(plan.config(folder), source, StreamClock(), Observer(listen))
        soak = Soak(plan, folder, daemon, SimulatedSchedule())
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        daemon.run()
        outcomes = {outcome: int(soak.value("dwcp_records_total", outcome=outcome)) for outcome in OUTCOMES}
        return {
            "samples": soak.samples,
            "delivered": source.delivered,
            "outcomes": outcomes,
            "forecasts": int(soak.value("dwcp_forecasts_total")),
            "trainings_due": soak.due,
            "events": dict(events),
            "problems": problems,
            "training_seconds": seconds,
            "stage_seconds": {stage: statistics.median(values) for stage, values in stages.items()},
            "wall_s": time.monotonic() - began_s,
            "cpu_s": time.process_time() - began_cpu_s,
            "trainings_cpu_s": sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]),
        }


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
