"""Ever new names fill nothing for good: they go as links do, by the stream alone, and who brings them is reported by name."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import wiring
from daemon.ingest.partition import Pipeline
from daemon.ingest.settings import PipelineSettings
from daemon.operator.observer import Observer
from daemon.state.checkpoint import CheckpointStore
from drift.link.monitored import MonitoringPolicy
from drift.link.sensitivity import Sensitivity
from features.offline import RawTable
from features.store import FeatureStore
from features.telemetry import CATEGORIES, NUMERIC, Partition, TelemetryBatch
from features.vocabulary import MAX_VALUES, OVERFLOW, Vocabulary
from model.buffer.rows import BufferRows, BufferWriter, read_segments
from model.training import dataset as training_set
from model.training.dataset import new_values
from streams.source import RawBatch
from testkit import killing, remains, rig
from testkit.versions import publish

REGION = CATEGORIES.index("region")


def batch_of(records: list[tuple[str, str | None]], first_offset: int) -> TelemetryBatch:
    """Records of (node, region), one a second."""
    count = len(records)
    categories: list[list[str | None]] = [[None] * count for _ in CATEGORIES]
    categories[REGION] = [region for _, region in records]
    offsets = np.arange(first_offset, first_offset + count)
    return TelemetryBatch(
        offsets, 1e9 + offsets, np.ones((count, len(NUMERIC)), np.float32), [node for node, _ in records], ["p"] * count, tuple(categories)
    )


def taken(store: FeatureStore, batch: TelemetryBatch) -> list[str | None]:
    """Ingest a batch as the pipeline does, and return the region under which each row was accepted."""
    regions: list[str | None] = []
    while len(batch):
        slots = store.resolve(batch)
        rows = store.update(batch.part(0, len(slots)), slots, np.zeros(len(store), np.bool_), None)
        values = store.interner.values[REGION]
        regions += [values[code] if code >= 0 else None for code in rows.codes[:, REGION].tolist()]
        batch = batch.part(len(slots), len(batch))
        if len(batch):
            assert store.full_category(batch) == REGION
            store.forget(REGION)
    return regions


class Reference:
    """The reference: a table of few names, record by record."""

    def __init__(self, names_max: int) -> None:
        self.names_max = names_max
        self.seen: dict[str, tuple[int, int]] = {}  # by name: how often it came, and where last

    def take(self, offset: int, name: str | None) -> None:
        if name is None:
            return
        if name not in self.seen:
            while len(self.seen) >= self.names_max - 1:
                known = {one: seen for one, seen in self.seen.items() if one != OVERFLOW}
                ranked = sorted(known, key=lambda one: (min(known[one][0], 2), known[one][1]))
                for gone in ranked[: max(1, self.names_max // 8) + max(0, len(self.seen) - self.names_max)]:
                    del self.seen[gone]
                self.seen.setdefault(OVERFLOW, (0, -1))
        self.seen[name] = self.seen.get(name, (0, 0))[0] + 1, offset


@given(
    names_max=st.integers(4, 20),
    names=st.lists(st.none() | st.integers(0, 30).map(str), max_size=150),
    cuts=st.sets(st.integers(0, 150), max_size=5),
)
def test_names_that_came_once_go_first(names_max: int, names: list[str | None], cuts: set[int]) -> None:
    """A reference that reads one record at a time agrees, wherever batches end and the store is restored; no row gets another name."""
    reference = Reference(names_max)
    for offset, name in enumerate(names):
        reference.take(offset, name)
    store, found = FeatureStore(("node_id",), names_max=names_max), []
    for begin, end in pairwise([0, *sorted(cut for cut in cuts if cut < len(names)), len(names)]):
        found += taken(store, batch_of([("n", name) for name in names[begin:end]], begin))
        restored = FeatureStore(("node_id",), names_max=names_max)
        restored.restore(store.link_keys(), store.interner.values, store.state(), store.evicted_through_s)
        store = restored
    assert found == names
    assert set(store.interner.values[REGION]) == set(reference.seen)


def test_rows_that_are_held_keep_their_names() -> None:
    """Rows in the ring whose name is gone count as other, and no row counts as a name that it never had."""
    store = FeatureStore(("node_id",), names_max=8)
    taken(store, batch_of([("good", "eu")] * 3 + [("bad", f"r{at}") for at in range(30)] + [("good", "eu")] * 3, 0))
    vocabulary = Vocabulary(tuple((("eu", "r1", "r2", "r3") if at == REGION else ()) for at in range(len(CATEGORIES))))
    encoding = store._encoding(vocabulary)
    rings = store.state()["codes"][:, :, REGION]
    good, bad = (encoding[REGION, rings[store.links.index(link)]] for link in ("good", "bad"))
    assert good[:6].tolist() == [1.0] * 6
    assert set(bad[:30].tolist()) == {0.0}, "none of its first three names is left"


def test_honest_names_that_come_after_a_flood_are_told_apart(tmp_path: Path) -> None:
    """60,000 names of one sender, then the regions of others, through a pipeline into the buffer: they are there by name, the table
    stays bounded, and the sender is reported."""
    reported: list[tuple[str, dict[str, Any]]] = []
    settings = PipelineSettings(("node_id", "peer_id"), 5.0, 100_000, MonitoringPolicy(), Sensitivity(), 60.0)
    partition = Partition("t", 0)
    observer = Observer(lambda event, fields: reported.append((event, fields)))
    writer = BufferWriter(tmp_path, partition)
    pipeline = Pipeline(partition, settings, writer, lambda _version: None, observer)
    flood = [("flooder", f"name-{at}") for at in range(60_000)]
    records = [*(("early", "north"),) * 10, *flood, *((f"late-{at}", f"region-{at}") for at in range(10))]
    lines = [
        b'{"timestamp": %d, "node_id": "%s", "peer_id": "p", "region": "%s", "rtt_ms": 1}'
        % (1_767_571_200 + at, node.encode(), region.encode())
        for at, (node, region) in enumerate(records)
    ]
    for begin in range(0, len(lines), 5000):
        pipeline.ingest(RawBatch(partition, range(begin, min(begin + 5000, len(lines))), lines[begin : begin + 5000]))
    known = pipeline._store.interner.values[REGION]
    assert len(known) < MAX_VALUES
    assert {"north", *(f"region-{at}" for at in range(10))} <= set(known)
    opened = writer.detach(pipeline._store.links, pipeline._store.interner.values)
    assert opened is not None
    table = read_segments([tmp_path / str(writer.seal(opened).name)])
    codes, values = table.codes[:, REGION].tolist(), table.values[REGION]
    named = {table.links[link]: values[code] for link, code in zip(table.link.tolist(), codes, strict=True)}
    assert {named[f"late-{at}|p"] for at in range(10)} == {f"region-{at}" for at in range(10)}
    (event, fields), *_ = reported
    assert event == "names_forgotten"
    assert (fields["category"], fields["partition"]) == ("region", "t-0")
    assert next(iter(fields["most_from"])) == "flooder"
    assert fields["most_from"]["flooder"] > 30_000
    found = observer.registry.get_sample_value("dwcp_names_forgotten_total", {"category": "region"})
    assert found is not None
    assert found > 20_000


def test_who_brings_ever_new_links_is_reported_by_name(tmp_path: Path) -> None:
    """One node with a hundred peers in a table of forty links, beside ten nodes of one link each."""
    reported: list[tuple[str, dict[str, Any]]] = []
    partition = Partition("t", 0)
    settings = PipelineSettings(("node_id", "peer_id"), 5.0, 40, MonitoringPolicy(), Sensitivity(), 60.0)
    observer = Observer(lambda event, fields: reported.append((event, fields)))
    pipeline = Pipeline(partition, settings, BufferWriter(tmp_path, partition), lambda _version: None, observer)
    links = [(f"n{at}", "p") for at in range(10)] + [("flooder", f"p{at}") for at in range(100)]
    lines = [
        b'{"timestamp": %d, "node_id": "%s", "peer_id": "%s", "rtt_ms": 1}' % (1_767_571_200 + at, node.encode(), peer.encode())
        for at, (node, peer) in enumerate([*links[:20], *links[:10], *links[20:]])
    ]
    pipeline.ingest(RawBatch(partition, range(len(lines)), lines))
    assert [event for event, _ in reported] == ["links_evicted"], "once a minute, however many go"
    assert reported[0][1]["most_from"] == {"flooder": 5}


def test_open_rows_keep_their_names(tmp_path: Path) -> None:
    """Rows from before and after codes came to stand for other names, and those that a failed sealing has given back."""
    links, none = ["a"], [[] for _ in CATEGORIES[1:]]

    def rows(first: int, codes: list[int]) -> BufferRows:
        count, offsets = len(codes), np.arange(first, first + len(codes), dtype=np.int64)
        all_codes = np.full((count, len(CATEGORIES)), -1, np.int16)
        all_codes[:, REGION] = codes
        return BufferRows(offsets, 1e9 + offsets, np.ones((count, len(NUMERIC)), np.float32), all_codes, np.zeros(count, np.int32))

    writer = BufferWriter(tmp_path, Partition("t", 0))
    writer.append(rows(0, [0, 1, -1]))
    refused = writer.detach(links, [["x", "y"], *none])
    assert refused is not None
    writer.append(rows(3, [1, 0]))
    writer.freeze(links, [["x", "y"], *none])
    writer.append(rows(5, [0, -1, 1]))  # of y and z from here on
    writer.put_back(refused)
    again = writer.detach(links, [["y", "z"], *none])
    assert again is not None
    table = read_segments([tmp_path / str(writer.seal(again).name)])
    values = table.values[REGION]
    assert [values[code] if code >= 0 else None for code in table.codes[:, REGION].tolist()] == ["x", "y", None, "y", "x", "y", None, "z"]


def test_more_names_than_codes_in_a_buffer_are_the_most_frequent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of a long time hold more names than codes can tell apart: the rare ones are other, and none is taken for another."""
    monkeypatch.setattr("model.buffer.rows._limited.__defaults__", (3,))
    writer = BufferWriter(tmp_path, Partition("t", 0))
    names = ["eu", "us", "eu", "r0", "us", "r1", "ap", "ap", "r2", "eu"]
    codes = np.full((len(names), len(CATEGORIES)), -1, np.int16)
    values = sorted(set(names))
    codes[:, REGION] = [values.index(name) for name in names]
    offsets = np.arange(len(names))
    rows = BufferRows(offsets, 1e9 + offsets, np.ones((len(names), len(NUMERIC)), np.float32), codes, np.zeros(len(names), np.int32))
    writer.append(rows)
    opened = writer.detach(["a"], [values, *([[]] * (len(CATEGORIES) - 1))])
    assert opened is not None
    table = read_segments([tmp_path / str(writer.seal(opened).name)])
    found = [table.values[REGION][code] for code in table.codes[:, REGION].tolist()]
    assert found == [name if name in ("eu", "us", "ap") else OVERFLOW for name in names]


