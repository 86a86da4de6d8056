"""The schedule of checkpoints. Each is written on a separate thread, so that fsync does not hold up the stream."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from daemon.clock import Clock
from daemon.errors import FencedError
from daemon.events.sinks import Sinks
from daemon.operator.observer import Observer
from daemon.state.checkpoint import CheckpointStore
from daemon.state.snapshot import Snapshot, Written

RETRY_S: Final = 5.0
"""Seconds from a failed checkpoint to the next attempt: a full disk does not get free space sooner."""


class Keeper:
    """At most one checkpoint at a time. All methods are called from the loop's thread."""

    def __init__(self, store: CheckpointStore, sinks: Sinks, observer: Observer, clock: Clock, interval_s: float) -> None:
        """Begin the first checkpoint after interval_s seconds."""
        self.store = store
        self.interval_s = interval_s
        self.problem: str | None = None
        """Reason why the last checkpoint failed, and what to do; None once one was written."""
        self.began_s = 0.0
        """Time at which the last checkpoint was begun, monotonic seconds."""
        self.patience_s: float | None = None
        """Longest wait of `finish`, seconds; None: no limit."""
        self._sinks, self._observer, self._clock = sinks, observer, clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: tuple[Snapshot, Future[Written]] | None = None
        self._due_s = clock.monotonic_s() + interval_s

    @property
    def busy(self) -> bool:
        """True if a checkpoint is being written."""
        return self._running is not None

    @property
    def open_rows(self) -> int:
        """Rows in memory that belong to the checkpoint that is being written: until it is, and again if it fails."""
        return sum(len(part.open_rows) for part in self._running[0].parts if part.open_rows is not None) if self._running else 0

    def step(self, snapshot: Callable[[], Snapshot | None], *, wanted: bool) -> Written | None:
        """Return the checkpoint that was written since the last call, if any, and begin the next if it is due.

        Args:
            snapshot: returns the state that a checkpoint that begins now writes; None if there is nothing.
            wanted: something waits for a checkpoint. If none is returned, the next begins at once, unless the last one failed.
        """
        written = self.finish()
        wanted = wanted and written is None and self.problem is None
        if not self.busy and (wanted or self._clock.monotonic_s() >= self._due_s):
            with self._observer.stage("snapshot"):
                self.begin(snapshot())
        return written

    def begin(self, snapshot: Snapshot | None) -> None:
        """Begin to write, if there is anything. Only when not busy."""
        if snapshot is None:
            return
        self.began_s = self._clock.monotonic_s()
        self._due_s = self.began_s + self.interval_s
        self._running = snapshot, self._executor.submit(self.store.write, snapshot, self._sinks.flush)

    def finish(self, *, wait: bool = False) -> Written | None:
        """Return the checkpoint that was written since the last call, if any; report it if it has failed.

        Args:
            wait: wait for one that is being written.
        """
        if self._running is None or not (wait or self._running[1].done()):
            return None
        try:
            written = self._result()
        except (OSError, FencedError) as error:
            self.failed(error)
            return None
        self.problem = None
        self._observer.buffer_rows.set(written.rows)
        self._observer.checkpoint_s.observe(written.seconds)
        self._observer.checkpoint_time.set_to_current_time()
        return written

    def failed(self, error: Exception) -> None:
        """Report that the state cannot be written. It is tried again after RETRY_S."""
        remedy = "free space on the disk of the state directory, or mend its permissions; it is tried again"
        if isinstance(error, FencedError):
            remedy = "none: this member was out of its group for a while; it gives up its lost partitions once the group reports them"
        if isinstance(error, TimeoutError):
            remedy = self._sinks.remedy(error)
        self.problem = f"the state cannot be written: {error}; {remedy}"
        self._due_s = self._clock.monotonic_s() + RETRY_S
        self._observer.emit("checkpoint_failed", problem=str(error), remedy=remedy)

    def close(self) -> None:
        """Wait for a checkpoint that is being written, unless `finish` has given it up."""
        self._executor.shutdown(wait=not self.busy)

    def _result(self) -> Written:
        """Return the checkpoint once it is written.

        If it failed, its rows are back with their writers. A checkpoint that is not written after patience_s is given up with an OSError,
        which is not a TimeoutError: that one is the broker's.
        """
        assert self._running is not None
        snapshot, future = self._running
        if not futures.wait([future], self.patience_s).done:
            seconds = self._clock.monotonic_s() - self.began_s
            raise OSError(f"a checkpoint has been written for {seconds:.0f} s: the disk does not answer")
        self._running = None
        try:
            return future.result()
        except Exception:
            for part in snapshot.parts:
                if part.open_rows is not None:
                    part.writer.put_back(part.open_rows)
            raise
