"""The rival that does nothing: a loop that only polls, with kafka-python's consumer and our settings."""

from __future__ import annotations

import sys
import time
from typing import Any

from kafka import KafkaConsumer

from harness import answer, job_of
from streams.kafka.consumer import DEFAULTS
from streams.kafka.source import DEFAULT_MAX_RECORDS


def poll_all(bootstrap: str, topic: str, group: str, records: int) -> dict[str, Any]:
    """Return CPU and wall seconds to poll `records` records, from connecting to closing."""
    began_s, began_wall_s = time.process_time(), time.monotonic()
    consumer = KafkaConsumer(
        topic, **DEFAULTS, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
    )  # fmt: skip
    polled = 0
    while polled < records:
        polled += sum(map(len, consumer.poll(timeout_ms=250, max_records=DEFAULT_MAX_RECORDS).values()))
    consumer.close(autocommit=False)
    return {"records": polled, "cpu_s": time.process_time() - began_s, "wall_s": time.monotonic() - began_wall_s}


if __name__ == "__main__":
    job = job_of(sys.argv)
    answer(poll_all(job["bootstrap"], job["topic"], job["group"], job["records"]))
