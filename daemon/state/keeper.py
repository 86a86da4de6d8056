"""Checkpoints on a thread of their own, one at a time, so that sealing and fsync do not hold up the stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

from daemon.state.checkpoint import CheckpointStore
from daemon.state.snapshot import Snapshot, Written


class Checkpointer:
    """At most one checkpoint under way, begun by the loop and asked for by it."""

    def __init__(self, store: CheckpointStore, flush_events: Callable[[], None]) -> None:
        self.store = store
        self._flush_events = flush_events
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: tuple[Snapshot, Future[Written]] | None = None
        self.began_s = 0.0
        """When the last one was begun, monotonic."""
        self.patience_s: float | None = None
        """How long `finished` waits; None: for as long as it takes."""

    @property
    def busy(self) -> bool:
        return self._running is not None

    @property
    def open_rows(self) -> int:
        """Rows that were taken for the checkpoint that is being written: they are in memory until it is true, and again if it fails."""
        return sum(len(part.open_rows) for part in self._running[0].parts if part.open_rows is not None) if self._running else 0

    @property
    def under_way_s(self) -> float:
        """For how long a checkpoint has been written; 0 where none is."""
        return time.monotonic() - self.began_s if self.busy else 0.0

    def begin(self, snapshot: Snapshot) -> None:
        """Starts to write. Only when not busy."""
        self.began_s = time.monotonic()
        self._running = snapshot, self._executor.submit(self.store.write, snapshot, self._flush_events)

    def finished(self, wait: bool = False) -> Written | None:
        """The checkpoint that has become true since the last call, if any.

        Raises what `CheckpointStore.write` raised; the rows that were taken for it are back with their writers then. OSError, and no
        TimeoutError, which is the broker's, where it is still under way after patience_s.
        """
        if self._running is None or not (wait or self._running[1].done()):
            return None
        snapshot, future = self._running
        if not futures.wait([future], self.patience_s).done:
            raise OSError(f"a checkpoint has been written for {self.under_way_s:.0f} s: the disk does not answer")
        self._running = None
        try:
            return future.result()
        except Exception:
            for part in snapshot.parts:
                if part.open_rows is not None:
                    part.writer.give_back(part.open_rows)
            raise

    def close(self) -> None:
        """Waits for a checkpoint that is under way, unless `finished` has given it up."""
        self._executor.shutdown(wait=not self.busy)
