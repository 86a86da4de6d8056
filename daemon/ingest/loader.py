"""A reader of versions on a separate thread: a disk or a network that hangs delays one version, and not the loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

PASS_S: Final = 0.25
"""Seconds to wait in a pass of the loop. A version takes .1 s; one that takes longer goes live with a later pass."""
PATIENCE_S: Final = 20.0
"""Seconds to wait if a version is needed to go on: at the start, and for a partition that comes with its state. A third of the watchdog's
limit."""


class StillReadingError(OSError):
    """A version is still being read. A later call returns it."""


class Loader:
    """Does one piece of work at a time; the caller asks for each by its key until it is done."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._running: dict[Hashable, Future[Any]] = {}
        self._awaited: set[Hashable] = set()
        """Keys of work that took longer than PATIENCE_S: nobody waits for it again."""

    @property
    def busy(self) -> bool:
        """True if a thread is left that would keep the process from its end."""
        return any(not future.done() for future in self._running.values())

    def is_running(self, key: Hashable) -> bool:
        """Return whether the work of a key has begun and `result` has not returned its outcome yet."""
        return key in self._running

    def result(self, key: Hashable, work: Callable[[], Any], wait_s: float) -> Any:
        """Begin the work, unless it has begun, and return its result.

        Args:
            wait_s: how long to wait for it, seconds.

        Raises:
            StillReadingError: it takes longer. Any error of the work itself is raised as well.
        """
        future = self._running.get(key)
        if future is None:
            future = self._running[key] = self._thread.submit(work)
        try:
            result = future.result(0.0 if key in self._awaited else wait_s)
        except FutureTimeoutError as error:
            if future.done():  # the work itself has timed out
                self._forget(key)
                raise
            if wait_s >= PATIENCE_S:
                self._awaited.add(key)
            raise StillReadingError("it is still being read: its disk or network answers slowly, or not at all") from error
        except BaseException:
            self._forget(key)
            raise
        self._forget(key)
        return result

    def close(self) -> None:
        """Begin no more work, and do not wait for the work that runs."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _forget(self, key: Hashable) -> None:
        self._running.pop(key, None)
        self._awaited.discard(key)
