"""Work in a forked process that is killed at a chosen point, as `kill -9` does."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from daemon.operator.logs import configure_logging

KILLED: Final = 137


def in_child(run: Callable[[], None], log: Path) -> int:
    """Run work in a forked process, which shares nothing with this one but the disk.

    Args:
        run: the work.
        log: file to which its output is appended.

    Returns:
        Its exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # garbage of this process may own threads that the child does not have (an ONNX session): the child would wait for them
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = log.open("a", buffering=1)
            configure_logging("info", "json")
            run()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        except BaseException:  # noqa: BLE001 - nothing of the forked process may run on in its parent's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    gc.unfreeze()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:  # the time limit of a test, or Ctrl-C
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def die() -> None:
    """End this process as `kill -9` does: nothing is flushed, closed or tidied up."""
    os._exit(KILLED)


def kill_when(owner: Any, name: str, wanted: Callable[..., bool], *, nth: int = 1, after: bool = False) -> Callable[[], None]:
    """Return a function that arms a kill, to be called in the process that is to die.

    Args:
        owner: module or class that holds the function.
        name: of the function.
        wanted: whether a call with these arguments counts.
        nth: the counted call around which the process dies.
        after: die after the call instead of before it.
    """

    def arm() -> None:
        original, calls = getattr(owner, name), 0

        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            hit = wanted(*args, **kwargs)
            calls += hit
            if hit and calls == nth and not after:
                die()
            result = original(*args, **kwargs)
            if hit and calls == nth:
                die()
            return result

        setattr(owner, name, counting)

    return arm


def kill_around(owner: Any, name: str, nth: int, *, after: bool) -> Callable[[], None]:
    """Return a function that arms a kill before or after the nth call of a function (see kill_when)."""
    return kill_when(owner, name, lambda *_args, **_kwargs: True, nth=nth, after=after)


def kill_after_calls(count: int) -> None:
    """Kill this process at the count-th call of any function of the daemon, on any thread."""
    left = [count]
    roots = tuple(f"{os.sep}{package}{os.sep}" for package in ("daemon", "model", "drift"))

    def profile(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and any(root in frame.f_code.co_filename for root in roots) and "site-packages" not in frame.f_code.co_filename:
            left[0] -= 1
            if left[0] <= 0:
                die()

    threading.setprofile(profile)
    sys.setprofile(profile)
