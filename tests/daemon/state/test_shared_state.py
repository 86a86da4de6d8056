"""Members on one state directory, in each other's way: whoever names a segment has it, whatever another one is deleting meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.errors import FencedError
from daemon.state.checkpoint import CheckpointStore
from daemon.state.snapshot import PartState, Snapshot
from features.telemetry import CATEGORIES, NUMERIC, Partition
from model.buffer.folder import GONE_PREFIX
from model.buffer.rows import BufferRows, BufferWriter, OpenSegment, read_segments

PARTITION = Partition("dwcp.telemetry", 0)
ROWS = 10


def member(folder: Path, name: str) -> CheckpointStore:
    store = CheckpointStore(folder, name, rows_max=10**9, age_max_s=1e12, emit=lambda event, **_: pytest.fail(event))
    store.open()
    return store


def open_rows(store: CheckpointStore, number: int) -> tuple[BufferWriter, OpenSegment]:
    """Ten rows, the number-th."""
    offsets = np.arange(ROWS * number, ROWS * (number + 1), dtype=np.int64)
    slots, codes = np.zeros(ROWS, np.int32), np.full((ROWS, len(CATEGORIES)), -1, np.int16)
    writer = BufferWriter(store.buffer, PARTITION)
    writer.append(BufferRows(offsets, offsets.astype(np.float64), np.ones((ROWS, len(NUMERIC)), np.float32), codes, slots))
    taken = writer.detach(["link"], [[] for _ in CATEGORIES])
    assert taken is not None
    return writer, taken


def write(store: CheckpointStore, number: int) -> None:
    """The checkpoint of a member that has taken ten records more, the number-th time."""
    part = PartState(PARTITION, ROWS * (number + 1), {}, {}, *open_rows(store, number))
    store.write(Snapshot((part,), {}, generation=1, created_at_s=1.0, now_s=0.0), lambda: None)


def once(owner: Any, name: str, meanwhile: Callable[[], None], *, after: bool) -> None:
    """Something happens before or after the next call of a method."""
    original = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        setattr(owner, name, original)
        if not after:
            meanwhile()
        result = original(*arguments)
        if after:
            meanwhile()
        return result

    setattr(owner, name, call)


def rows(folder: Path, name: str) -> int:
    """Return the state that a further member finds when it adopts the partition: its rows, which are those up to its offset."""
    store = member(folder, name)
    restored = store.restore(PARTITION)
    assert restored is not None
    assert restored.offset is not None
    table = read_segments([store.buffer / segment for segment in store.segments[PARTITION]])
    np.testing.assert_array_equal(table.time_s, np.arange(restored.offset))
    return len(table.time_s)


def test_a_segment_that_a_successor_has_deleted_is_never_named(tmp_path: Path) -> None:
    """A member that does not know yet that it has lost its partition seals rows, and its successor deletes them, for no checkpoint names
    them. Its checkpoint is refused: it would name what is gone, and so would all that follow. The one before stays whole."""
    first = member(tmp_path, "first")
    assert first.restore(PARTITION) is None
    write(first, 0)
    once(first, "_publish", lambda: rows(tmp_path, "second"), after=False)  # type: ignore[arg-type, return-value]
    with pytest.raises(FencedError, match="was deleted by another member"):
        write(first, 1)
    assert rows(tmp_path, "third") == ROWS
    write(first, 1)  # nobody has fenced it off: it goes on
    assert rows(tmp_path, "fourth") == 2 * ROWS


def test_a_segment_that_is_named_while_another_member_cleans_stays(tmp_path: Path) -> None:
    """The other one has looked who names what, stands still for a while, and goes on: what has been named meanwhile comes back."""
    first = member(tmp_path, "first")
    first.restore(PARTITION)
    write(first, 0)
    second = member(tmp_path, "second")
    writer, taken = open_rows(first, 1)
    writer.seal(taken)  # the second one sees it, and that nobody names it
    manifests, name = second._manifests, "named_segments"
    once(manifests, name, lambda: once(manifests, name, lambda: write(first, 1), after=True), after=True)  # the first call is to reclaim
    second.restore(PARTITION)
    assert rows(tmp_path, "third") == 2 * ROWS


def test_a_member_that_dies_while_it_deletes_takes_nothing_along(tmp_path: Path) -> None:
    """A segment that it has renamed in order to delete it, and that another member has named since, is back under its old name."""
    first = member(tmp_path, "first")
    first.restore(PARTITION)
    write(first, 0)
    write(first, 1)
    for path in (tmp_path / "buffer").iterdir():
        path.rename(path.with_name(f"{GONE_PREFIX}{path.name}"))
    assert rows(tmp_path, "second") == 2 * ROWS
    assert rows(tmp_path, "first") == 2 * ROWS


def test_what_nobody_names_goes(tmp_path: Path) -> None:
    """Rows that were sealed for a checkpoint that did not become true, and what a deletion that was interrupted has left of others."""
    first = member(tmp_path, "first")
    first.restore(PARTITION)
    write(first, 0)
    once(first, "_publish", lambda: (_ for _ in ()).throw(OSError("disk full")), after=False)
    with pytest.raises(OSError, match="disk full"):
        write(first, 1)
    (leftover,) = [path for path in (tmp_path / "buffer").iterdir() if "19.parquet" in path.name]
    leftover.rename(leftover.with_name(f"{GONE_PREFIX}{leftover.name}"))
    assert rows(tmp_path, "second") == ROWS
    assert len(list((tmp_path / "buffer").iterdir())) == 1
