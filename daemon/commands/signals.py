"""Handlers of signals that end a loop or reload its configuration."""

from __future__ import annotations

import signal
from collections.abc import Callable


def stop_on_signals(stop: Callable[[str], None]) -> None:
    """Handle SIGTERM and Ctrl-C: the loop ends after its current pass. A second Ctrl-C ends the process at once.

    Args:
        stop: receives the name of the signal.
    """

    def handle(number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


class Reloads:
    """Handler of SIGHUP, which remembers the signal until a loop can reload."""

    def __init__(self) -> None:
        self._asked = False
        self._reload: Callable[[], None] | None = None
        signal.signal(signal.SIGHUP, self._handle)

    def go_to(self, reload: Callable[[], None]) -> None:
        """Connect the loop. reload: called for each SIGHUP, at once if one has come already; must be safe in a signal handler."""
        self._reload = reload
        if self._asked:
            reload()

    def _handle(self, _number: int, _frame: object) -> None:
        if self._reload is None:
            self._asked = True
        else:
            self._reload()
