"""The whole daemon as an operator runs it: Apache Kafka, the command line, a real training, and what subscribers receive."""

from __future__ import annotations

import base64
import csv
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from model.buffer.rows import read_segments
from model.registry.versions import Registry
from model.version.manifest import verify
from model.version.predictor import Predictor
from streams.simulator.dataset import messages
from streams.simulator.fleet import FleetSpec
from testkit.paths import ROOT
from testkit.running import die_with_parent
from testkit.waiting import wait_for

STARLINK = ROOT.parent / "shared" / "data" / "starlink_road_1s.csv"
FIRST, MORE = 20_000, 6_000
POISON = [b"not json", b'{"timestamp": 1e12, "node_id": "a", "peer_id": "b", "rtt_ms": 1}', b"\xff\xfe", b'{"rtt_ms": -1}']


def telemetry() -> list[tuple[bytes, bytes]]:
    """Return (key, value) in order of time: the end of the Starlink recording, or a simulated fleet if that file is missing.

    The recording's start is mostly pieces shorter than a window. In the last 3,000 rows the throughput is ten times what it was.
    """
    if STARLINK.exists():
        with STARLINK.open() as file:
            rows = sorted(csv.DictReader(file), key=lambda row: float(row["timestamp"]))
        records: list[dict[str, Any]] = [
            {name: (float(text) if _is_number(text) else text) for name, text in row.items() if text} for row in rows
        ]  # fmt: skip
    else:
        spec = FleetSpec(links_per_region=5, late_share=0.0, duplicate_share=0.0)  # every record that is sent is to be in the buffer
        records = [json.loads(value) for _, value, _ in messages(spec, 86_400.0 * 2)]
    records = records[-FIRST - MORE :]
    for record in records[-MORE // 2 :]:
        if record.get("throughput_mbps") is not None:
            record["throughput_mbps"] *= 10.0
    return [(f"{r['node_id']}|{r['peer_id']}|{r['link_type']}".encode(), json.dumps(r).encode()) for r in records]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def daemon(
    config: Path, log: Path, wait: Callable[..., Any], die_with_parent: Callable[[], None]
) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Run `dwcp-learner run` and yield a function that waits for an event of its log. Then SIGTERM has to end it."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", "run", "--config", str(config)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ.copy(),
            preexec_fn=die_with_parent,
        )

    def reported(event: str) -> dict[str, Any] | None:
        lines = (json.loads(line) for line in log.read_text().splitlines() if f'"{event}"' in line and line.endswith("}"))
        return next((line for line in lines if line["event"] == event), None)

    def wait_for(event: str) -> dict[str, Any]:
        return dict(wait(lambda: reported(event), lambda: f"{event}\n{log.read_text()[-3000:]}", alive=lambda: process.poll() is None))

    try:
        yield wait_for
        process.send_signal(signal.SIGTERM)
        wait(lambda: process.poll() is not None, "its end")
        assert process.returncode == 0, log.read_text()[-3000:]
        assert '"daemon_stopped"' in log.read_text()
    finally:
        process.kill()
        process.wait()


def heard(servers: str, topic: str, wanted: int) -> list[Any]:
    """Return at least `wanted` messages of a topic, read as a subscriber would."""
    consumer = KafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest", group_id=None)
    messages_: list[Any] = []

    def enough() -> bool:
        for records in consumer.poll(500).values():
            messages_.extend(records)
        return len(messages_) >= wanted

    with closing(consumer):
        wait_for(enough, f"{wanted} messages of {topic}")
    return messages_


@pytest.fixture
def topics(kafka_admin: Any) -> dict[str, str]:
    """Four topics of this test's own: telemetry with 4 partitions, and those for events."""
    run = uuid.uuid4().hex[:8]
    names = {name: f"dwcp.{name}.{run}" for name in ("telemetry", "drift", "models", "dlq")}
    kafka_admin.create_topics([NewTopic(topic, 4 if name == "telemetry" else 1, 1) for name, topic in names.items()])
    return names


