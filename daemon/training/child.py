"""The training child: started, monitored, timed, cancelled. Its death costs one training and never the stream."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from daemon.training.command import command, environment
from daemon.training.progress import ProgressReader, Running
from model.buffer.folder import snapshot
from model.registry.plain_file import is_folder, open_plain, read_plain_bytes
from model.registry.removal import remove_if_possible
from model.spec.job import RESULT_NAME, JobResult, JobSpec

TERMINATION_S: Final = 3.0
"""Seconds from SIGTERM to SIGKILL: the daemon itself has 10 s to leave."""
KILLED_S: Final = 1.0
"""Seconds to wait after SIGKILL. A process blocked on a hung disk dies only when the disk answers; do not wait for it."""
LOG_NAME: Final = "trainer.log"
LOG_READ_BYTES: Final = 64 << 10
"""Bytes that are read of the end of a child's log."""
LOG_MOST_BYTES: Final = 1 << 60
"""Limit of a log, bytes: none, since only its end is read."""
RESULT_MOST_BYTES: Final = 16 << 20
"""Limit of a result, bytes: a hundred times what one has."""
FOLDERS_KEPT: Final = 5
"""Number of trainings whose job, result and log stay: enough to see why they failed, and too few to fill a disk in a year."""
_LAST_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a child.

    Args:
        result: None if it left none (crash, time limit, cancelled).
        problem: why it left no result, or why it failed; None if it did not.
        seconds: how long it ran.
        cpu_s: CPU seconds of it and its children; None if not known.
    """

    spec: JobSpec
    result: JobResult | None
    problem: str | None
    seconds: float
    cpu_s: float | None = None


@dataclass
class _Child:
    spec: JobSpec
    folder: Path
    process: subprocess.Popen[bytes]
    began_s: float
    progress: ProgressReader
    cpu_s: float
    """CPU seconds of all earlier children of this process."""
    terminated_s: float | None = None
    """Time at which it was sent SIGTERM because its time was up, seconds after its start; None before that."""


class Trainer:
    """At most one training at a time, in a process of its own."""

    def __init__(self, work: Path, time_limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Remove what a killed daemon left in the folder.

        Args:
            work: folder for job files, snapshots and logs.
            clock: monotonic seconds.

        Raises:
            OSError: the folder cannot be made.
        """
        self.time_limit_s = time_limit_s
        self._work, self._clock = work, clock
        self._child: _Child | None = None
        self._ended: list[Path] = []
        """Folders of trainings that have ended, oldest first."""
        if is_folder(work):  # anything else of this name is not a daemon's: making the folder fails
            remove_if_possible(work)
        work.mkdir(parents=True, mode=0o700)

    @property
    def running(self) -> bool:
        return self._child is not None

    def folder(self, job_id: str) -> Path:
        """Return where a job's file, snapshot, result and log lie."""
        return self._work / job_id

    def start(self, spec: JobSpec, segments: Sequence[Path]) -> None:
        """Start the child on an immutable snapshot of the segments.

        Raises:
            OSError: the snapshot or the process cannot be made.
            SegmentError: a segment is damaged.
        """
        if self._child is not None:
            raise RuntimeError("a training runs already")
        folder = self.folder(spec.job_id)
        remove_if_possible(folder)  # of a training at the same (recorded) time that failed
        snapshot(segments, Path(spec.snapshot))
        job = folder.absolute() / "job.json"
        job.write_bytes(_from_anywhere(spec).to_json())
        with (folder / LOG_NAME).open("wb") as log:
            # It works in its own folder: a file where the daemon was started, such as a matplotlibrc, must not affect it.
            process = subprocess.Popen(
                command("model.job", str(job), str(os.getpid())),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment(), cwd=folder,
            )  # fmt: skip
        _offer_to_oom_killer(process.pid)  # it is the first to go when memory runs out
        assert process.stdout is not None
        self._child = _Child(spec, folder, process, self._clock(), ProgressReader(process.stdout), _children_cpu_s())

    def progress(self) -> Running | None:
        """Return how far the child is; None if there is none."""
        child = self._child
        if child is None:
            return None
        seconds = self._clock() - child.began_s
        return Running(child.spec.version, seconds, max(0.0, self.time_limit_s - seconds), child.progress.last)

    def ended(self) -> Ended | None:
        """Return how the child ended, once; None while it runs, or if there is none. Begin to end it when its time is up."""
        child = self._child
        if child is None:
            return None
        seconds = self._clock() - child.began_s
        if child.process.poll() is None:
            self._end_in_time(child, seconds)
            return None
        if child.terminated_s is not None:
            return self._end(child, None, f"took longer than the limit of {self.time_limit_s:.0f} s and was killed")
        try:
            result = JobResult.from_json(read_plain_bytes(child.folder / RESULT_NAME, RESULT_MOST_BYTES))
        except (OSError, ValueError):
            code = child.process.returncode
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return self._end(child, None, f"the training {how} and left no result; its last words: {_last_words(child.folder)}")
        return self._end(child, result, result.error if result.status == "failed" else None)

    def _end_in_time(self, child: _Child, seconds: float) -> None:
        if child.terminated_s is None and seconds >= self.time_limit_s:
            child.terminated_s = seconds
            child.process.terminate()
        elif child.terminated_s is not None and seconds - child.terminated_s >= TERMINATION_S:
            child.process.kill()  # a stopped process, or one that ignores SIGTERM, ends by this

    def cancel(self) -> Ended | None:
        """End the child within a few seconds, and return how it ended; None if there is none."""
        if self._child is None:
            return None
        _kill(self._child.process)
        return self._end(self._child, None, "cancelled")

    def _end(self, child: _Child, result: JobResult | None, problem: str | None) -> Ended:
        self._child = None
        child.progress.close()
        remove_if_possible(child.folder / "snapshot")
        self._keep_newest(child.folder)
        return Ended(child.spec, result, problem, self._clock() - child.began_s, _children_cpu_s() - child.cpu_s)

    def _keep_newest(self, folder: Path) -> None:
        """Remove older folders; what cannot be removed now is tried again after the next training."""
        self._ended = [*(other for other in self._ended if other != folder), folder]
        for old in self._ended[:-FOLDERS_KEPT]:
            remove_if_possible(old)
        self._ended = [other for other in self._ended[:-FOLDERS_KEPT] if other.exists()] + self._ended[-FOLDERS_KEPT:]


def _from_anywhere(spec: JobSpec) -> JobSpec:
    """Return the same job with absolute paths: the child has another working directory."""
    parent = None if spec.parent is None else str(Path(spec.parent).absolute())
    snapshot, candidate = (str(Path(folder).absolute()) for folder in (spec.snapshot, spec.candidate))
    return msgspec.structs.replace(spec, snapshot=snapshot, candidate=candidate, parent=parent)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(TERMINATION_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILLED_S)


def _offer_to_oom_killer(pid: int) -> None:
    """Make the child the first to be killed when memory runs out. It needs no privilege; without this file the kernel chooses by size."""
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    except OSError:
        return


def _last_words(folder: Path) -> str:
    try:
        with open_plain(folder / LOG_NAME, LOG_MOST_BYTES) as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_READ_BYTES))
            lines = log.read(LOG_READ_BYTES).decode(errors="replace").strip().splitlines()
    except OSError as error:
        return f"its log cannot be read ({error.strerror})"
    return " / ".join(lines[-_LAST_LINES:]) or "none"


def _children_cpu_s() -> float:
    """Return the CPU seconds of all children of this process that have ended. It has no others than trainings."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
