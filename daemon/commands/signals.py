"""Signals that end a loop, or have it reload its configuration."""

from __future__ import annotations

import signal
from collections.abc import Callable


def stop_on_signals(stop: Callable[[str], None]) -> None:
    """SIGTERM and Ctrl-C end the loop after its current pass; a second Ctrl-C ends it at once."""

    def handle(number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


class Reloads:
    """SIGHUP from now on: remembered until there is a loop that can reload."""

    def __init__(self) -> None:
        self._asked = False
        self._reload: Callable[[], None] | None = None
        signal.signal(signal.SIGHUP, self._handle)

    def go_to(self, reload: Callable[[], None]) -> None:
        """reload: asks the loop to; called at once where a signal has come already. Must be safe in a signal handler."""
        self._reload = reload
        if self._asked:
            reload()

    def _handle(self, _number: int, _frame: object) -> None:
        if self._reload is None:
            self._asked = True
        else:
            self._reload()
