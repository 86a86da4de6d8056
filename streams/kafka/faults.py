"""The faults of a connection: which one has lasted long enough to be reported, once or again."""

from __future__ import annotations

import math
import time
from typing import Final

GRACE_S: Final = 3.0  # a connection that is replaced, or metadata on the way, is not a fault
REPEAT_AFTER_S: Final = 30.0  # a fault that lasts is reported again


class Faults:
    """Remembers since when each fault lasts, and when it was reported. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        self._reported_s: dict[str, float] = {}

    def lasts(self, name: str, now_s: float, grace_s: float = GRACE_S, repeat_s: float = REPEAT_AFTER_S) -> bool:
        """Note that a fault is present, and return whether to report it now.

        Args:
            name: Name of the fault.
            now_s: Monotonic seconds.
            grace_s: How long it must have lasted, seconds.
            repeat_s: Time between two reports of it, seconds.
        """
        return now_s - self._since_s.setdefault(name, now_s) >= grace_s and self.is_due(name, repeat_s, now_s)

    def is_due(self, name: str, repeat_s: float = REPEAT_AFTER_S, now_s: float | None = None) -> bool:
        """Return whether a fault was not reported within repeat_s, and note that it is reported now."""
        now_s = time.monotonic() if now_s is None else now_s
        due = now_s - self._reported_s.get(name, -math.inf) >= repeat_s
        if due:
            self._reported_s[name] = now_s
        return due

    def seconds(self, name: str, now_s: float) -> float:
        """Return how long a fault has lasted."""
        return now_s - self._since_s[name]

    def reported(self, prefix: str) -> list[str]:
        """Return the reported faults whose names begin with a prefix."""
        return [name for name in self._reported_s if name.startswith(prefix)]

    def end(self, name: str) -> None:
        """Note that a fault is over. If it comes back soon, it is not reported again before its time."""
        self._since_s.pop(name, None)

    def forget(self, name: str) -> None:
        """Note that a fault is over. If it comes back, it is another one."""
        self._reported_s.pop(name, None)

    def clear(self) -> None:
        """Forget all faults."""
        self._since_s.clear()
        self._reported_s.clear()
