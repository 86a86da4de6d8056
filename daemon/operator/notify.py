"""The service manager's notification protocol, sd_notify(3): one datagram to the socket that systemd names in the environment.

These are twenty lines instead of a library: those on the registry have not been maintained for years.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

_WATCHDOG_SHARE: Final = 3  # three heartbeats in the time that systemd allows for one
_START_EVERY_S: Final = 15.0
_START_EXTENSION_S: Final = 60
_PATIENCE_S: Final = 1.0
"""Seconds to wait for a manager that is too busy to read a message: its socket holds ten. Other messages do not wait, they are sent
again."""


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

    def ready(self) -> None:
        """Notify that the start, or a reload, is complete."""
        self._ready = True
        self._send("READY=1", _PATIENCE_S)

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send("STATUS=" + text.replace("\n", " "))

    def reloading(self) -> None:
        """Notify that a reload begins, which `ready` ends."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", _PATIENCE_S)

    def stopping(self) -> None:
        """Notify that the daemon stops."""
        self._send("STOPPING=1", _PATIENCE_S)

    def alive(self) -> None:
        """Feed the watchdog. Call it only when the loop makes progress.

        Before `ready` no watchdog runs yet. Then this asks for more time to start: an unreachable broker is not a reason for a restart.
        """
        now_s = self._clock()
        every_s = self.watchdog_s / _WATCHDOG_SHARE if self._ready else _START_EVERY_S
        if (self.watchdog_s or not self._ready) and now_s - self._alive_s >= every_s:
            self._alive_s = now_s
            self._send("WATCHDOG=1" if self._ready else f"EXTEND_TIMEOUT_USEC={_START_EXTENSION_S * 1_000_000}")

    def _send(self, message: str, patience_s: float = 0.0) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(patience_s)
            try:
                connection.sendto(message.encode(), self._address)
            except OSError:
                # systemd restarts a daemon that sends nothing any more. Nothing else can be done here.
                return
