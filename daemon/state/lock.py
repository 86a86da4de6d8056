"""One daemon per member and state directory: two would delete each other's segments."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from daemon.errors import StateError
from daemon.state.private_folder import make_private


@dataclass
class StateLock:
    """Held until released, or until the process ends in any way. closed: other users could read or change the directory before."""

    _file: TextIOWrapper
    closed: bool = False

    @classmethod
    def acquire(cls, state: Path, member: str) -> StateLock:
        """Return the lock of a member.

        Raises:
            StateError: another process holds it, or the directory cannot be made, or made private.
        """
        path = state / f"lock-{member}"
        try:
            closed = make_private(state)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666), "w")  # opening a pipe would wait
        except OSError as error:
            raise StateError.unwritable(state, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise StateError(
                f"{state}: another dwcp-learner runs on this state directory as member {member!r}; stop it, or give this one its own "
                "state.directory (or, on a shared directory, its own state.member)"
            ) from error
        return cls(file, closed)

    def release(self) -> None:
        """Let another process acquire the lock."""
        self._file.close()
