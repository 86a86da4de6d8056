"""Folders that other users cannot read, and that only the daemon's own user can change."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from daemon.errors import StateError

_STRANGERS: Final = stat.S_IRWXO | stat.S_IWGRP
"""Permissions that are removed: all of other users, and changes by the group. The group may still read: backups need that."""


def make_private(folder: Path) -> bool:
    """Make the folder, mode 0700, or close one that was there before.

    Returns:
        True if the folder was there before and other users could read or change it.

    Raises:
        OSError: the folder cannot be made.
        StateError: the folder belongs to another user, and everybody can write into it: its content decides what the daemon does.
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
