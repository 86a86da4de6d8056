"""`dwcp-learner` with faults that a test switches on and off: `python -m testkit.faulty FAULTS run --config FILE`.

FAULTS is a JSON object. "constants": names of constants and the values they have instead, such as
{"daemon.operator.health.STALLED_S": 2.0}.
"faults": for the name of a function, such as "os.fsync", what it does while a file exists: {"while": PATH, "does": "hang" (returns once the
file is gone), "refuse" (no space left) or "nothing" (returns an empty dict), "thread": the beginning of the name of the thread}.
"death": {"before" or "after": name of a function, "call": n}: as kill -9, around its nth call.
"""

from __future__ import annotations

import errno
import functools
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def owner_of(name: str) -> tuple[Any, str]:
    """The module or class in which a dotted name lies, and its last part."""
    *path, last = name.split(".")
    for end in range(len(path), 0, -1):
        try:
            owner = importlib.import_module(".".join(path[:end]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, path[end:], owner), last
    raise ValueError(f"{name}: there is no such module")


def faulty(function: Callable[..., Any], fault: dict[str, str]) -> Callable[..., Any]:
    switch = Path(fault["while"])

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if switch.exists() and threading.current_thread().name.startswith(fault.get("thread", "")):
            if fault["does"] == "refuse":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if fault["does"] == "nothing":
                time.sleep(0.1)
                return {}
            while switch.exists():
                time.sleep(0.05)
        return function(*arguments, **named)

    return call


def main() -> None:
    asked = json.loads(sys.argv.pop(1))
    from daemon.cli import main as run

    for name, value in asked.get("constants", {}).items():
        owner, last = owner_of(name)
        assert hasattr(owner, last), f"{name}: there is no such constant"
        setattr(owner, last, value)
    for name, fault in asked.get("faults", {}).items():
        owner, last = owner_of(name)
        setattr(owner, last, faulty(getattr(owner, last), fault))
    if death := asked.get("death"):
        from testkit.killing import kill_around

        after = "after" in death
        owner, last = owner_of(death["after" if after else "before"])
        kill_around(owner, last, death["call"], after=after)()
    run()


if __name__ == "__main__":
    main()
