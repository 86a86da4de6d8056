"""The daemon over a stream, built by daemon/wiring.py as for `dwcp-learner run`, without HTTP and with events into files."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from daemon.clock import WallClock
from daemon.config.load import Config
from daemon.operator.logs import configure_logging
from daemon.operator.observer import Observer
from daemon.state.checkpoint import CheckpointStore
from daemon.wiring import Daemon, build, kafka_source
from features.telemetry import Partition
from harness import answer, job_of
from model.buffer.rows import BufferWriter, OpenSegment
from model.buffer.segments import Segment
from parts.stream import fleet, write_file
from streams.files.source import FileSource
from streams.source import Source

NEVER_ROWS: Final = 2**62
WARM_UP_ROWS: Final = 40


def config(job: dict[str, Any], folder: Path) -> Config:
    """Return the defaults, without training and HTTP, with events into files, and with what the job asks for.

    Args:
        job: models (folder of versions; None: a daemon without one), bootstrap, topic and group to read from Kafka, and shed_above_lag if
            it is not the default.
    """
    kafka = {"bootstrap_servers": job["bootstrap"], "topic": job["topic"], "group_id": job["group"]} if "bootstrap" in job else {}
    drift = {"shed_above_lag": job["shed_above_lag"]} if "shed_above_lag" in job else {}
    return Config(
        kafka=kafka,
        drift=drift,
        events={"to": "file"},
        training={"schedule": "", "rows_min": NEVER_ROWS, "drift_rows_min": NEVER_ROWS},
        state={"directory": folder / "state"},
        models={"directory": Path(job["models"]) if job["models"] else folder / "models"},
        http={"enabled": False},
    )


def source_of(job: dict[str, Any], settings: Config, observer: Observer) -> Source:
    return kafka_source(settings, observer) if "bootstrap" in job else FileSource(Path(job["file"]))


def warm_up(models: str | None) -> None:
    """Run one small stream through a daemon of its own: it loads compiled kernels and runtimes, which are not measured."""
    with tempfile.TemporaryDirectory(prefix="dwcp-warm-") as name:
        folder = Path(name)
        write_file(fleet(4), WARM_UP_ROWS, folder / "warm.ndjson")
        observer = Observer()
        build(config({"models": models}, folder), FileSource(folder / "warm.ndjson"), WallClock(), observer).run()


def ingest(job: dict[str, Any]) -> dict[str, Any]:
    """Return the CPU seconds of all threads from opening the source to the last record's checkpoint, by stage.

    Args:
        job: as in `config`, and records: their number.
    """
    configure_logging("error", "json", sys.stderr)
    warm_up(job["models"])
    with tempfile.TemporaryDirectory(prefix="dwcp-ingest-") as name, _timed_sealing() as sealing_s:
        threads = _Threads()
        events: list[str] = []
        observer = Observer(lambda event, _fields: events.append(event))
        settings = config(job, Path(name))
        began_s, began_loop_s, began_wall_s = time.process_time(), time.thread_time(), time.monotonic()
        with observer.stage("open"):  # a file is indexed here
            daemon = build(settings, source_of(job, settings, observer), WallClock(), observer)
        daemon.loop.on_step = lambda _polled: _stop_at(daemon, job["records"], threads)
        daemon.run()
        cpu_s, loop_s = time.process_time() - began_s, time.thread_time() - began_loop_s
        wall_s = time.monotonic() - began_wall_s
        counted = _counted(observer)
        checkpointed = sum(_offset_on_disk(settings, pipeline.partition) for pipeline in daemon.parts.group)
        if checkpointed != job["records"]:
            raise RuntimeError(f"the checkpoint holds {checkpointed} of {job['records']} records")
        return counted | {
            "records": daemon.parts.group.rows,
            "links": daemon.parts.group.links,
            "watched_links": daemon.parts.group.monitored_links,
            "pauses": events.count("source_paused"),
            "cpu_s": cpu_s,
            "wall_s": wall_s,
            "stage_s": _stages(observer, cpu_s, loop_s, threads.source_s, sum(sealing_s)),
        }


def _offset_on_disk(settings: Config, partition: Partition) -> int:
    """Return the offset from which a daemon that starts now would go on."""
    store = CheckpointStore(settings.state.directory, settings.state.member, NEVER_ROWS, math.inf, lambda *_event, **_fields: None)
    restored = store.restore(partition)
    return (restored.offset or 0) if restored is not None else 0


def _stop_at(daemon: Daemon, records: int, threads: _Threads) -> None:
    if daemon.parts.group.rows >= records:
        threads.look()
        daemon.loop.stop("everything is measured")


class _Threads:
    """CPU seconds of the source's threads, without those of the loop and of the daemon."""

    _OURS: Final = ("MainThread", "checkpoint", "publisher", "trainer", "APScheduler")

    def __init__(self) -> None:
        self._before = {thread.native_id for thread in threading.enumerate()}
        self.source_s = 0.0

    def look(self) -> None:
        """To be called while they still run."""
        self.source_s = sum(
            _thread_cpu_s(thread.native_id)
            for thread in threading.enumerate()
            if thread.native_id is not None and thread.native_id not in self._before and not thread.name.startswith(self._OURS)
        )


def _thread_cpu_s(native_id: int) -> float:
    """Return the CPU seconds of a thread, which the kernel's scheduler counts in nanoseconds."""
    return int(Path(f"/proc/{os.getpid()}/task/{native_id}/schedstat").read_text().split()[0]) / 1e9


@contextmanager
def _timed_sealing() -> Iterator[list[float]]:
    """Measure sealing, which runs within the checkpoint's thread."""
    spent_s: list[float] = []
    seal = BufferWriter.seal

    def timed(writer: BufferWriter, taken: OpenSegment) -> Segment:
        began_s = time.thread_time()
        try:
            return seal(writer, taken)
        finally:
            spent_s.append(time.thread_time() - began_s)

    BufferWriter.seal = timed  # type: ignore[method-assign, assignment]
    try:
        yield spent_s
    finally:
        BufferWriter.seal = seal  # type: ignore[method-assign]


def _counted(observer: Observer) -> dict[str, int]:
    def count(name: str, **labels: str) -> int:
        return int(observer.registry.get_sample_value(name, labels) or 0)

    return {
        "accepted": count("dwcp_records_total", outcome="accepted"),
        "forecasts": count("dwcp_forecasts_total"),
        "shed": count("dwcp_forecasts_shed_total"),
    }


def _stages(observer: Observer, cpu_s: float, loop_s: float, source_s: float, sealing_s: float) -> dict[str, float]:
    """CPU seconds by stage. Their sum is cpu_s."""
    stages = {
        name: observer.registry.get_sample_value("dwcp_stage_seconds_total", {"stage": name}) or 0.0
        for name in ("open", "poll", "decode", "features", "drift", "forecast", "buffer", "snapshot", "regions")
    }
    stages["drift"] -= stages["forecast"]  # forecasts are made within it
    rest_s = loop_s - sum(stages.values())
    return stages | {
        "poll": stages["poll"] + source_s,
        "buffer": stages["buffer"] + sealing_s,
        "checkpoint": stages.pop("snapshot") + max(0.0, cpu_s - loop_s - source_s - sealing_s),
        "rest_of_the_loop": rest_s,
    }


if __name__ == "__main__":
    answer(ingest(job_of(sys.argv)))
