"""Consistency of a disturbed daemon: everything is rebuilt from the raw topic and compared.

Two checks that share nothing. `rows_of` reads the topic with a plain consumer and decides, by rules that are written here a second time,
which records must be in the buffer: each exactly once, or it is lost or duplicated. `replayed` runs an undisturbed daemon over the same
topic with the same journal: state, alerts and buffer must be the same, byte for byte.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow.parquet as pq
from kafka import KafkaConsumer, TopicPartition

from daemon.loop import Loop
from features.telemetry import Partition
from model.buffer.segments import SegmentName
from streams.source import Polled
from testkit import remains, rig, scripted

Topic = Mapping[Partition, Sequence[bytes]]
Row = tuple[int, int, float]
"""Partition, offset, UTC seconds."""
BATCH_MAX: Final = 4000
IDLE_POLL_MS: Final = 2000


def read_topic(bootstrap: str, topic: str, only: int | None = None) -> dict[Partition, list[bytes]]:
    """Read all values of a topic by partition, with a consumer without a group. The list index is the offset: nothing was deleted.

    Args:
        only: one partition, if all of them do not fit into memory.
    """
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    numbers = sorted(consumer.partitions_for_topic(topic)) if only is None else [only]
    keys = [TopicPartition(topic, number) for number in numbers]
    consumer.assign(keys)
    consumer.seek_to_beginning(*keys)
    ends = consumer.end_offsets(keys)
    values: dict[TopicPartition, list[bytes]] = {key: [] for key in keys}
    while any(consumer.position(key) < ends[key] for key in keys):
        for key, records in consumer.poll(IDLE_POLL_MS, max_records=50_000).items():
            for record in records:
                if record.offset != len(values[key]):
                    raise RuntimeError(f"{topic}-{key.partition} has a hole before offset {record.offset}")
                values[key].append(record.value)
    consumer.close()
    return {Partition(key.topic, key.partition): found for key, found in values.items()}


def rows_of(topic: Topic) -> list[Row]:
    """Return the rows that must be in the buffer: telemetry records that are later than all before of their link."""
    rows = []
    for partition, values in topic.items():
        newest: dict[tuple[Any, ...], float] = {}
        for offset, value in enumerate(values):
            if (record := _telemetry(value)) is None:
                continue
            link, time_s = (record["node_id"], record["peer_id"], record.get("link_type")), float(record["timestamp"])
            if time_s > newest.get(link, -math.inf):
                newest[link] = time_s
                rows.append((partition.number, offset, time_s))
    return rows


def refused_of(topic: Topic) -> set[tuple[int, int]]:
    """Return partition and offset of records that must be in the dead letters: they are not telemetry."""
    return {
        (partition.number, offset)
        for partition, values in topic.items()
        for offset, value in enumerate(values)
        if _telemetry(value) is None
    }


def _telemetry(value: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(value)
    except ValueError:
        return None
    if not isinstance(record, dict) or not {"timestamp", "node_id", "peer_id"} <= record.keys():
        return None
    metrics = [record.get(name) for name in ("throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms")]
    known = [metric for metric in metrics if metric is not None]
    return record if known and min(known) >= 0 and (metrics[2] is None or metrics[2] <= 1) else None


def buffered(state: Path) -> list[Row]:
    """Return the rows that the newest checkpoint of each partition names, of any member."""
    segments: dict[tuple[str, int], Sequence[str]] = {}
    for _, manifest in remains.checkpoints(state):
        for part in manifest.parts:
            segments.setdefault((part.topic, part.number), part.segments)
    rows: list[Row] = []
    for name in (name for names in segments.values() for name in names):
        table = pq.read_table(state / "buffer" / name, columns=["offset", "time_s"])
        number = SegmentName.parse(name).number
        rows += [
            (number, offset, time_s) for offset, time_s in zip(*(table[column].to_pylist() for column in table.column_names), strict=True)
        ]
    return rows


@dataclass(frozen=True)
class Difference:
    """Rows that differ.

    Args:
        lost: rows that are missing.
        duplicated: rows that are there more than once.
        unexpected: rows without a record.
        examples: some of them.
    """

    lost: int
    duplicated: int
    unexpected: int
    examples: list[str] = field(default_factory=list)


def compare(expected: Iterable[Row], found: Iterable[Row]) -> Difference:
    """Count rows that differ, and name some of them."""
    wanted, there = set(expected), Counter(found)
    lost, surplus = sorted(wanted - there.keys()), sorted(there.keys() - wanted)
    repeated = sorted(row for row, count in there.items() if count > 1)
    kinds = {"lost": lost, "duplicated": repeated, "unexpected": surplus}
    examples = [f"{kind} {number}:{offset}" for kind, rows in kinds.items() for number, offset, _ in rows[:3]]
    return Difference(len(lost), sum(there[row] - 1 for row in repeated), len(surplus), examples)


def replayed(topic: Topic, home: Path, into: Path, sections: Mapping[str, Mapping[str, Any]]) -> Any:
    """Run a daemon over the topic without a stop, by the journal that `home` has left.

    Args:
        topic: values by partition.
        home: folder of the disturbed daemon.
        into: an empty folder.
        sections: of the configuration.

    Returns:
        Its Outcome.
    """
    shutil.copytree(home / "models", into / "models")
    (into / "state").mkdir(parents=True)
    shutil.copy(home / "state" / "journal-main.ndjson", into / "state")
    source = scripted.ScriptedSource(seed=99, batch_max=BATCH_MAX, records=topic, ends=False)
    settings = {name: dict(values) for name, values in sections.items()}
    settings["training"] = {"schedule": "", "rows_min": 2**62, "drift_rows_min": 2**62}  # which versions went live is in the journal too
    settings["drift"] = settings.get("drift", {}) | {"idle_s": 2.0**40}  # what the clock decides is in the journal
    made = rig.daemon_over(source, rig.config(into, **settings))
    made.parts.group.decisions.before_record = lambda *_, **__: None  # nor is anything decided behind the journal's end
    made.loop.on_step = lambda polled: _stop_at_the_end(made.loop, source, polled)
    made.run()
    return remains.outcome(into)


def _stop_at_the_end(loop: Loop, source: Any, polled: Polled) -> None:
    if not polled.batches and source.exhausted():
        loop.stop("every record was taken")


def unlike(name: str, one: Any, other: Any) -> list[str]:
    """Return where two documents differ, as the shortest paths."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [text for key in one.keys() | other.keys() for text in unlike(f"{name}.{key}", one.get(key), other.get(key))]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [text for at, (left, right) in enumerate(zip(one, other, strict=True)) for text in unlike(f"{name}.{at}", left, right)]
    return [] if repr(one) == repr(other) else [f"{name}: {one!r:.200} against {other!r:.200}"]


def differing(left: Any, right: Any) -> list[str]:
    """Return the names of what differs between two Outcomes, but for the log of the offsets: a replay from memory has none."""
    names = [name for name in ("offsets", "rows", "alerts", "buffer") if getattr(left, name) != getattr(right, name)]
    if left.regions != right.regions:
        names += unlike("regions", msgspec.msgpack.decode(left.regions), msgspec.msgpack.decode(right.regions)) or ["regions: the order"]
    for partition in left.parts.keys() | right.parts.keys():
        one, other = left.parts.get(partition, {}), right.parts.get(partition, {})
        names += [f"{partition} {name}" for name in sorted((one.keys() | other.keys()) - {"log"}) if one.get(name) != other.get(name)]
    return names
