"""Write telemetry records to Kafka, one a link and minute, as your own collector would.

    python examples/produce_telemetry.py localhost:9092 dwcp.telemetry [--minutes 60]

The key is the link, the same for all of its records: Kafka then keeps a link in one partition and its records in order.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from typing import Any

from kafka import KafkaProducer

LINKS = (("core-1", "core-2", "metro"), ("core-1", "edge-7", "long-haul"), ("core-2", "edge-9", "mobile"))


def record(link: tuple[str, str, str], timestamp_s: float) -> dict[str, Any]:
    """Return one record. Leave out what you do not measure: only time, node, peer and one of the four metrics are needed."""
    node, peer, link_type = link
    load = 0.5 + 0.3 * math.sin(2 * math.pi * timestamp_s / 86_400)
    return {
        "timestamp": timestamp_s,  # UTC seconds, or RFC 3339 text
        "node_id": node,
        "peer_id": peer,
        "link_type": link_type,
        "region": "eu-west-1",
        "throughput_mbps": round(900 * load * random.uniform(0.95, 1.05), 2),
        "rtt_ms": round(12 + 20 * load * random.uniform(0.9, 1.1), 2),
        "packet_loss": round(max(0.0, random.gauss(0.001, 0.0005)), 5),  # a ratio from 0 to 1, not percent
        "jitter_ms": round(random.uniform(0.2, 1.5), 2),
    }


def records(minutes: int, end_s: float) -> Iterator[tuple[bytes, bytes]]:
    """Return key and value of each record of the `minutes` before `end_s`, in order of time."""
    for minute in range(minutes):
        for link in LINKS:
            value = record(link, end_s - 60.0 * (minutes - minute))
            yield "|".join(link).encode(), json.dumps(value).encode()


def main(servers: str, topic: str, minutes: int) -> int:
    """Send the records and return how many the broker has confirmed."""
    producer = KafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=20)
    sent = [producer.send(topic, key=key, value=value) for key, value in records(minutes, time.time())]
    producer.flush()
    confirmed = sum(future.succeeded() for future in sent)
    producer.close()
    print(f"{confirmed} of {len(sent)} records are in {topic}")
    return confirmed


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("servers")
    options.add_argument("topic")
    options.add_argument("--minutes", type=int, default=60)
    given = options.parse_args()
    main(given.servers, given.topic, given.minutes)
