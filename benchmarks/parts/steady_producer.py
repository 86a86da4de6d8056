"""A producer of a simulated fleet's records, faster than life and at a steady pace, until SIGTERM.

    python -m parts.steady_producer JOB      JOB: {bootstrap, topic, partitions, links, speed, quiet}

Two regions. Some records are late, repeated, with holes, or not telemetry. Every six simulated hours one region drifts. With `quiet` one
partition after the other brings nothing for a while. The last line has the number of records.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from kafka import KafkaProducer

from harness import answer, job_of
from streams.simulator.dataset import messages
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec, Region
from streams.simulator.planted import PlantedEvent

DURATION_S: Final = 60 * 86_400.0
"""Simulated seconds: the process is ended long before."""
POISON_EVERY: Final = 499
POISON: Final = (
    b"not json",
    b'{"node_id": "a", "peer_id": "b", "rtt_ms": 1}',
    b'{"timestamp": 1, "node_id": "a", "peer_id": "b", "rtt_ms": -1}',
)
QUIET_EVERY_S: Final = 15.0
QUIET_S: Final = 4.0


def spec(links: int) -> FleetSpec:
    """Return a fleet of `links` links in two regions."""
    events = tuple(
        PlantedEvent("reroute", DEFAULT_START_S + hour * 3600.0, ("eu", "us")[hour // 6 % 2], 3 * 3600.0, links_share=0.8, size_sd=6.0)
        for hour in range(6, 24 * 60, 6)
    )
    return FleetSpec(
        seed=5,
        regions=(Region("eu", 0.0), Region("us", -5.0)),
        links_per_region=links // 2,
        late_share=0.01,
        duplicate_share=0.01,
        events=events,
    )


def records(links: int, partitions: int) -> Iterator[tuple[int, bytes, bytes, float]]:
    """Yield partition, key, value and simulated seconds since the start."""
    for count, (key, value, time_s) in enumerate(messages(spec(links), DURATION_S)):
        yield crc32(key) % partitions, key, value, time_s - DEFAULT_START_S
        if count % POISON_EVERY == 0:
            number = count // POISON_EVERY
            yield number % partitions, b"poison", POISON[number % len(POISON)], time_s - DEFAULT_START_S


def produce(job: dict[str, Any], ended: threading.Event) -> int:
    """Send until `ended`, and return the number of records, all acknowledged."""
    producer = KafkaProducer(bootstrap_servers=job["bootstrap"], compression_type="lz4", linger_ms=5, acks="all", enable_idempotence=True)
    began_s, sent = time.monotonic(), 0
    held: deque[tuple[int, bytes, bytes]] = deque()
    for partition, key, value, at_s in records(job["links"], job["partitions"]):
        while (ahead_s := at_s / job["speed"] - (time.monotonic() - began_s)) > 0 and not ended.is_set():
            ended.wait(min(ahead_s, 0.05))
        quiet = _quiet_partition(time.monotonic() - began_s, job["partitions"]) if job["quiet"] else None
        held.append((partition, key, value))
        for one in [one for one in held if one[0] != quiet or ended.is_set()]:
            held.remove(one)
            producer.send(job["topic"], key=one[1], value=one[2], partition=one[0])
            sent += 1
        if ended.is_set() and not held:
            break
    producer.flush()
    producer.close()
    return sent


def _quiet_partition(since_s: float, partitions: int) -> int | None:
    """Return the partition that brings nothing now."""
    turn, within_s = divmod(since_s, QUIET_EVERY_S)
    return int(turn) % partitions if within_s < QUIET_S else None


def main() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    answer({"sent": produce(job_of(sys.argv), ended)})


if __name__ == "__main__":
    main()
