"""The checkpoint: offsets, link tables, rings, detectors, pending forecasts and names of the sealed segments, made valid by one rename.

    checkpoints/000000000042-main/      number, and the member of the group that wrote it
        part-dwcp.telemetry-0.npz       one partition: it can move to another member
        process.npz                     the state of the region stage and of training
        MANIFEST.json                   names and hashes of the files, offsets and segments

A record changes the state and the buffer exactly once, at whatever moment a process dies: the next start reads the newest sound checkpoint,
deletes the segments that it does not name, and reads the stream again from its offsets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon.errors import FencedError, StateError
from daemon.state.manifests import MANIFEST, PROCESS_FILE, Manifests, flaws
from daemon.state.migration import migrated, migrated_process
from daemon.state.private_folder import make_private
from daemon.state.snapshot import SCHEMA_VERSION, Manifest, PartEntry, Restored, Snapshot, Written
from daemon.state.state_file import read_state, write_state
from features.telemetry import Partition
from model.buffer.folder import drop_unnamed, reclaim
from model.buffer.retention import compact, plan_compaction, plan_retention
from model.buffer.segments import Segment, SegmentError, SegmentName, describe
from model.registry.durable import atomic_write, sync_folder
from model.registry.removal import remove_if_possible, remove_whatever

KEPT: Final = 3
"""Number of checkpoints of one member that stay: the newest, and two to go back to if it is damaged."""
_PARTIAL: Final = ".writing-"
_UNSOUND: Final = ".unsound-"
"""Prefix of the name of a damaged file or folder: it is not used any more, and a person can still inspect it."""


class CheckpointStore:
    """The state directory of one member. `write` runs on another thread than the loop, one at a time."""

    def __init__(
        self, folder: Path, member: str, rows_max: int, age_max_s: float, emit: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Prepare the store; no file is touched yet.

        Args:
            folder: the state directory.
            rows_max, age_max_s: retention of the training buffer, over all partitions.
            emit: logs one operational event, by name and fields (Observer.emit).
            clock: monotonic seconds.
        """
        self.folder, self.member, self.rows_max, self.age_max_s = folder, member, rows_max, age_max_s
        self.buffer, self.checkpoints = folder / "buffer", folder / "checkpoints"
        self.segments: dict[Partition, dict[str, Segment]] = {}
        self.sequence = 0
        """Number of the last checkpoint."""
        self._emit, self._clock = emit, clock
        self._manifests = Manifests(self.checkpoints, member, emit)
        self._lost: set[str] = set()
        """Segments that a checkpoint names and that cannot be read."""
        self._not_merged: set[tuple[SegmentName, ...]] = set()

    def open(self) -> None:
        """Make the folders, remove the remains of an interrupted write, and go back to this member's newest sound checkpoint.

        Raises:
            StateError: the directory cannot be written, or no checkpoint in it is sound.
        """
        try:
            for folder in (self.buffer, self.checkpoints):
                make_private(folder)
            for leftover in self.checkpoints.glob(f"{_PARTIAL}*-{self.member}"):
                remove_whatever(leftover)
            self._go_back_to_sound()
        except OSError as error:
            raise StateError.unwritable(self.folder, error) from error
        self.sequence = self._manifests.last_sequence()

    def _go_back_to_sound(self) -> None:
        """Set aside this member's checkpoints that are newer than its newest sound one: partitions and regions go back together.

        If segments are missing in each of them, the newest one with whole state files is used, without the rows of those segments.
        """
        reclaim(self.buffer, self._manifests.named_segments())
        readable = self._manifests.own()
        unreadable = [path for path in self.checkpoints.glob(f"*-{self.member}") if path.name[0] != "." and path not in dict(readable)]
        checked = [(path, *flaws(path, manifest, self.buffer)) for path, manifest in readable]
        sound = next((index for index, (_, damaged, missing) in enumerate(checked) if not damaged and not missing), None)
        if sound is None:
            sound = next((index for index, (_, damaged, _) in enumerate(checked) if not damaged), None)
            if sound is None and (checked or unreadable):
                problem = checked[0][1] if checked else f"{unreadable[0].name} has no readable manifest"
                raise StateError(
                    f"{self.checkpoints}: every checkpoint is damaged ({problem}); restore the state directory from a copy, or start with "
                    "another one"
                )
            for segment, problem in checked[sound][2].items() if sound is not None else ():
                self._emit("segment_unsound", segment=segment, problem=problem, remedy="its rows are missing from trainings from now on")
                with suppress(FileNotFoundError):
                    (self.buffer / segment).rename(self.buffer / f"{_UNSOUND}{segment}")
                self._lost.add(segment)
        for path, damaged, missing in checked[:sound]:
            self._set_aside(path, damaged or next(iter(missing.values())))
        for path in unreadable:
            self._set_aside(path, "its manifest is missing or damaged")

    def _set_aside(self, path: Path, problem: str) -> None:
        self._emit("checkpoint_unsound", checkpoint=path.name, problem=problem, remedy="an older one is used; it stays for you to look at")
        aside = path.with_name(f"{_UNSOUND}{path.name}")
        remove_if_possible(aside)
        path.rename(aside)

    def restore_process(self) -> dict[str, Any] | None:
        """Return the state of region stage and training in this member's newest sound checkpoint; None if it has none."""
        for path, manifest in self._manifests.own():
            return migrated_process(manifest.schema_version, read_state(path / PROCESS_FILE, manifest.process_sha256)[0])
        return None

    def restore(self, partition: Partition) -> Restored | None:
        """Return the partition from the newest sound checkpoint of any member; None: it starts from nothing.

        The partition's segments that no checkpoint names are deleted: their records will come again.

        Raises:
            StateError: there are checkpoints of the partition, and none is sound.
        """
        problem = None
        reclaim(self.buffer, self._manifests.named_segments())
        for path, manifest in self._manifests.all():
            if (part := manifest.part(partition)) is None:
                continue
            try:
                document, arrays = read_state(path / part.file, part.sha256)
                named = {name: describe(self.buffer / name) for name in part.segments if name not in self._lost}
            except (OSError, ValueError, SegmentError, msgspec.MsgspecError) as error:
                problem = f"{path.name}: {error}"
                self._emit("checkpoint_unsound", checkpoint=path.name, problem=str(error), remedy="an older one is used")
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
        """Forget a partition that another member owns: this member must not name its segments any more."""
        self.segments.pop(partition, None)

    def write(self, snapshot: Snapshot, flush_events: Callable[[], None]) -> Written:
        """Write a checkpoint. If it fails, it leaves only files that no manifest names.

        Args:
            flush_events: returns once all events are durable.

        Raises:
            OSError: a disk refuses; TimeoutError: events are not acknowledged.
            FencedError: another member owns a partition of the snapshot.
        """
        began_s = self._clock()
        flush_events()  # 1. Alerts and dead letters of these records are out before the records count as done.
        segments = {part.partition: dict(self.segments[part.partition]) for part in snapshot.parts}
        for part in snapshot.parts:  # 2. The open rows become sealed segments.
            if part.open_rows is not None:
                sealed = part.writer.seal(part.open_rows)
                segments[part.partition][str(sealed.name)] = sealed
        self._compact(segments)
        self._expire(segments, snapshot.now_s)
        sequence = self._manifests.last_sequence()
        sequence = max(sequence, self.sequence) + 1  # of checkpoints that were damaged in the meantime too
        self._refuse_if_fenced(snapshot)
        self._publish(sequence, snapshot, segments)  # 3. The checkpoint that names them, true by one rename.
        self._retract_if_overtaken(sequence, segments)
        self.sequence, self.segments = sequence, self.segments | segments
        try:
            self._clean()  # 4. What no kept checkpoint names.
        except OSError as error:  # the checkpoint is true all the same
            self._emit("cleaning_failed", problem=str(error))
        named = [segment for part in self.segments.values() for segment in part.values()]
        return Written(
            sequence,
            {part.partition: part.offset for part in snapshot.parts if part.offset is not None},
            tuple(self.buffer / str(segment.name) for segment in named),
            sum(segment.rows for segment in named),
            {name: min(numbers) for name, numbers in self._manifests.applied().items()},
            self._clock() - began_s,
        )

    @property
    def journal_applied(self) -> int:
        """The last entry of this member's journal that any of its checkpoints has applied; 0 without one."""
        return max((number for numbers in self._manifests.applied().values() for number in numbers), default=0)

    def _compact(self, segments: dict[Partition, dict[str, Segment]]) -> None:
        for named in segments.values():
            for group in plan_compaction(named.values()):
                if group in self._not_merged:
                    continue
                try:
                    merged = compact(self.buffer, group)
                except SegmentError as error:  # a training that reads it will fail with a message; the stream goes on
                    self._not_merged.add(group)
                    self._emit(
                        "segment_unsound", segment=error.path.name, problem=str(error), remedy="restore it from a copy, or delete it"
                    )
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
        """Raise FencedError if this member has lost a partition: it must not overwrite its successor's state."""
        ours = {(part.partition.topic, part.partition.number) for part in snapshot.parts}
        for path, manifest in self._manifests.all():
            if manifest.member == self.member or manifest.generation <= snapshot.generation:
                continue
            if lost := sorted(f"{part.topic}-{part.number}" for part in manifest.parts if (part.topic, part.number) in ours):
                raise FencedError(
                    f"{path.name} of generation {manifest.generation} already owns {', '.join(lost)}: this member has lost it"
                )

    def _retract_if_overtaken(self, sequence: int, segments: dict[Partition, dict[str, Segment]]) -> None:
        """Undo a checkpoint whose new segments are gone, and raise FencedError.

        A member that adopts a partition deletes segments that no checkpoint names. This member may not know yet that it has lost the
        partition, and may just have sealed such a segment. It would be missing from this checkpoint and all later ones.
        """
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
            digest = write_state(partial / PROCESS_FILE, snapshot.process, {})
            manifest = Manifest(SCHEMA_VERSION, sequence, self.member, snapshot.generation, snapshot.created_at_s, digest, tuple(parts))
            manifest = manifest.sealed()
            atomic_write(partial / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
            sync_folder(partial)
            partial.rename(self.checkpoints / name)
        except BaseException:
            remove_if_possible(partial)
            raise
        sync_folder(self.checkpoints)

    def _clean(self) -> None:
        """Delete old checkpoints of this member, except the newest that names some partition; then segments that no checkpoint names."""
        newest: set[tuple[str, int]] = set()
        mine = 0
        for path, manifest in self._manifests.all():
            names = {(part.topic, part.number) for part in manifest.parts}
            mine += manifest.member == self.member
            if manifest.member == self.member and mine > KEPT and names <= newest:
                gone = path.with_name(f"{_PARTIAL}{path.name}")
                path.rename(gone)  # at once: to other members a checkpoint without its manifest would be a damaged one
                remove_whatever(gone)
            newest |= names
        self._drop_unnamed(self.segments)

    def _drop_unnamed(self, partitions: Collection[Partition]) -> None:
        """Delete segments that no checkpoint names. An older checkpoint must stay whole in case the newest is damaged.

        A segment that cannot be deleted is reported and stays: nobody reads it, and the next cleaning tries again.
        """
        try:
            drop_unnamed(self.buffer, partitions, self._manifests.named_segments)
        except OSError as error:
            self._emit("cleaning_failed", problem=str(error))
