"""The service manager's notification protocol, sd_notify(3): one datagram to the socket that systemd names in the environment.

These are twenty lines instead of a library: those on the registry have not been maintained for years.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

_WATCHDOG_SHARE: Final = 3  # three heartbeats in the time that systemd allows for one
_START_EVERY_S: Final = 15.0
_START_EXTENSION_S: Final = 60
_PATIENCE_S: Final = 1.0
"""Seconds to wait for a manager that is too busy to read a change of state: its socket holds ten messages. One that it does not take
in this time is sent again before the next message. Other messages do not wait: their next ones replace them."""
_OWED_MAX: Final = 4


class Notifier:
    """Notifies systemd of the daemon's state. Without systemd (no NOTIFY_SOCKET) every call does nothing."""

    def __init__(self, environment: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the socket and the limit of the watchdog.

        Args:
            environment: None: that of the process.
            clock: monotonic seconds.
        """
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if mine else 0.0
        self._clock, self._alive_s = clock, -1e9
        self._ready = False
        self._owed: deque[str] = deque(maxlen=_OWED_MAX)
        """Changes of state that the manager has not taken yet, the oldest first."""

    def ready(self) -> None:
        """Notify that the start, or a reload, is complete."""
        self._ready = True
        self._change("READY=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send("STATUS=" + text.replace("\n", " "))

    def reloading(self) -> None:
        """Notify that a reload begins, which `ready` ends."""
        self._change(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Notify that the daemon stops."""
        self._change("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog. Call it only when the loop makes progress.

        Before `ready` no watchdog runs yet. Then this asks for more time to start: an unreachable broker is not a reason for a restart.
        """
        now_s = self._clock()
        every_s = self.watchdog_s / _WATCHDOG_SHARE if self._ready else _START_EVERY_S
        if (self.watchdog_s or not self._ready) and now_s - self._alive_s >= every_s:
            self._alive_s = now_s
            self._send("WATCHDOG=1" if self._ready else f"EXTEND_TIMEOUT_USEC={_START_EXTENSION_S * 1_000_000}")

    def _change(self, message: str) -> None:
        """Send a change of state, after those that are owed."""
        self._owed.append(message)
        self._pay(_PATIENCE_S)

    def _send(self, message: str) -> None:
        """Send a message that the next one of its kind replaces."""
        if self._pay(0.0):
            self._sent(message, 0.0)

    def _pay(self, patience_s: float) -> bool:
        """Send what is owed and return whether nothing is owed any more. patience_s: seconds to wait, once."""
        while self._owed and self._sent(self._owed[0], patience_s):
            self._owed.popleft()
        return not self._owed

    def _sent(self, message: str, patience_s: float) -> bool:
        """Send a message and return whether the manager took it."""
        if not self._address:
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(patience_s)
            try:
                connection.sendto(message.encode(), self._address)
            except OSError:
                # systemd restarts a daemon that sends nothing any more. Nothing else can be done here.
                return False
        return True
