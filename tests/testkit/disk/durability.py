"""The disk after a power cut, deduced from system calls. Only fsynced data count, and every rename may reach the disk first."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from testkit.disk.syscalls import Stop


class Durability:
    """Observer of a child's system calls that finds content made visible, or destroyed, before that was safe.

    Args:
        root: the registry's folder. Files from before the first call count as not fsynced.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []
        self._synced: set[Path] = set()
        self._names: defaultdict[Path, set[str]] = defaultdict(set)
        """For each folder, the entries that were added or removed since its last fsync."""

    def take(self, stop: Stop) -> None:
        """Observe one stop of the child."""
        if stop.at == "entry":
            if stop.name.startswith("rename"):
                self._require_content(*stop.paths)
            elif stop.name.startswith(("unlink", "rmdir")):
                self._require_out_of_sight(stop.paths[0])
        elif stop.changes and not stop.failed:
            self._made(stop)

    def finished(self) -> None:
        """Check, after the work, that everything it has made survives a power cut."""
        for folder, names in self._names.items():
            hidden = any(part.startswith(".") for part in folder.relative_to(self.root).parts)
            if not hidden and (lost := sorted(name for name in names if not name.startswith("."))):
                self.problems.append(f"done, and {folder.name} was not fsynced since {', '.join(lost)} changed in it")

    def _made(self, stop: Stop) -> None:
        first = stop.paths[0]
        if stop.name in ("fsync", "fdatasync"):
            self._synced.add(first)
            self._names.pop(first, None)
        elif stop.name.startswith("rename"):
            source, target = stop.paths
            self._synced = {target / path.relative_to(source) if path.is_relative_to(source) else path for path in self._synced}
            for path in stop.paths:
                self._changed_in(path)
        else:
            self._synced.discard(first)
            if stop.name.startswith(("open", "creat", "mkdir", "unlink", "rmdir", "link", "symlink")):
                self._changed_in(first)

    def _changed_in(self, path: Path) -> None:
        if not any(part.startswith(".removing-") for part in path.parent.parts):  # what is being deleted may be lost
            self._names[path.parent].add(path.name)
        self._synced.discard(path.parent)

    def _require_content(self, source: Path, target: Path) -> None:
        """Require that a renamed file is on disk completely, and so is the name of the version in CURRENT."""
        if target.name.startswith(".removing-"):
            return
        inside = [Path(root) / name for root, _, files in os.walk(source) for name in files]
        folders = [Path(root) for root, _, _ in os.walk(source)]
        for path in [*inside, *folders] if source.is_dir() else [source]:
            if path not in self._synced:
                self.problems.append(f"{source.name} becomes {target.name}, and {path.relative_to(source.parent)} is not fsynced")
        if target == self.root / "CURRENT" and (lost := self._names[self.root] - {source.name}):
            self.problems.append(f"CURRENT is replaced, and its folder was not fsynced since {', '.join(sorted(lost))} changed in it")

    def _require_out_of_sight(self, path: Path) -> None:
        """A file of a version is deleted only when the version has, durably, another name."""
        doomed = next((folder for folder in (path, *path.parents) if folder.name.startswith(".removing-")), None)
        if doomed is None:
            return
        shown = doomed.name.removeprefix(".removing-")
        for folder in (self.root, self.root / "refused"):
            if {doomed.name, shown} & self._names[folder] and doomed != path:
                self.problems.append(f"{path.name} of {shown} is deleted, and the new name of its folder is not fsynced in {folder.name}")
