"""Read drift alerts from Kafka and print each one once.

    python examples/follow_alerts.py localhost:9092 dwcp.drift

An alert is delivered at least once: after a crash the daemon may send it again, with the same id and the same words. So keep the ids that
you have acted on. `incident` is the same from the opened to the closed event of one incident.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from kafka import KafkaConsumer

REMEMBERED = 10_000
"""Ids that are kept. A repeat follows its first event within minutes."""


def alerts(values: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Return each alert once, as a CloudEvent.

    Args:
        values: what the records of the topic hold; it also carries `dwcp.drift.retraining`, which is not an alert.
    """
    seen: OrderedDict[str, None] = OrderedDict()
    for value in values:
        event = json.loads(value)
        if event["id"] in seen or event["type"] == "dwcp.drift.retraining":
            continue
        seen[event["id"]] = None
        if len(seen) > REMEMBERED:
            seen.popitem(last=False)
        yield event


def line(event: dict[str, Any]) -> str:
    """Return one line for a person."""
    data = event["data"]
    return f"{event['time']} {data['change']:<8} {data['severity']:<8} {data['summary']}"


def main(servers: str, topic: str) -> None:
    """Print alerts until Ctrl-C."""
    consumer = KafkaConsumer(topic, bootstrap_servers=servers, group_id="example-alerts", auto_offset_reset="earliest")
    for event in alerts(message.value for message in consumer):
        print(line(event), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
