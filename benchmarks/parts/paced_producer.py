"""A producer of telemetry at a given rate for little CPU: records are encoded before, and only their timestamps change.

    python -m parts.paced_producer JOB      JOB: {bootstrap, topic, partitions, links, first_row, rows, records_per_s}

Every link in turn has its next row, one a simulated minute, from first_row on. Now and then a record is not telemetry. rows: of each link;
null: until SIGTERM. records_per_s: null: as fast as possible. The last line has the number of records, the rows of each link, and the
seconds until the last record was acknowledged.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from kafka import KafkaProducer

from harness import answer, job_of
from parts.steady_producer import POISON
from parts.stream import BATCH_BYTES, blocks, fleet
from streams.simulator.fleet import DEFAULT_START_S, build_fleet

TEMPLATES: Final = 8
"""Different rows of each link, in turn: enough that windows vary."""
POISON_EVERY: Final = 4999
PACE_RECORDS: Final = 200
"""Records sent between two looks at the clock."""


def rows_of_fleet(links: int) -> list[list[bytes]]:
    """Return TEMPLATES rows of each link, without `{"timestamp":` and the number after it."""
    spec = fleet(links)
    values = [value for block, _ in blocks(spec, TEMPLATES) for value in block]
    return [[value[value.index(b",") :] for value in values[row * links : (row + 1) * links]] for row in range(TEMPLATES)]


def records(links: int, first_row: int, rows: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield link and value of each record in order of time; link -1 for a record that is not telemetry."""
    templates, interval_s = rows_of_fleet(links), fleet(links).interval_s
    for row in itertools.count() if rows is None else range(rows):
        time_s = DEFAULT_START_S + (first_row + row) * interval_s
        head = b'{"timestamp":%d' % time_s
        for link, rest in enumerate(templates[row % TEMPLATES]):
            number = (first_row + row) * links + link
            if number % POISON_EVERY == 0:
                yield -1, POISON[number // POISON_EVERY % len(POISON)]
            yield link, head + rest


def produce(job: dict[str, Any], ended: threading.Event) -> dict[str, Any]:
    """Send until `ended` or the last row. Every record is acknowledged."""
    safe = {"acks": "all", "enable_idempotence": True}
    producer = KafkaProducer(bootstrap_servers=job["bootstrap"], compression_type="lz4", batch_size=BATCH_BYTES, linger_ms=50, **safe)
    names, partitions = build_fleet(fleet(job["links"])), job["partitions"]
    partition_of = [crc32(names.key(link)) % partitions for link in range(job["links"])]
    stream = records(job["links"], job["first_row"], job["rows"])
    first = next(stream)  # the encoding is no part of the time
    began_s, sent, telemetry = time.monotonic(), 0, 0
    for link, value in itertools.chain([first], stream):
        producer.send(job["topic"], value=value, partition=partition_of[link] if link >= 0 else sent % partitions)
        sent += 1
        telemetry += link >= 0
        if sent % PACE_RECORDS == 0 and job["records_per_s"] is not None:
            ended.wait(max(0.0, sent / job["records_per_s"] - (time.monotonic() - began_s)))
        if ended.is_set() and link == job["links"] - 1:  # whole rows: the next producer begins with a new one
            break
    producer.flush()
    seconds = time.monotonic() - began_s
    producer.close()
    return {"sent": sent, "rows": telemetry // job["links"], "seconds": seconds}


def main() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    answer(produce(job_of(sys.argv), ended))


if __name__ == "__main__":
    main()
