"""Folder of sealed segments: which files go, which come back after a crash, and the links that a training reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from features.telemetry import Partition
from model.buffer.segments import TEMPORARY_PREFIX, SegmentError, SegmentName

GONE_PREFIX: Final = ".gone-"
"""Prefix of a segment's name while it is being deleted."""


def drop_unnamed(folder: Path, partitions: Collection[Partition], named: Callable[[], Collection[str]]) -> list[str]:
    """Delete segments of these partitions that no checkpoint names, and files that an interrupted sealing left.

    A file is renamed first, and comes back if it is named by then (see `reclaim` for a process that ends in between). So whoever names a
    segment and then finds it in its place has it for good.

    Args:
        named: Returns the file names that any checkpoint names. It is called twice, because another member may seal and name a segment in
            the meantime.

    Returns:
        The names of the deleted files.

    Raises:
        OSError: The first problem, after everything else was done.
    """
    names = ((path, _segment_of(path)) for path in sorted(folder.iterdir()))
    found = [(path, name) for path, name in names if name and any(name.belongs_to(partition) for partition in partitions)]
    problems: list[OSError] = []

    def tried(call: Callable[[], object]) -> bool:
        try:
            call()
        except FileNotFoundError:  # another member was faster
            return False
        except OSError as error:
            problems.append(error)
            return False
        return True

    known = named()
    going = [(path, name) for path, name in found if path.name.startswith(GONE_PREFIX)]
    dropped = [path.name for path, _ in going]
    for path, name in found:
        if path.name.startswith(TEMPORARY_PREFIX):
            dropped += [path.name] if tried(path.unlink) else []
        elif path.name == str(name) and path.name not in known:
            gone = folder / f"{GONE_PREFIX}{name}"
            if tried(lambda path=path, gone=gone: path.rename(gone)):  # type: ignore[misc]
                going.append((gone, name))
                dropped.append(path.name)
    known = named() if going else known
    for gone, name in going:
        if str(name) in known and not (folder / str(name)).exists():
            dropped.remove(str(name) if str(name) in dropped else gone.name)
            tried(lambda gone=gone, name=name: gone.rename(folder / str(name)))  # type: ignore[misc]
        else:
            tried(gone.unlink)
    if problems:
        raise problems[0]
    return dropped


def reclaim(folder: Path, named: Collection[str]) -> None:
    """Put named segments back in their place after a process has ended in the middle of `drop_unnamed`."""
    for gone in folder.glob(f"{GONE_PREFIX}*"):
        name = gone.name.removeprefix(GONE_PREFIX)
        if name in named and not (folder / name).exists():
            with suppress(FileNotFoundError):
                gone.rename(folder / name)


def _segment_of(path: Path) -> SegmentName | None:
    try:
        return SegmentName.parse(path.name.removeprefix(TEMPORARY_PREFIX).removeprefix(GONE_PREFIX))
    except ValueError:
        return None


def snapshot(paths: Iterable[Path], into: Path) -> list[Path]:
    """Link the segments into the new folder `into`, so that retention and compaction do not touch what a training reads.

    They are copied if the file system refuses hard links.

    Raises:
        SegmentError: A segment is missing.
        FileExistsError: `into` exists.
    """
    into.mkdir(parents=True)
    linked = []
    for path in paths:
        target = into / path.name
        try:
            os.link(path, target)
        except FileNotFoundError as error:
            raise SegmentError(path, "is missing", "restore it from a copy, or go on without its rows") from error
        except OSError:
            shutil.copyfile(path, target)
        linked.append(target)
    return linked
