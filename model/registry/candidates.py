"""Candidates: folders in which versions are built. Each has a unique name, and a lock that is held as long as its builder lives."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.registry.choice import CHOICE_NAME, CURRENT_NAME
from model.registry.durable import sync_folder
from model.registry.plain_file import is_folder
from model.registry.removal import remove_whatever

CANDIDATE_PREFIX: Final = ".candidate-"
REMOVING_PREFIX: Final = ".removing-"
_PARTIALS: Final = (f".{CURRENT_NAME}.", f".{CHOICE_NAME}.")
ABANDONED_S: Final = 86_400.0
"""Seconds without a change after which a candidate counts as abandoned on a file system without locks: no training takes a day."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Names of the removed files and folders, and the problem of each that could not be removed, with what to do."""

    removed: list[str]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder that this process builds a version in, or has a child build one in. version: its name, which is reserved with it."""

    version: str
    folder: Path
    _lock: int

    def release(self) -> None:
        """Release the folder's lock, once it is published, refused or removed."""
        os.close(self._lock)


def reserve(folder: Path, version: str) -> Candidate | None:
    """Make the folder and lock it; None if it is there already, or somebody else removes it. Raises OSError if it cannot be made.

    The lock is on the folder itself, so that it follows a rename and leaves nothing behind.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        is_ours = _lock(descriptor) and os.path.samestat(os.fstat(descriptor), folder.lstat())
    except FileNotFoundError:  # another process has removed it as abandoned
        is_ours = False
    if not is_ours:
        os.close(descriptor)
        return None
    return Candidate(version, folder, descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a new folder and return whether that succeeded. It fails if another process just tests whether the folder is abandoned."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: see ABANDONED_S
        return True
    return True


def is_abandoned(folder: Path) -> bool:
    """Return whether nobody builds in a folder any more: its lock is free, or nothing in it has changed for ABANDONED_S. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        with os.scandir(descriptor) as entries:
            changed_s = [entry.stat(follow_symlinks=False).st_mtime for entry in entries]
        return time.time() - max([os.fstat(descriptor).st_mtime, *changed_s]) >= ABANDONED_S
    finally:
        os.close(descriptor)
    return True


def remove_leftovers(root: Path) -> Recovered:
    """Delete the remains of a crash in a models folder: abandoned candidates, half-deleted versions, a half-written CURRENT.

    Anything else with such a name is deleted as well. Raises OSError if the folder cannot be read.
    """
    found = Recovered([], [])
    with os.scandir(root) as entries:
        left = sorted(entry.name for entry in entries if entry.name.startswith((CANDIDATE_PREFIX, REMOVING_PREFIX, *_PARTIALS)))
    for name in left:
        path = root / name
        try:
            if name.startswith(CANDIDATE_PREFIX) and is_folder(path) and not is_abandoned(path):
                continue
            remove_whatever(path)
        except FileNotFoundError:
            continue  # another member was faster
        except OSError as error:
            found.problems.append(f"{path} cannot be removed ({error.strerror}); nobody needs it: remove it")
        else:
            found.removed.append(name)
    return found


def remove_version(folder: Path, root: Path) -> None:
    """Remove a version or candidate. It is renamed first, durably: no reader ever finds half of it, not even after a power cut."""
    doomed = root / f"{REMOVING_PREFIX}{folder.name}"
    with suppress(FileNotFoundError):
        remove_whatever(doomed)
    folder.rename(doomed)
    sync_folder(root)
    if folder.parent != root:
        sync_folder(folder.parent)
    remove_whatever(doomed)
