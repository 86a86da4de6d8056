"""Standard output and error that accept whatever is printed: in any encoding, on closed descriptors, on a full disk."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
from contextlib import suppress
from typing import Any, Final, TextIO

REPLACE: Final = "dwcp-replace"
"""The name of the error handler that prints what an encoding has in place of what it lacks."""
_INSTEAD: Final = {"●": "*", "→": "->", "…": "...", "·": "-", "•": "*", "│": "|", "─": "-", "━": "-"}


COLUMNS_MIN: Final = 60
"""Of a page for a person. In a narrower terminal its lines wrap, but nothing is left out; a job's COLUMNS may even be 1."""


class OutputError(Exception):
    """Standard output cannot be written. Not an OSError, which would name no file and pass for a fault of something else."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written ({error.strerror or error}); give it another place")
        self.reader_is_gone = isinstance(error, BrokenPipeError)


class _Output(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from error


class _LossyOutput(io.FileIO):
    """What cannot be written is lost, and ends nothing."""

    def write(self, data: Any, /) -> int:
        with suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Make the process's own standard streams accept everything. Streams that somebody has put in their place are left alone.

    Call it before anything is opened: a file that got the number of a closed stream would receive what libraries print.
    """
    codecs.register_error(REPLACE, _replaced)
    _have_room()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrapped(_Output(1, "w", closefd=False), sys.__stdout__)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrapped(_LossyOutput(2, "w", closefd=False), sys.__stderr__)


def lose_what_cannot_be_written() -> None:
    """Make standard output a log: a daemon does not end because nobody reads it any more, or because its disk is full."""
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(getattr(sys.stdout.buffer, "raw", None), _Output):
        sys.stdout = _wrapped(_LossyOutput(1, "w", closefd=False), sys.stdout)


def discard_output() -> None:
    """Send the rest of standard output nowhere: what is left in buffers would fail again at the interpreter's end."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def _have_room() -> None:
    """Correct COLUMNS and LINES: in a page of 0 columns nothing would be printed at all."""
    size = shutil.get_terminal_size()
    if "COLUMNS" in os.environ or size.columns < COLUMNS_MIN:
        os.environ["COLUMNS"] = str(max(size.columns, COLUMNS_MIN))
    if "LINES" in os.environ:
        os.environ["LINES"] = str(size.lines)


def _wrapped(raw: io.FileIO, before: Any) -> TextIO:
    """A text stream like the one before, which is None if its descriptor was closed."""
    form = {} if before is None else {"line_buffering": before.line_buffering or raw.isatty(), "write_through": before.write_through}
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8" if before is None else before.encoding, REPLACE, **form)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_INSTEAD.get(character, "?") for character in error.object[error.start : error.end]), error.end
