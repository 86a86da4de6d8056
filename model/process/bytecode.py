"""Damaged compiled files of Python (.pyc), which a full disk or a power cut may leave.

Python up to 3.12 renames a file into place even if it could not write its end. Each start would then fail with EOFError ("marshal data
too short").
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

_undoing: list[Callable[[], object]] = []


def before_starting_again(undo: Callable[[], object]) -> None:
    """Register a function to call before this process starts again. It undoes an action that cannot be repeated, and may raise OSError."""
    _undoing.append(undo)


def start_again_without_damaged(error: BaseException) -> None:
    """Remove the damaged .pyc that the error comes from and start this process again. Return if there is none, or if that fails."""
    path = damaged_file(error)
    if path is not None:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - nothing more is imported than has to be
            print(f"{path} was damaged and has been removed; starting again", file=sys.stderr, flush=True)
            while _undoing:
                _undoing.pop()()
            os.execv(sys.executable, sys.orig_argv)


def damaged_file(error: BaseException) -> str | None:
    """Return the .pyc whose reading raised the error; None if it was something else."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None or step.tb_frame.f_code.co_name != "_compile_bytecode":
        return None
    path = step.tb_frame.f_locals.get("bytecode_path")
    return path if isinstance(path, str) else None
