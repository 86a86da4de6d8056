"""A storm over one process: disk calls that fail, an end at any of them, and what a power cut leaves on the disk. All by a seed.

A power cut loses what was not made durable. Of a file, the bytes after its last fsync are lost, in part or as zeros. Of a folder, the
newest renames and deletions since its last fsync are undone.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

KILLED: Final = 137
REFUSALS: Final = (errno.ENOSPC, errno.EIO, errno.EROFS)
GRAVE: Final = ".grave"
"""Suffix of the folder that keeps deleted files, which a power cut may bring back."""


@dataclass(frozen=True)
class Forecast:
    """What a seed brings.

    Args:
        calls: disk calls until the end; None: no end.
        power_cut: the end is a power cut, not a kill.
        refused: share of the calls that fail.
        spell: number of calls that fail in a row.
    """

    calls: int | None
    power_cut: bool
    refused: float
    spell: int

    @classmethod
    def of(cls, chosen: random.Random) -> Forecast:
        ends = chosen.random() < 0.85
        return cls(
            calls=int(10 ** chosen.uniform(0.5, 3.2)) if ends else None,
            power_cut=chosen.random() < 0.6,
            refused=chosen.choice((0.0, 0.0, 0.002, 0.02)),
            spell=chosen.randint(1, 6),
        )


class Storm:
    """Faults of one process's disk. `arm` is called in that process.

    Args:
        root: only files below it are affected.
        seed: of everything.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self._root, self._random = root.resolve(), random.Random(seed)
        self.forecast = Forecast.of(self._random)
        self._calls = self._spell = self._graves = 0
        self._durable: dict[tuple[int, int], int] = {}
        """Bytes of each file (device, inode) at its last fsync."""
        self._undo: dict[Path, list[Callable[[], None]]] = {}
        """For each folder, how to undo its renames and deletions since its last fsync."""

    def arm(self) -> None:
        """Wrap the calls by which the daemon makes files durable."""
        for path in self._root.rglob("*"):  # what is there from before is on the disk
            if path.is_file():
                self._durable[self._identity(path)] = path.stat().st_size
        fsync, rename, unlink = os.fsync, Path.rename, Path.unlink

        def fsync_(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._strike(path)
            fsync(descriptor)
            if path.is_dir():
                self._undo.pop(path, None)
            elif self._mine(path):
                self._durable[self._identity(path)] = path.stat().st_size

        def rename_(path: Path, target: Any) -> Path:
            self._strike(path)
            grave = self._bury(Path(target))
            moved = rename(path, target)
            self._note(Path(target), lambda: self._take_back(rename, path, Path(target), grave))
            return moved

        def unlink_(path: Path, missing_ok: bool = False) -> None:
            self._strike(path)
            grave = self._bury(path)
            unlink(path, missing_ok=missing_ok)
            if grave is not None:
                self._note(path, lambda: rename(grave, path) and None)

        setattr(os, "fsync", fsync_)  # noqa: B010 - as a function of ours
        setattr(Path, "rename", rename_)  # noqa: B010
        setattr(Path, "unlink", unlink_)  # noqa: B010

    def _strike(self, path: Path) -> None:
        """Fail, or end the process, if the forecast says so."""
        if not self._mine(path):
            return
        self._calls += 1
        if self.forecast.calls is not None and self._calls >= self.forecast.calls:
            if self.forecast.power_cut:
                self._cut()
            os._exit(KILLED)
        if self._spell == 0 and self._random.random() < self.forecast.refused:
            self._spell = self.forecast.spell
        if self._spell:
            self._spell -= 1
            code = self._random.choice(REFUSALS)
            raise OSError(code, os.strerror(code), str(path))

    def _cut(self) -> None:
        """Leave the disk as it is after a power cut."""
        for undo in self._undo.values():
            for take_back in reversed(undo[self._random.randint(0, len(undo)) :]):
                take_back()
        for path in [path for path in self._root.rglob("*") if path.is_file()]:
            size, durable = path.stat().st_size, self._durable.get(self._identity(path), 0)
            if size > durable and self._random.random() < 0.8:
                kept = self._random.randint(durable, size)
                os.truncate(path, kept)
                if self._random.random() < 0.3:
                    os.truncate(path, size)  # the size reached the disk before the pages: zeros

    def _take_back(self, rename: Callable[[Path, Path], Path], source: Path, target: Path, grave: Path | None) -> None:
        if target.exists() and not source.exists() and source.parent.is_dir():
            rename(target, source)
        if grave is not None:
            rename(grave, target)

    def _bury(self, path: Path) -> Path | None:
        """Give a second name to a file that is about to lose its own."""
        if not self._mine(path) or not path.is_file():
            return None
        graves = self._root.with_name(self._root.name + GRAVE)
        graves.mkdir(exist_ok=True)
        self._graves += 1
        grave = graves / f"{os.getpid()}-{self._graves}"
        os.link(path, grave)
        return grave

    def _note(self, path: Path, undo: Callable[[], None]) -> None:
        if self._mine(path):
            self._undo.setdefault(path.parent, []).append(undo)

    def _mine(self, path: Path) -> bool:
        return path.is_absolute() and path.is_relative_to(self._root)

    @staticmethod
    def _identity(path: Path) -> tuple[int, int]:
        status = path.stat()
        return status.st_dev, status.st_ino
