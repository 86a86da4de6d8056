"""Standard output and error that accept any text: in any encoding, on closed descriptors, on a full disk."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
from contextlib import suppress
from typing import Any, Final, TextIO

REPLACE: Final = "dwcp-replace"
"""Name of the codec error handler that replaces characters which an encoding lacks."""
_INSTEAD: Final = {"●": "*", "→": "->", "…": "...", "·": "-", "•": "*", "│": "|", "─": "-", "━": "-"}

COLUMNS_MIN: Final = 60
"""Least width, in characters, that output is made for. A narrower terminal wraps its lines; a job's COLUMNS may even be 1."""


class OutputError(Exception):
    """Standard output cannot be written. Not an OSError: that would be reported as the fault of a file."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written ({error.strerror or error}); send it somewhere else")
        self.reader_is_gone = isinstance(error, BrokenPipeError)


class _Output(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from error


class _LossyOutput(io.FileIO):
    """Output that ignores write errors: the text is lost."""

    def write(self, data: Any, /) -> int:
        with suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Make the process's standard streams accept any text. Streams that were replaced, for example by a test, stay as they are.

    Call it before anything is opened: a file that gets the number of a closed stream would receive what libraries print.
    """
    codecs.register_error(REPLACE, _replaced)
    _correct_size()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrapped(_Output(1, "w", closefd=False), sys.__stdout__)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrapped(_LossyOutput(2, "w", closefd=False), sys.__stderr__)


def ignore_write_errors() -> None:
    """Make standard output a log: a daemon goes on if its reader is gone or the disk is full."""
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(getattr(sys.stdout.buffer, "raw", None), _Output):
        sys.stdout = _wrapped(_LossyOutput(1, "w", closefd=False), sys.stdout)


def discard_output() -> None:
    """Discard the rest of standard output: buffered text would fail again at the interpreter's end."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def _correct_size() -> None:
    """Correct COLUMNS and LINES: on a page of 0 columns nothing would be printed."""
    size = shutil.get_terminal_size()
    if "COLUMNS" in os.environ or size.columns < COLUMNS_MIN:
        os.environ["COLUMNS"] = str(max(size.columns, COLUMNS_MIN))
    if "LINES" in os.environ:
        os.environ["LINES"] = str(size.lines)


def _wrapped(raw: io.FileIO, before: Any) -> TextIO:
    """Return a text stream like the one before, which is None if its descriptor was closed."""
    form = {} if before is None else {"line_buffering": before.line_buffering or raw.isatty(), "write_through": before.write_through}
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8" if before is None else before.encoding, REPLACE, **form)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_INSTEAD.get(character, "?") for character in error.object[error.start : error.end]), error.end
