"""A process that gets a share of a core and no more, as by systemd's CPUQuota=, on machines that allow no control group.

It is stopped, with all its threads, when it has used its part of a period. It goes on when the passed time allows for what it has used. CPU
time counts, so a busy machine changes nothing but the moments.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

PERIOD_S: Final = 0.1
"""Seconds of a period, as CPUQuota= has it."""
LOOK_S: Final = 0.002


class CpuShare:
    """A limit on a process while the context manager is entered. share: of one core."""

    def __init__(self, pid: int, share: float) -> None:
        self._pid, self._share = pid, share
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="cpu-share", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self._left.set()
        self._thread.join()

    def _hold(self) -> None:
        with suppress(ProcessLookupError, OSError):  # it has ended
            began_s, used_s = time.monotonic(), cpu_s(self._pid)
            while not self._left.is_set():
                ahead_s = (cpu_s(self._pid) - used_s) / self._share - (time.monotonic() - began_s)
                if ahead_s < -PERIOD_S:  # what it did not want is not saved for later
                    began_s, used_s = time.monotonic() - PERIOD_S, cpu_s(self._pid)
                if ahead_s > 0:
                    os.kill(self._pid, signal.SIGSTOP)
                    self._left.wait(max(ahead_s, PERIOD_S))
                    os.kill(self._pid, signal.SIGCONT)
                self._left.wait(LOOK_S)
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGCONT)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process so far. Raises OSError if there is no such process."""
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), which Python does not have
