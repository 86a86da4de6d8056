"""Floods a topic with good records at a rate, until it is told to end with SIGTERM: each costs a template and a timestamp.

    python -m parts.flood JOB      JOB: {bootstrap, topic, partitions, links, rate, seconds}      seconds: at most; 0: until SIGTERM

Its last line says how many records it has sent, every one of them acknowledged, and in how many seconds.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from typing import Any, Final
from zlib import crc32

from harness import answer, job_of
from kafka import KafkaProducer

from parts.stream import BATCH_BYTES, blocks, fleet
from streams.fleet import DEFAULT_START_S

TICK_S: Final = 0.02
INTERVAL_S: Final = 60
"""Simulated, between two records of a link."""


def templates(links: int, partitions: int) -> list[tuple[int, bytes]]:
    """Of each link its partition, and a record but for its timestamp, which comes first."""
    made = []
    for values, _ in blocks(fleet(links), 1):
        for record in map(json.loads, values):
            del record["timestamp"]
            key = f"{record['node_id']}|{record['peer_id']}".encode()
            made.append((crc32(key) % partitions, b"," + json.dumps(record).encode()[1:]))
    return made[:links]


def flood(job: dict[str, Any], ended: threading.Event) -> dict[str, Any]:
    """Sends until `ended` or for job["seconds"]."""
    made = templates(job["links"], job["partitions"])
    producer = KafkaProducer(bootstrap_servers=job["bootstrap"], compression_type="lz4", batch_size=BATCH_BYTES, linger_ms=50, acks=1)
    began_s, sent, rest = time.monotonic(), 0, b""
    while not ended.is_set() and not 0 < job["seconds"] < time.monotonic() - began_s:
        wanted = int((time.monotonic() - began_s) * job["rate"])
        for number in range(sent, wanted):
            row, link = divmod(number, len(made))
            partition, rest = made[link]
            producer.send(job["topic"], value=b'{"timestamp":%d%b' % (DEFAULT_START_S + row * INTERVAL_S, rest), partition=partition)
        sent = max(sent, wanted)
        ended.wait(TICK_S)
    producer.flush()
    return {"sent": sent, "seconds": time.monotonic() - began_s}


def main() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    answer(flood(job_of(sys.argv), ended))


if __name__ == "__main__":
    main()