def test_a_version_gives_codes_to_the_names_of_most_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two links with a region of their own come before a link with ever new regions, however many rows that one has."""
    monkeypatch.setattr(training_set, "NEW_VALUES_MAX", 2)
    regions_of = {"a": ["eu"] * 3, "b": ["eu"], "c": ["us"], "d": [f"r{at}" for at in range(6)] * 9, "e": ["us", OVERFLOW]}
    rows = [(link, region) for link, regions in enumerate(regions_of.values()) for region in regions]
    values = tuple(sorted({region for _, region in rows}))
    codes = np.full((len(rows), len(CATEGORIES)), -1, np.int32)
    codes[:, REGION] = [values.index(region) for _, region in rows]
    link = np.array([link for link, _ in rows], np.int32)
    table = RawTable(
        tuple(regions_of), link, np.arange(len(rows), dtype=np.float64), np.ones((len(rows), len(NUMERIC)), np.float32), codes,
        (values, *((),) * (len(CATEGORIES) - 1)),
    )  # fmt: skip
    assert new_values(table, np.ones(len(table), np.bool_), Vocabulary.empty())[REGION] == ["eu", "us"]


FEW = 3
"""Names of one category: fewer than the stream of the rig has."""


@pytest.fixture(scope="module")
def few_names(uninterrupted: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ARG001 - warms up
    """Return what a run leaves that knows few names at a time."""
    home = tmp_path_factory.mktemp("few")
    publish(home, rig.FIRST)
    left = rig.outcome_after(home, prepare=told_apart)
    assert remains.reported(home, "names_forgotten")
    return left


def told_apart(then: Any = lambda: None) -> None:
    """Limit how many names are known. Call it in the process of a run."""
    original = wiring.pipeline_settings

    def few(config: Any) -> PipelineSettings:
        from dataclasses import replace

        return replace(original(config), names_max=FEW)

    wiring.pipeline_settings = few  # type: ignore[assignment]
    then()


@pytest.mark.parametrize("seed", range(3))
def test_kills_and_batches_change_nothing(home: Path, few_names: Any, uninterrupted: Any, seed: int) -> None:
    """Forgotten names follow from the stream alone: killed between checkpoints and read in other batches, state, alerts and buffer are the
    same; and the buffer has every name."""
    for checkpoint in (3, 9):
        kill = killing.kill_around(CheckpointStore, "write", checkpoint + seed, after=bool(seed % 2))
        assert rig.run(home, prepare=lambda kill=kill: told_apart(kill), seed=seed, batch_max=60) == killing.KILLED
    remains.same(rig.outcome_after(home, prepare=told_apart, seed=seed, batch_max=17 + seed), few_names)
    assert few_names.buffer == uninterrupted.buffer
