"""The one way in which tests wait: for a state, with one limit that holds on a machine of a tenth of the speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

LIMIT_S: Final = 600.0
"""Twenty times what a training takes on an idle machine, and less than pytest's own limit: a wait in vain says for what."""
LOOK_EVERY_S: Final = 0.05


def wait_for(condition: Callable[[], Any], what: str | Callable[[], str], *, alive: Callable[[], bool] = lambda: True) -> Any:
    """Return the condition's value once it is true.

    Args:
        condition: the state that is waited for.
        what: what that is, or what it says when it has not come, for the message.
        alive: whether it may still come; a process that has ended will reach no state.
    Raises:
        AssertionError: it did not come, with `what`.
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
