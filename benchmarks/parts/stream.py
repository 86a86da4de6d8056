"""The measured stream: a simulated fleet with records of 461 bytes on average, as a file or in a topic of Apache Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from streams.simulator.fleet import FleetSpec, Region, build_fleet
from streams.simulator.simulation import simulate
from testkit.kafka.broker import Broker

PARTITIONS: Final = 4
REGIONS: Final[tuple[Region, ...]] = (Region("eu", 0.0), Region("us1", -5.0), Region("us", -8.0), Region("ap", 8.0))
"""Each name is in a record four times. With names of this length a record of all 22 columns has 461 bytes."""
BATCH_BYTES: Final = 65_536
"""Bytes of a producer's batch before compression, some 140 records: a producer for a fleet waits for that many."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Args:
        records: number.
        bytes: of the values, without keys.
    """

    records: int
    bytes: int

    @property
    def record_bytes(self) -> float:
        return self.bytes / self.records


def fleet(links: int) -> FleetSpec:
    """Return a fleet of `links` links, one row a minute, every record complete and on time, in four regions (one link: one region)."""
    if links % len(REGIONS) == 0:
        regions, each = REGIONS, links // len(REGIONS)
    else:
        regions, each = REGIONS[:1], links
    return FleetSpec(
        regions=regions, links_per_region=each, hole_share=0.0, gap_share=0.0, late_share=0.0, duplicate_share=0.0
    )  # fmt: skip


def blocks(spec: FleetSpec, rows: int) -> Iterator[tuple[list[bytes], list[int]]]:
    """Yield the values of `rows` records of each link in order of time, a block at a time, and the link of each."""
    for records in simulate(spec, rows * spec.interval_s):
        yield records.json(), records.link.tolist()


def write_file(spec: FleetSpec, rows: int, path: Path) -> Written:
    """Write the stream as NDJSON."""
    count = size = 0
    with path.open("wb") as file:
        for values, _ in blocks(spec, rows):
            file.write(b"\n".join(values) + b"\n")
            count += len(values)
            size += sum(map(len, values))
    return Written(count, size)


def write_topic(spec: FleetSpec, rows: int, bootstrap: str, topic: str) -> Written:
    """Write the stream into a new topic of four partitions, lz4, keyed by link."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    admin.close()
    links = build_fleet(spec)
    keys = [links.key(link) for link in range(len(links))]
    partition_of = [crc32(key) % PARTITIONS for key in keys]
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type="lz4", batch_size=BATCH_BYTES, linger_ms=100, acks=1)
    count = size = 0
    for values, owners in blocks(spec, rows):
        for value, link in zip(values, owners, strict=True):
            producer.send(topic, key=keys[link], value=value, partition=partition_of[link])
        count += len(values)
        size += sum(map(len, values))
    producer.flush()
    producer.close()
    return Written(count, size)


def broker() -> Any:
    """Return a context manager over a fresh Apache Kafka."""
    return Broker()
