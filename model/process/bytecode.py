"""Python's own compiled files (.pyc), of which a full disk or a power cut may leave a part.

Python up to 3.12 renames a file into place whose end it could not write. Then each start would end with EOFError ("marshal data too
short").
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

_undoing: list[Callable[[], object]] = []


def before_starting_again(undo: Callable[[], object]) -> None:
    """Have something undone, should this process be started anew, which the new one could not do a second time. It may raise OSError."""
    _undoing.append(undo)


def start_again_without_damaged(error: BaseException) -> None:
    """If the error comes from a damaged .pyc, remove it and start this process anew; else, or if that cannot be done, return."""
    path = damaged_file(error)
    if path is not None:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - nothing more is imported than has to be
            print(f"{path} was damaged and has been removed; starting again", file=sys.stderr, flush=True)
            while _undoing:
                _undoing.pop()()
            os.execv(sys.executable, sys.orig_argv)


def damaged_file(error: BaseException) -> str | None:
    """The .pyc whose reading raised the error."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None or step.tb_frame.f_code.co_name != "_compile_bytecode":
        return None
    path = step.tb_frame.f_locals.get("bytecode_path")
    return path if isinstance(path, str) else None
