"""The checkpoint: offsets, link tables, rings, detectors, pending forecasts and the names of the sealed segments, true by one rename.

    checkpoints/000000000042-main/      number, and the member of the group that wrote it
        part-dwcp.telemetry-0.npz       one partition: it can move to another member
        process.npz                     the region stage, and what training waits for
        MANIFEST.json                   names and hashes of the files, offsets and segments

A record changes the state and the buffer exactly once, whatever dies when: the next start reads the newest sound checkpoint, deletes the
segments that it does not name, and reads the stream again from its offsets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon.errors import FencedError, StateError
from daemon.state.migration import migrated, migrated_process
from daemon.state.private_folder import make_private
from daemon.state.snapshot import Manifest, PartEntry, Restored, Snapshot, Written
from daemon.state.state_file import check_state, read_state, write_state
from features.telemetry import Partition
from model.buffer.retention import compact, plan_compaction, plan_retention
from model.buffer.rows import drop_unnamed, reclaim
from model.buffer.segments import Segment, SegmentError, SegmentName, describe
from model.registry.durable import atomic_write, sync_folder
from model.registry.plain_file import read_plain_bytes
from model.registry.removal import remove_if_possible, remove_whatever

SCHEMA_VERSION: Final = 5
"""Of a checkpoint. What older ones hold is brought up to date by daemon.state.migration."""
KEPT: Final = 3
"""Checkpoints of one member that stay: the newest, and two to go back to should it be damaged."""
_PARTIAL: Final = ".writing-"
_UNSOUND: Final = ".unsound-"
"""Put before the name of what is damaged: it is out of the way, and still there for a person to look at."""
_MANIFEST: Final = "MANIFEST.json"
MOST_MANIFEST_BYTES: Final = 1 << 28
"""Names of a million segments."""


@dataclass
class CheckpointStore:
    """The state directory of one member. `write` runs on another thread than the loop, one at a time."""

    folder: Path
    member: str
    rows_max: int
    age_max_s: float
    tell: Callable[..., None]
    segments: dict[Partition, dict[str, Segment]] = field(default_factory=dict)
    sequence: int = 0
    _lost: set[str] = field(default_factory=set, init=False)  # segments that a checkpoint names and that cannot be read
    _not_merged: set[tuple[SegmentName, ...]] = field(default_factory=set, init=False)
    _told: set[str] = field(default_factory=set, init=False)

    @property
    def buffer(self) -> Path:
        return self.folder / "buffer"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def open(self) -> None:
        """Makes the folders, removes what an interrupted write left, and goes back to this member's newest sound checkpoint.

        Raises StateError where the directory cannot be written, or holds checkpoints of which none is sound.
        """
        try:
            for folder in (self.buffer, self.checkpoints):
                make_private(folder)
            for leftover in self.checkpoints.glob(f"{_PARTIAL}*-{self.member}"):
                remove_whatever(leftover)
            self._go_back_to_sound()
        except OSError as error:
            raise StateError.unwritable(self.folder, error) from error
        self.sequence = max((manifest.sequence for _, manifest in self._manifests()), default=0)

    def _go_back_to_sound(self) -> None:
        """Sets this member's checkpoints aside that are newer than its newest sound one: partitions and regions go back together.

        Where each of them misses rows of the buffer, the newest with whole state files is sound enough, and goes on without those rows.
        """
        reclaim(self.buffer, self._named())
        own = self._own()
        unreadable = [path for path in self.checkpoints.glob(f"*-{self.member}") if path.name[0] != "." and path not in dict(own)]
        flaws = [(path, *self._flaws(path, manifest)) for path, manifest in own]
        sound = next((at for at, (_, damaged, missing) in enumerate(flaws) if not damaged and not missing), None)
        if sound is None:
            sound = next((at for at, (_, damaged, _) in enumerate(flaws) if not damaged), None)
            if sound is None and (flaws or unreadable):
                problem = flaws[0][1] if flaws else f"{unreadable[0].name} has no readable manifest"
                raise StateError(
                    f"{self.checkpoints}: every checkpoint is damaged ({problem}); restore the state directory from a copy, or start with "
                    "another one"
                )
            for segment, problem in flaws[sound][2].items() if sound is not None else ():
                self.tell("segment_unsound", segment=segment, problem=problem, remedy="its rows are missing from trainings from now on")
                with suppress(FileNotFoundError):
                    (self.buffer / segment).rename(self.buffer / f"{_UNSOUND}{segment}")
                self._lost.add(segment)
        for path, damaged, missing in flaws[:sound]:
            self._set_aside(path, damaged or next(iter(missing.values())))
        for path in unreadable:
            self._set_aside(path, "its manifest is missing or damaged")

    def _flaws(self, path: Path, manifest: Manifest) -> tuple[str, dict[str, str]]:
        """What is wrong with the state files, and which segments are missing or damaged; both empty for a sound checkpoint."""
        missing: dict[str, str] = {}
        try:
            for file, digest in (("process.npz", manifest.process_sha256), *((part.file, part.sha256) for part in manifest.parts)):
                check_state(path / file, digest)
        except (OSError, ValueError) as error:
            return str(error), missing
        for segment in (segment for part in manifest.parts for segment in part.segments):
            try:
                describe(self.buffer / segment)
            except SegmentError as error:
                missing[segment] = str(error)
        return "", missing

    def _set_aside(self, path: Path, problem: str) -> None:
        self.tell("checkpoint_unsound", checkpoint=path.name, problem=problem, remedy="an older one is used; it stays for you to look at")
        aside = path.with_name(f"{_UNSOUND}{path.name}")
        remove_if_possible(aside)
        path.rename(aside)

    def restore_process(self) -> dict[str, Any] | None:
        """What this member's newest sound checkpoint says of its region stage and training; None where it has none."""
        for path, manifest in self._own():
            return migrated_process(manifest.schema_version, read_state(path / "process.npz", manifest.process_sha256)[0])
        return None

    def restore(self, partition: Partition) -> Restored | None:
        """The partition from the newest sound checkpoint of any member; None: it starts from nothing.

        Deletes the partition's segments that no checkpoint names: their records will come again. Raises StateError where there are
        checkpoints of it and none is sound.
        """
        problem = None
        reclaim(self.buffer, self._named())
        for path, manifest in self._manifests():
            if (part := manifest.part(partition)) is None:
                continue
            try:
                document, arrays = read_state(path / part.file, part.sha256)
                named = {name: describe(self.buffer / name) for name in part.segments if name not in self._lost}
            except (OSError, ValueError, SegmentError, msgspec.MsgspecError) as error:
                problem = f"{path.name}: {error}"
                self.tell("checkpoint_unsound", checkpoint=path.name, problem=str(error), remedy="an older one is used")
                continue
            self.segments[partition] = named
            self._drop_unnamed([partition])
            document, arrays = migrated(manifest.schema_version, document, arrays)
            return Restored(manifest.member, part.offset, document, arrays)
        if problem is not None:
            raise StateError(
                f"{self.checkpoints}: no checkpoint of {partition} is sound ({problem}); restore the state directory from a copy, or start "
                "with another one"
            )
        self.segments[partition] = {}
        self._drop_unnamed([partition])
        return None

    def drop(self, partition: Partition) -> None:
        """Another member owns the partition: its segments are no longer this one's to name."""
        self.segments.pop(partition, None)

    def write(self, snapshot: Snapshot, flush_events: Callable[[], None]) -> Written:
        """Makes the snapshot true. Raises OSError, TimeoutError or FencedError; nothing has changed then but files that nobody names."""
        began_s = time.monotonic()
        flush_events()  # 1. Alerts and dead letters of these records are out before the records count as done.
        segments = {part.partition: dict(self.segments[part.partition]) for part in snapshot.parts}
        for part in snapshot.parts:  # 2. The open rows become sealed segments.
            if part.open_rows is not None:
                sealed = part.writer.seal(part.open_rows)
                segments[part.partition][str(sealed.name)] = sealed
        self._compact(segments)
        self._expire(segments, snapshot.now_s)
        sequence = max((manifest.sequence for _, manifest in self._manifests()), default=0)
        sequence = max(sequence, self.sequence) + 1  # of checkpoints that were damaged in the meantime too
        self._refuse_if_fenced(snapshot)
        self._publish(sequence, snapshot, segments)  # 3. The checkpoint that names them, true by one rename.
        self._retract_if_robbed(sequence, segments)
        self.sequence, self.segments = sequence, self.segments | segments
        try:
            self._clean()  # 4. What no kept checkpoint names.
        except OSError as error:  # the checkpoint is true all the same
            self.tell("cleaning_failed", problem=str(error))
        kept = [segment for part in self.segments.values() for segment in part.values()]
        return Written(
            sequence,
            {part.partition: part.offset for part in snapshot.parts if part.offset is not None},
            tuple(self.buffer / str(segment.name) for segment in kept),
            sum(segment.rows for segment in kept),
            self._taken_by_all(),
            time.monotonic() - began_s,
        )

    @property
    def journal_taken(self) -> int:
        """The last entry of this member's journal that any of its checkpoints has taken."""
        return max((part.journal for _, manifest in self._own() for part in manifest.parts), default=0)

    def _taken_by_all(self) -> dict[str, int]:
        """See Written.journal."""
        taken: dict[str, int] = {}
        for _, manifest in self._own():
            for part in manifest.parts:
                name = str(Partition(part.topic, part.number))
                taken[name] = min(part.journal, taken.get(name, part.journal))
        return taken

    def _compact(self, segments: dict[Partition, dict[str, Segment]]) -> None:
        for named in segments.values():
            for group in plan_compaction(named.values()):
                if group in self._not_merged:
                    continue
                try:
                    merged = compact(self.buffer, group)
                except SegmentError as error:  # a training that reads it will fail and say so; the stream goes on
                    self._not_merged.add(group)
                    self.tell("segment_unsound", segment=error.path.name, problem=str(error), remedy="restore it from a copy, or delete it")
                    continue
                for name in group:
                    del named[str(name)]
                named[str(merged.name)] = merged

    def _expire(self, segments: dict[Partition, dict[str, Segment]], now_s: float) -> None:
        everything = [segment for named in segments.values() for segment in named.values()]
        for name in plan_retention(everything, rows_max=self.rows_max, age_max_s=self.age_max_s, now_s=now_s):
            for named in segments.values():
                named.pop(str(name), None)

    def _refuse_if_fenced(self, snapshot: Snapshot) -> None:
        """A member that has lost a partition must not overwrite its successor's state. Raises FencedError."""
        ours = {(part.partition.topic, part.partition.number) for part in snapshot.parts}
        for path, manifest in self._manifests():
            if manifest.member == self.member or manifest.generation <= snapshot.generation:
                continue
            if taken := sorted(f"{part.topic}-{part.number}" for part in manifest.parts if (part.topic, part.number) in ours):
                raise FencedError(
                    f"{path.name} of generation {manifest.generation} already owns {', '.join(taken)}: this member has lost it"
                )

    def _retract_if_robbed(self, sequence: int, segments: dict[Partition, dict[str, Segment]]) -> None:
        """A member that takes a partition over deletes what no checkpoint names, so also what this one, which does not know yet, has just
        sealed. Named afterwards, it would be missing from this checkpoint and all that follow. Raises FencedError, and nothing is true."""
        fresh = {name for partition, named in segments.items() for name in named.keys() - self.segments[partition].keys()}
        reclaim(self.buffer, fresh)
        if missing := sorted(name for name in fresh if not (self.buffer / name).exists()):
            path = self.checkpoints / f"{sequence:012d}-{self.member}"
            retracted = path.with_name(f"{_PARTIAL}{path.name}")
            path.rename(retracted)
            sync_folder(self.checkpoints)
            remove_if_possible(retracted)
            raise FencedError(f"{missing[0]} was deleted by another member, which is taking its partition over")

    def _publish(self, sequence: int, snapshot: Snapshot, segments: dict[Partition, dict[str, Segment]]) -> None:
        name = f"{sequence:012d}-{self.member}"
        partial = self.checkpoints / f"{_PARTIAL}{name}"
        partial.mkdir(mode=0o700)
        try:
            parts: list[PartEntry] = []
            for part in snapshot.parts:
                file = f"part-{len(parts)}.npz"
                digest = write_state(partial / file, part.document, part.arrays)
                where = part.partition
                parts.append(PartEntry(where.topic, where.number, part.offset, file, digest, tuple(sorted(segments[where])), part.journal))
            digest = write_state(partial / "process.npz", snapshot.process, {})
            manifest = Manifest(SCHEMA_VERSION, sequence, self.member, snapshot.generation, snapshot.created_at_s, digest, tuple(parts))
            manifest = manifest.sealed()
            atomic_write(partial / _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
            sync_folder(partial)
            partial.rename(self.checkpoints / name)
        except BaseException:
            remove_if_possible(partial)
            raise
        sync_folder(self.checkpoints)

    def _clean(self) -> None:
        """Old checkpoints of this member go, but for those that are the newest to name some partition; then segments that none names."""
        newest: set[tuple[str, int]] = set()
        mine = 0
        for path, manifest in self._manifests():
            names = {(part.topic, part.number) for part in manifest.parts}
            mine += manifest.member == self.member
            if manifest.member == self.member and mine > KEPT and names <= newest:
                gone = path.with_name(f"{_PARTIAL}{path.name}")
                path.rename(gone)  # at once, for other members: one that has lost its manifest alone would count as damaged
                remove_whatever(gone)
            newest |= names
        self._drop_unnamed(self.segments)

    def _drop_unnamed(self, partitions: Collection[Partition]) -> None:
        """Segments stay as long as any checkpoint names them: an older one must be whole, should the newest be damaged.

        One that cannot be deleted is told and stays: nobody reads what nobody names, and the next cleaning comes by.
        """
        try:
            drop_unnamed(self.buffer, partitions, self._named)
        except OSError as error:
            self.tell("cleaning_failed", problem=str(error))

    def _own(self) -> list[tuple[Path, Manifest]]:
        """This member's, newest first."""
        return [(path, manifest) for path, manifest in self._manifests() if manifest.member == self.member]

    def _named(self) -> set[str]:
        """The segments that any checkpoint names."""
        return {name for _, manifest in self._manifests() for part in manifest.parts for name in part.segments}

    def _manifests(self) -> Iterable[tuple[Path, Manifest]]:
        """Every readable manifest, newest first. Raises StateError for one of a newer release."""
        found = []
        for path in self.checkpoints.iterdir():
            if path.name.startswith(".") or not path.is_dir():
                continue
            try:
                content = read_plain_bytes(path / _MANIFEST, MOST_MANIFEST_BYTES)
                version = msgspec.json.decode(content).get("schema_version")
                if isinstance(version, int) and version > SCHEMA_VERSION:
                    raise StateError(
                        f"{path}: was written by a newer release (state version {version}, this one reads {SCHEMA_VERSION}); "
                        "install that release, or start with another state directory"
                    )
                manifest = msgspec.json.decode(content, type=Manifest)
                if not manifest.sound:
                    raise ValueError(f"{_MANIFEST} is not what was written (its checksum differs)")
                found.append((path, manifest))
            except (OSError, ValueError, RecursionError, AttributeError) as error:  # msgspec's are ValueErrors, and so is "no UTF-8"
                theirs = not path.name.endswith(f"-{self.member}") and path.exists()  # one's own is set aside; another deletes its own
                if theirs and path.name not in self._told:
                    self._told.add(path.name)
                    self.tell("checkpoint_unsound", checkpoint=path.name, problem=str(error), remedy="an older one is used")
        return sorted(found, key=lambda item: item[1].sequence, reverse=True)
