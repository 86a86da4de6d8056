"""A running daemon seen from outside: memory, metrics, health, and heartbeats to the service manager."""

from __future__ import annotations

import math
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ANSWER_LIMIT_S: Final = 60.0
"""Most seconds to wait for an answer: a daemon with hardly any CPU answers late."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the daemon.

    Args:
        at_s: monotonic seconds.
        lag: None if unknown.
        shedding: whether forecasts are shed.
        paused: whether the source is.
        not_ready: text of /readyz; empty: ready.
    """

    at_s: float
    consumed: int
    lag: int | None
    shedding: bool
    paused: bool
    resident_bytes: int
    live: bool
    not_ready: str


class Watcher:
    """A series of looks at a daemon. samples: all of them."""

    def __init__(self, pid: int, port: int) -> None:
        self.samples: list[Sample] = []
        self._pid, self._address = pid, f"http://127.0.0.1:{port}"

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics by name and labels. Raises OSError without an answer."""
        text = self._get("/metrics")[1]
        return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}

    def look(self) -> Sample:
        """Take a sample. Raises OSError without an answer."""
        metrics, (live, _), (ready, why) = self.metrics(), self._get("/livez"), self._get("/readyz")
        lag = metrics["dwcp_lag_records"]
        seen = Sample(
            at_s=time.monotonic(),
            consumed=int(metrics.get('dwcp_records_total{outcome="consumed"}', 0)),
            lag=None if math.isnan(lag) else int(lag),
            shedding=_count(metrics, "forecasts_shed") > _count(metrics, "forecasts_resumed"),
            paused=_count(metrics, "source_paused") > _count(metrics, "source_resumed"),
            resident_bytes=memory(self._pid)["VmRSS"],
            live=live == 200,
            not_ready="" if ready == 200 else why.strip(),
        )
        self.samples.append(seen)
        return seen

    def until(self, condition: Callable[[Sample], bool], every_s: float, limit_s: float) -> Sample:
        """Look until a condition holds and return that sample. Raises RuntimeError, with the last one, if it does not in time."""
        until_s = time.monotonic() + limit_s
        while not condition(seen := self.look()):
            if time.monotonic() > until_s:
                raise RuntimeError(f"not within {limit_s:.0f} s; {seen}")
            time.sleep(every_s)
        return seen

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self._address + path, timeout=ANSWER_LIMIT_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def _count(metrics: Mapping[str, float], event: str) -> float:
    return metrics.get(f'dwcp_events_total{{event="{event}"}}', 0)


class ServiceManager:
    """The other end of NOTIFY_SOCKET, which records when the watchdog was fed. environment: for the daemon."""

    def __init__(self, folder: Path, watchdog_s: float) -> None:
        self.fed_s: list[float] = []
        self._path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self.environment = {"NOTIFY_SOCKET": self._path, "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}
        self._thread = threading.Thread(target=self._listen, name="service-manager", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self._socket.sendto(b"", self._path)
        self._thread.join()
        self._socket.close()

    def longest_gap_s(self, since_s: float, until_s: float) -> float:
        """Return the longest time between two feeds, or between one and the ends of the interval."""
        fed_s = [since_s, *(at_s for at_s in self.fed_s if since_s < at_s < until_s), until_s]
        return max(after - before for before, after in pairwise(fed_s))

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            if message == b"WATCHDOG=1":
                self.fed_s.append(time.monotonic())


def memory(pid: int) -> dict[str, int]:
    """Return VmRSS and VmHWM (its peak) of a process in bytes. Raises OSError if there is no such process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {key: 1024 * int(value) for key, value in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)}
