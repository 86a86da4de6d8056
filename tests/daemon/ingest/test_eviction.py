"""More links than links.max: those not seen for longest go, in everything that numbers links, and the memory is bounded."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.state.checkpoint import CheckpointStore
from drift.link.monitored import MonitoredList, MonitoringPolicy
from drift.link.rows import MonitoredRows
from drift.link.stage import LinkDrift
from features.store import FeatureStore
from features.telemetry import CATEGORIES, NUMERIC, Partition, TelemetryBatch
from model.buffer.rows import BufferRows, BufferWriter, read_segments
from testkit import killing, remains, rig
from testkit.versions import publish


def batch_of(records: list[tuple[str, float]], first_offset: int) -> TelemetryBatch:
    """Records of (node, time)."""
    return TelemetryBatch(
        offsets=np.arange(first_offset, first_offset + len(records)),
        time_s=np.array([time_s for _, time_s in records], np.float64),
        numeric=np.ones((len(records), len(NUMERIC)), np.float32),
        node_id=[node for node, _ in records],
        peer_id=["p"] * len(records),
        categories=tuple([None] * len(records) for _ in CATEGORIES),
    )


def taken(store: FeatureStore, batch: TelemetryBatch) -> list[int]:
    """Ingest a batch as the pipeline does, and return the offsets of the rows that were accepted."""
    accepted: list[int] = []
    while len(batch):
        slots = store.resolve(batch)
        part = batch.part(0, len(slots))
        rows = store.update(part, slots, np.zeros(len(store), np.bool_), None)
        accepted += part.offsets[rows.accepted].tolist()
        if len(slots) < len(batch):
            store.evict()
        batch = batch.part(len(slots), len(batch))
    return accepted


class Reference:
    """The reference: a table of few links, record by record."""

    def __init__(self, links_max: int) -> None:
        self.links_max = links_max
        self.last_time_s: dict[str, float] = {}
        self.last_offset: dict[str, int] = {}
        self.forgotten_s = -np.inf

    def takes(self, offset: int, node: str, time_s: float) -> bool:
        if node not in self.last_offset and len(self.last_offset) == self.links_max:
            for gone in sorted(self.last_offset, key=self.last_offset.__getitem__)[: max(1, self.links_max // 8)]:
                self.forgotten_s = max(self.forgotten_s, self.last_time_s.pop(gone))
                del self.last_offset[gone]
        self.last_offset[node] = offset
        if time_s <= self.last_time_s.setdefault(node, self.forgotten_s):
            return False
        self.last_time_s[node] = time_s
        return True


@given(
    links_max=st.integers(1, 20),
    records=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 30)), max_size=150),
    cuts=st.sets(st.integers(0, 150), max_size=5),
)
def test_the_links_not_seen_for_longest_go(links_max: int, records: list[tuple[int, int]], cuts: set[int]) -> None:
    """A reference that reads one record at a time agrees, wherever the batches end; and a forgotten record is never accepted twice."""
    named = [(f"n{node}", 1e9 + time_s) for node, time_s in records]
    store, reference = FeatureStore(("node_id",), links_max=links_max), Reference(links_max)
    accepted: list[int] = []
    borders = [0, *sorted(cut for cut in cuts if cut < len(named)), len(named)]
    for begin, end in pairwise(borders):
        accepted += taken(store, batch_of(named[begin:end], begin))
    assert accepted == [offset for offset, (node, time_s) in enumerate(named) if reference.takes(offset, node, time_s)]
    assert sorted(store.links) == sorted(reference.last_offset)
    assert store.evicted_through_s == reference.forgotten_s
    rows = [(named[offset][0], named[offset][1]) for offset in accepted]
    assert len(set(rows)) == len(rows)


def test_memory_stays_within_the_limit() -> None:
    """50,000 links through a table of 1,000: the rings are those of 1,000, and so is the link table."""
    store = FeatureStore(("node_id",), links_max=1000)
    for begin in range(0, 50_000, 2_000):
        assert len(taken(store, batch_of([(f"n{at}", 1e9 + at) for at in range(begin, begin + 2_000)], begin))) == 2_000
        assert len(store) <= 1000
    assert store.nbytes <= 1000 * 3450
    assert "n49999" in store.links


def test_a_limit_that_was_lowered_holds_from_the_next_new_link_on() -> None:
    """State of 40 links under a limit of 10: they stay until there is a new one, and then there are at most 10."""
    wide = FeatureStore(("node_id",))
    taken(wide, batch_of([(f"n{at}", 1e9 + at) for at in range(40)], 0))
    narrow = FeatureStore(("node_id",), links_max=10)
    narrow.restore(wide.link_keys(), wide.interner.values, wide.state(), wide.evicted_through_s)
    taken(narrow, batch_of([("n7", 1e9 + 50)], 40))
    assert len(narrow) == 40
    taken(narrow, batch_of([("n99", 1e9 + 50)], 41))
    assert narrow.links == ["n7", *(f"n{at}" for at in range(32, 40)), "n99"]


def test_watched_links_keep_their_detectors() -> None:
    """Three of six links stay, two of which are not monitored: each keeps its index, region and detectors."""
    watch = MonitoredList(MonitoringPolicy(links_per_region=2))
    watch.follow([f"n{at}" for at in range(6)], ["a", "a", "a", "b", "c", "a"])
    drift = LinkDrift()
    for index in range(len(watch)):
        numeric = np.full((1, len(NUMERIC)), index + 1.0, np.float32)
        none, zero = np.ones((1, len(CATEGORIES)), np.float32), np.zeros(1)
        rows = MonitoredRows(
            np.full(1, index, np.int32), numeric, numeric[:, :4], none, zero, zero, np.ones(1, np.int64), lambda _row: ("", "", "")
        )  # fmt: skip
        drift.update(rows, np.ones(4, np.float32))
    states = drift.arrays()["drift_kept"]
    kept = watch.keep(np.array([1, 2, 4], np.int32))
    drift.keep(kept.tolist())
    assert kept.tolist() == [1, 3]
    assert watch.index == [0, -1, 1]
    assert watch.mask.tolist() == [True, False, True]
    assert watch.regions == ["a", "c"]
    np.testing.assert_array_equal(drift.arrays()["drift_kept"], states[[1, 3]])
    assert len(drift) == len(drift.document()["adwin"]) == 2
    watch.follow(["n1", "n2", "n4", "n6", "n7"], ["a", "a"])
    assert watch.index == [0, -1, 1, 2, -1], "the place of a forgotten link is free for another"


def test_open_rows_keep_their_links(tmp_path: Path) -> None:
    """Rows from before and after an eviction, and those that a failed sealing has given back, are read back under their own names."""
    values = [["r"], [], [], [], [], []]

    def rows(first: int, slots: list[int]) -> BufferRows:
        count = len(slots)
        offsets = np.arange(first, first + count, dtype=np.int64)
        codes = np.zeros((count, len(CATEGORIES)), np.int16) - 1
        return BufferRows(offsets, 1e9 + offsets, np.ones((count, len(NUMERIC)), np.float32), codes, np.array(slots, np.int32))

    writer = BufferWriter(tmp_path, Partition("t", 0))
    writer.append(rows(0, [0, 1, 2]))
    refused = writer.detach(["a", "b", "c"], values)
    assert refused is not None
    writer.append(rows(3, [2, 0]))
    writer.freeze(["a", "b", "c"], values)
    writer.append(rows(5, [0, 1]))  # of c and d from here on
    writer.put_back(refused)
    assert writer.open_rows == 7
    again = writer.detach(["c", "d"], values)
    assert again is not None
    table = read_segments([tmp_path / str(writer.seal(again).name)])
    links = {int(time_s - 1e9): table.links[link] for time_s, link in zip(table.time_s, table.link, strict=True)}
    assert links == {0: "a", 1: "b", 2: "c", 3: "c", 4: "a", 5: "c", 6: "d"}
    assert (writer.open_rows, writer.detach(["c", "d"], values)) == (0, None)


FEW = {"links": {"max": 2}}


@pytest.fixture(scope="module")
def few_links(uninterrupted: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ARG001 - warms up
    """Return what a run with room for two links leaves of partitions of three and four links."""
    home = tmp_path_factory.mktemp("few")
    publish(home, rig.FIRST)
    left = rig.outcome_after(home, sections=FEW)
    assert remains.reported(home, "links_evicted")
    return left


@pytest.mark.parametrize("seed", range(3))
def test_kills_and_batches_change_nothing(home: Path, few_links: Any, seed: int) -> None:
    """Evictions follow from the stream: killed between checkpoints and read in other batches, state, alerts and buffer are the same."""
    for checkpoint in (3, 9):
        prepare = killing.kill_around(CheckpointStore, "write", checkpoint + seed, after=bool(seed % 2))
        assert rig.run(home, prepare=prepare, sections=FEW, seed=seed, batch_max=60) == killing.KILLED
    remains.same(rig.outcome_after(home, sections=FEW, seed=seed, batch_max=17 + seed), few_links)
