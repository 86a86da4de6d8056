"""The one way in which tests wait: for a state, with one limit that is enough on a machine of a tenth of the speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

LIMIT_S: Final = 600.0
"""Most seconds of a wait: twenty times a training on an idle machine, and less than pytest's limit, so that the message appears."""
LOOK_EVERY_S: Final = 0.05


def wait_for(condition: Callable[[], Any], what: str | Callable[[], str], *, alive: Callable[[], bool] = lambda: True) -> Any:
    """Wait until a condition is true and return its value.

    Args:
        condition: the state.
        what: its name, or a function that returns details, for the message.
        alive: whether the state can still come. It cannot after the end of a process.

    Raises:
        AssertionError: the state did not come.
    """
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        lives = alive()  # before the look: what a process did last counts
        if value := condition():
            return value
        assert lives, f"ended before: {_words(what)}"
        assert time.monotonic() < deadline_s, f"not within {LIMIT_S:g} s: {_words(what)}"
        time.sleep(LOOK_EVERY_S)


def _words(what: str | Callable[[], str]) -> str:
    return what if isinstance(what, str) else what()
