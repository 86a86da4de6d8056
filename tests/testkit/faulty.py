"""`dwcp-learner` with faults that a test switches on and off: `python -m testkit.faulty FAULTS run --config FILE`.

FAULTS is a JSON object with these keys, all optional:

constants: values by the dotted name of a constant, such as {"daemon.operator.health.STALLED_S": 2.0}.
faults: by the dotted name of a function, such as "os.fsync", its fault while a file exists: {"while": PATH, "does": HOW, "thread": NAME}.
    HOW is "hang" (it returns once the file is gone), "refuse" (no space left) or "nothing" (it returns an empty dict). Only threads whose
    name begins with NAME are affected.
death: {"before" or "after": dotted name of a function, "call": n}. The process ends around the nth call as `kill -9` ends it.
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
    """Return the module or class that holds a dotted name, and the last part of the name."""
    *path, last = name.split(".")
    for end in range(len(path), 0, -1):
        try:
            owner = importlib.import_module(".".join(path[:end]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, path[end:], owner), last
    raise ValueError(f"{name}: there is no such module")


def faulty(function: Callable[..., Any], fault: dict[str, str]) -> Callable[..., Any]:
    """Wrap a function so that it fails while the fault's file exists."""
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
    """Apply the faults of the first argument and run dwcp-learner with the others."""
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
