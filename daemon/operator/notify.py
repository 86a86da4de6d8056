"""The service manager's notification protocol, sd_notify(3): one datagram to the socket that systemd names in the environment.

Twenty lines of ours instead of a library: the ones on the registry have not been kept up for years.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

_WATCHDOG_SHARE: Final = 3  # three heartbeats in the time that systemd allows for one
_START_EVERY_S: Final = 15.0
_START_EXTENSION_S: Final = 60
_PATIENCE_S: Final = 1.0
"""For a manager that is too busy to take a message, which would block the loop: its socket holds ten. Others come again by themselves."""


class Notifier:
    """Tells systemd how the daemon is. Without systemd (no NOTIFY_SOCKET) every call does nothing."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if mine else 0.0
        self._alive_s = -1e9
        self._ready = False

    def ready(self) -> None:
        self._ready = True
        self._send("READY=1", _PATIENCE_S)

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows."""
        self._send("STATUS=" + text.replace("\n", " "))

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", _PATIENCE_S)

    def stopping(self) -> None:
        self._send("STOPPING=1", _PATIENCE_S)

    def alive(self) -> None:
        """To be called on progress of the loop, and on nothing else: it feeds the watchdog. Before `ready`, when there is no watchdog
        yet, it asks for more time to start: an unreachable broker is waited for, not a reason to be restarted."""
        now_s = time.monotonic()
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
                # systemd restarts a daemon that it no longer hears from; there is nobody else to tell.
                return