def test_from_telemetry_to_a_model_an_alert_and_dead_letters(kafka_broker: str, topics: dict[str, str], tmp_path: Path) -> None:
    """Consumes, trains, publishes, announces. A second run goes on where the first stopped.

    A subscriber receives a drift. Poison arrives in the dead-letter topic with reason and coordinates. Every record is in the buffer
    exactly once.
    """
    config = tmp_path / "dwcp.toml"
    config.write_text(f"""
        [kafka]
        bootstrap_servers = "{kafka_broker}"
        topic = "{topics["telemetry"]}"
        group_id = "{topics["telemetry"]}"
        [events]
        drift_topic = "{topics["drift"]}"
        models_topic = "{topics["models"]}"
        dead_letter_topic = "{topics["dlq"]}"
        [drift]
        quorum_links = 1
        idle_s = 20
        [training]
        schedule = ""
        rows_min = {FIRST - 500}
        drift_rows_min = 1000000
        epochs = 1
        [training.expert]
        epoch_windows_max = 512
        batch_size = 64
        [state]
        directory = "{tmp_path / "state"}"
        checkpoint_interval_s = 2
        [models]
        directory = "{tmp_path / "models"}"
        [http]
        port = 0
        [log]
        format = "json"
    """)
    records = telemetry()
    producer = KafkaProducer(bootstrap_servers=kafka_broker, compression_type="lz4", linger_ms=20)
    for key, value in records[:FIRST]:
        producer.send(topics["telemetry"], key=key, value=value)
    producer.flush()

    with daemon(config, tmp_path / "first.log", wait_for, die_with_parent) as event_of:
        version = event_of("model_published")["version"]
        event_of("model_live")
    announcement = json.loads(heard(kafka_broker, topics["models"], 1)[0].value)
    assert (announcement["type"], announcement["data"]["version"]) == ("dwcp.model.published", version)
    registry = Registry(tmp_path / "models")
    assert registry.current() == version
    assert verify(registry.folder(version)) == []
    assert Predictor.load(registry.folder(version)).version == version

    for key, value in records[FIRST:]:
        producer.send(topics["telemetry"], key=key, value=value)
    for value in POISON:
        producer.send(topics["telemetry"], key=b"poison", value=value)
    producer.close()
    with daemon(config, tmp_path / "second.log", wait_for, die_with_parent) as event_of:
        event_of("drift_opened")
        alerts = [json.loads(message.value) for message in heard(kafka_broker, topics["drift"], 1)]
        letters = heard(kafka_broker, topics["dlq"], len(POISON))
    assert alerts[0]["type"] == "dwcp.drift.opened"
    assert any(signal["signal"] == "throughput_mbps" for alert in alerts for signal in alert["data"]["signals"])
    assigned = [json.loads(line) for line in (tmp_path / "second.log").read_text().splitlines() if '"partition_assigned"' in line]
    assert sum(line["offset"] or 0 for line in assigned) == FIRST, "the second run goes on where the first stopped"

    assert {base64.b64decode(json.loads(letter.value)["data"]["value_base64"]) for letter in letters} == set(POISON)
    for letter in letters:
        headers, data = dict(letter.headers), json.loads(letter.value)["data"]
        assert headers["topic"].decode() == data["topic"] == topics["telemetry"]
        assert int(headers["offset"]) == data["offset"]
        assert headers["reason"].decode() == data["reason"] != ""

    table = read_segments(sorted((tmp_path / "state" / "buffer").glob("*.parquet")))
    kept = {(table.links[link], time_s) for link, time_s in zip(table.link.tolist(), table.time_s.tolist(), strict=True)}
    sent = {(key.decode(), float(json.loads(value)["timestamp"])) for key, value in records}
    assert kept == sent
    assert len(table) == len(sent)
