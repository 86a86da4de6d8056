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
    """Held until released, or until the process ends in whatever way. closed: the directory had been open to other users."""

    _file: TextIOWrapper
    closed: bool = False

    @classmethod
    def take(cls, state: Path, member: str) -> StateLock:
        """Raises StateError where another process holds it, or the directory cannot be made, or made private."""
        path = state / f"lock-{member}"
        try:
            closed = make_private(state)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666), "w")  # a pipe would be waited for
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
        self._file.close()
