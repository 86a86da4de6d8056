"""Errors that end a command with a message for a person, each with its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

EXIT_CODES: Final = (
    "Exit codes: 0 done · 1 failed (a demo in which something did not happen, a recording of which nothing was accepted, a model that does "
    "not verify, a models folder that cannot be used, output that cannot be written, an error that nobody foresaw: its traceback comes "
    "with DWCP_LOG__LEVEL=debug) · 2 wrong usage · 3 invalid configuration · 4 the state directory cannot be used · "
    "5 the source cannot give records, or events cannot be sent · 6 a replay in which nothing was judged, for reasons that it names (with "
    "--no-train: 0) · 130 interrupted, 143 ended by SIGTERM (a daemon that ends by either signal: 0)."
)
"""The epilog of every command's help."""
EXIT_CONFIG: Final = 3
EXIT_SOURCE: Final = 5
EXIT_NOTHING: Final = 6
"""Exit code of a replay that has ended without comparing any forecast with a measurement."""


class DaemonError(Exception):
    """An error whose message states what happened, where, and what to do. exit_code: exit code of the process that ends with it."""

    exit_code: ClassVar[int] = 1


class EventsError(DaemonError):
    """Events cannot be written to their file or topic."""

    exit_code = EXIT_SOURCE


class StateError(DaemonError):
    """The state directory cannot be used as it is."""

    exit_code = 4

    @classmethod
    def unwritable(cls, folder: Path, error: OSError) -> StateError:
        """Return the error of a folder of the state that cannot be made or written into."""
        return cls(f"{folder}: the state directory cannot be written ({error.strerror}); check its owner and the disk")


class FencedError(StateError):
    """Another member owns partitions that this one still holds: what it would write is out of date."""
