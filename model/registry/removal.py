"""Removal of files and folders of unknown origin, however deeply the folders are nested."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from model.registry.plain_file import is_folder


def remove_whatever(path: Path) -> None:
    """Remove a folder with all that is in it; of anything else only the name: a link is never followed. Raises OSError.

    There is no recursion, which would be limited by Python's stack, the length of a path or the number of open files: the content of each
    folder is moved up until nothing is left.
    """
    if not is_folder(path):
        path.unlink()
        return
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        while folders := _remove_files(top):
            for name in folders:
                _empty_into(top, name)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()


def remove_if_possible(path: Path) -> None:
    """Remove a path like `remove_whatever`, as far as that is possible now; raise nothing."""
    with suppress(OSError):
        remove_whatever(path)


def _remove_files(folder: int) -> list[str]:
    """Remove everything in a folder but its folders, and return their names."""
    with os.scandir(folder) as entries:
        folders = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    for name in folders:
        if not folders[name]:
            os.unlink(name, dir_fd=folder)
    return [name for name, is_dir in folders.items() if is_dir]


def _empty_into(top: int, name: str) -> None:
    """Remove the files of the folder `name` in `top`, and move its folders up into `top`, under names that nothing else has."""
    try:
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    except PermissionError:  # an empty one is removed all the same
        return
    try:
        for folder in _remove_files(inner):
            try:
                os.rmdir(folder, dir_fd=inner)
            except OSError:
                os.rename(folder, uuid.uuid4().hex, src_dir_fd=inner, dst_dir_fd=top)
    finally:
        os.close(inner)
