"""Folders that no stranger looks into, and nobody but the daemon's own user changes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from daemon.errors import StateError

_STRANGERS: Final = stat.S_IRWXO | stat.S_IWGRP
"""What is taken away: all from other users, changes from the group. It may go on to look in: a backup's group is wanted there."""


def make_private(folder: Path) -> bool:
    """Makes the folder, mode 0700, or closes one that was there before; whether it had to be closed.

    Raises OSError where it cannot be made, StateError where it is another user's, who lets everybody write into it: what lies there
    decides what the daemon does.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if not status.st_mode & _STRANGERS:
        return False
    if os.geteuid() in (0, status.st_uid):
        folder.chmod(stat.S_IMODE(status.st_mode) & ~_STRANGERS)
        return True
    if status.st_mode & stat.S_IWOTH:
        raise StateError(
            f"{folder}: belongs to user {status.st_uid}, and every user can write into it; name a folder inside it as state.directory, "
            "which is made private then, or have its owner chmod it to 0750"
        )
    return False
