"""Bad input of every kind: the message names what is wrong and what to do, nothing is lost, and the stream goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from features.telemetry import COLUMNS

Cli = Callable[..., tuple[int, str, str]]
START_S = 1_767_571_200


def row(second: int, **values: object) -> str:
    """Return one line of the CSV form."""
    fields = {"timestamp": START_S + second, "node_id": "a", "peer_id": "b", "rtt_ms": 20.0, "throughput_mbps": 90.0}
    return ",".join(str((fields | values).get(column, "")) for column in COLUMNS) + "\n"


HEADER = ",".join(COLUMNS) + "\n"


def replayed(cli: Cli, path: Path, keep: Path, expected: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Replay a file and return the report, the dead letters and standard error. Checks the exit code."""
    code, out, err = cli("replay", path, "--no-train", "--json", "--keep", keep)
    assert code == expected, err
    letters = keep / "state/events/dead_letters.ndjson"
    return json.loads(out), [json.loads(line) for line in letters.read_text().splitlines()], err


UNUSABLE = {
    "no file": (None, "no such file or folder"),
    "an empty file": ("", "is empty: it needs a CSV header or one JSON object per line"),
    "a wrong header": ("time,node,peer\n1,2,3\n", "header"),
    "no timestamp in the header": ("node_id,peer_id,rtt_ms\na,b,1\n", "timestamp"),
    "a column twice": (HEADER.replace("region", "node_id"), "node_id"),
    "one JSON array": ('[{"timestamp": 1}]', "one object per line is needed"),
    "only a header": (HEADER, "holds no record, only a header; there is nothing to replay"),
    "binary garbage": (bytes(range(256)) * 40, ""),
    "half a gzip file": (b"\x1f\x8b\x08\x00garbage", ""),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_that_cannot_be_replayed(cli: Cli, tmp_path: Path, case: str) -> None:
    """Exit code 5 and one line that names the file. The folder of --keep is not touched."""
    content, message = UNUSABLE[case]
    path = tmp_path / ("input.csv.gz" if "gzip" in case else "input.ndjson" if "JSON" in case else "input.csv")
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    code, out, err = cli("replay", path, "--no-train", "--keep", tmp_path / "kept")
    assert code == 5, (out, err)
    assert path.name in err
    assert message in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 3
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("content", ["", HEADER], ids=["nothing", "a header"])
def test_standard_input_without_a_record(tmp_path: Path, content: str) -> None:
    """It is handled as an empty file: exit code 5, and a line that names the reason."""
    command = [sys.executable, "-m", "daemon.cli", "replay", "-", "--no-train"]
    made = subprocess.run(command, input=content, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert made.returncode == 5
    assert "standard input: is empty, or holds only a header" in made.stderr
    assert made.stdout == ""


def test_a_file_with_one_row(cli: Cli, tmp_path: Path) -> None:
    """One accepted record, no forecast, and a table without numbers."""
    (tmp_path / "input.csv").write_text(HEADER + row(0))
    report, letters, _ = replayed(cli, tmp_path / "input.csv", tmp_path / "kept")
    assert report["records"] == {"consumed": 1, "accepted": 1, "rejected": 0, "duplicate": 0, "late": 0}
    assert report["missing"] == {"throughput_mbps": 0, "rtt_ms": 0, "packet_loss": 1, "jitter_ms": 1}
    assert letters == []
    code, out, _ = cli("replay", tmp_path / "input.csv", "--no-train")
    assert code == 0
    assert "1 records of 1 links: 1 accepted" in out


BAD_RECORDS = {
    "a timestamp in milliseconds": (row(0, timestamp=START_S * 1000), "millisecond"),
    "a timestamp in the future": (row(0, timestamp=4_000_000_000), "future"),
    "no timestamp": (row(0, timestamp=""), "timestamp"),
    "no node": (row(0, node_id=""), "node_id"),
    "none of the four metrics": (row(0, rtt_ms="", throughput_mbps=""), "throughput_mbps"),
    "loss in per cent": (row(0, packet_loss=12.0), "packet_loss"),
    "negative round-trip time": (row(0, rtt_ms=-1), "rtt_ms"),
    "not a number": (row(0, rtt_ms="nan"), "rtt_ms"),
    "text for a number": (row(0, throughput_mbps="fast"), "throughput_mbps"),
    "too few fields": ("1767571200,eu\n", "2 cells, the header has 22"),
    "binary garbage": ("\x00\x01\x02\xff" * 20 + "\n", ""),
    "a field of 10 MB": (row(0, region="x" * 10_000_000), "allowed 1048576"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_record_that_is_refused(cli: Cli, tmp_path: Path, case: str) -> None:
    """It goes to the dead letters complete, with reason and place, is printed on standard error, and its neighbours are accepted."""
    bad, reason = BAD_RECORDS[case]
    (tmp_path / "input.csv").write_bytes((HEADER + row(10) + bad + row(20) + row(30)).encode("latin-1"))
    report, letters, err = replayed(cli, tmp_path / "input.csv", tmp_path / "kept")
    assert (report["records"]["accepted"], report["records"]["rejected"]) == (3, 1)
    (letter,) = letters
    assert reason in letter["data"]["reason"]
    assert "input.csv" in json.dumps(letter["data"] | {"value": ""})
    assert "record_rejected" in err
    assert letter["data"]["reason"][:40] in err
    assert letter["id"]


def test_dead_letters_are_the_same_when_a_file_is_read_again(cli: Cli, tmp_path: Path) -> None:
    """The id follows from the place of the record, so that a subscriber can drop repeats."""
    (tmp_path / "input.csv").write_text(HEADER + row(0) + row(10, rtt_ms=-1))
    first = replayed(cli, tmp_path / "input.csv", tmp_path / "a")[1]
    assert [letter["id"] for letter in replayed(cli, tmp_path / "input.csv", tmp_path / "b")[1]] == [letter["id"] for letter in first]


def test_every_record_is_bad(cli: Cli, tmp_path: Path) -> None:
    """A whole file in milliseconds: all rejected, none lost, one line with the reason instead of one for each record, and no success."""
    (tmp_path / "input.csv").write_text(HEADER + "".join(row(0, timestamp=(START_S + second) * 1000) for second in range(3000)))
    report, letters, err = replayed(cli, tmp_path / "input.csv", tmp_path / "kept", expected=1)
    assert (report["records"]["accepted"], report["records"]["rejected"], len(letters)) == (0, 3000, 3000)
    assert len(err.splitlines()) < 10
    assert "millisecond" in err


def test_refused_records_by_reason(cli: Cli, tmp_path: Path) -> None:
    """Table and JSON show the number of each kind, the first one's line and reason, and where all of them are."""
    path = tmp_path / "input.csv"
    path.write_text(HEADER + row(0) + row(10, rtt_ms=-1) + row(20, node_id="") + row(30, rtt_ms=-2) + row(40))
    report, _, _ = replayed(cli, path, tmp_path / "kept")
    assert {kind: (found["count"], found["file"], found["line"]) for kind, found in report["rejections"].items()} == {
        "out_of_range": (2, "input.csv", 3),
        "missing_field": (1, "input.csv", 4),
    }
    assert "rtt_ms" in report["rejections"]["out_of_range"]["reason"]
    code, out, _ = cli("replay", path, "--no-train")
    assert code == 0
    assert "input.csv, line 3" in out
    assert "--keep FOLDER keeps all of them" in out
    assert f"{tmp_path / 'other/state/events/dead_letters.ndjson'}" in cli("replay", path, "--no-train", "--keep", tmp_path / "other")[1]


def test_an_unreachable_broker(run: Callable[..., Any], no_broker: str) -> None:
    """Its address and the next attempt are logged. The daemon is alive but not ready, reloads its configuration, and stops at once."""
    daemon = run(no_broker)
    reported = daemon.until(lambda: daemon.reported("kafka_unreachable"))[0]
    assert reported["servers"] == no_broker
    assert "refused" in reported["error"].lower()
    assert reported["retry_in_s"] > 0
    assert daemon.get("/livez") == (200, "ok\n")
    status, why = daemon.get("/readyz")
    assert (status, why.startswith("the source is not connected: "), no_broker in why) == (503, True, True)
    assert 'dwcp_events_total{event="kafka_unreachable"}' in daemon.get("/metrics")[1]

    daemon.configure(topic="another", more="[training]\nrows_min = 77\nschedule = '0 4 * * *'\n")
    daemon.process.send_signal(signal.SIGHUP)
    reloaded = daemon.until(lambda: daemon.reported("config_reloaded"))[0]
    assert reloaded["needs_restart"] == ["kafka"], "what cannot change while running is named"

    daemon.configure(more="[training]\nrows_min = 'many'\n")
    daemon.process.send_signal(signal.SIGHUP)
    rejected = daemon.until(lambda: daemon.reported("config_rejected"))[0]
    assert "training.rows_min: Input should be a valid integer" in rejected["problem"]
    assert daemon.get("/livez")[0] == 200, "the old configuration stays"

    assert not daemon.reported("daemon_ready")
    assert daemon.stop() == 0
    assert daemon.reported("daemon_stopped")
    assert "Traceback" not in daemon.log.read_text()


def test_a_missing_topic(run: Callable[..., Any], kafka_broker: str, kafka_admin: KafkaAdminClient) -> None:
    """It is logged with what to do, and not created. When it exists, the daemon becomes ready without a restart."""
    topic = f"missing.{os.getpid()}.{time.monotonic_ns()}"
    daemon = run(kafka_broker, topic=topic)
    reported = daemon.until(lambda: daemon.reported("topic_missing") or daemon.reported("kafka_event", condition="topic_missing"))[0]
    assert f"create topic {topic}, or correct its name" in reported["todo"]
    assert daemon.get("/livez")[0] == 200
    assert daemon.get("/readyz")[0] == 503
    assert daemon.log.read_text().count("not found in cluster metadata") <= 1, "the client's own words bury the event"
    assert topic not in kafka_admin.list_topics()
    kafka_admin.create_topics({topic: {"num_partitions": 2}}, wait_for_metadata=True)
    daemon.until(lambda: daemon.reported("daemon_ready"))
    daemon.until(lambda: daemon.get("/readyz") == (200, "ok\n"))
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for second in range(10):
        producer.send(topic, json.dumps({"timestamp": START_S + second, "node_id": "a", "peer_id": "b", "rtt_ms": 1.0}).encode())
    producer.send(topic, b"\xff\x00 no JSON at all")
    producer.close()
    daemon.until(lambda: daemon.reported("record_rejected"))
    daemon.until(lambda: 'dwcp_records_total{outcome="consumed"} 11.0' in daemon.get("/metrics")[1])
    assert daemon.stop() == 0
    assert 'outcome="accepted"' not in daemon.log.read_text()
    manifests = sorted((daemon.config.parent / "state/checkpoints").glob("0*/MANIFEST.json"))
    parts = json.loads(manifests[-1].read_bytes())["parts"]
    assert sum(part["offset"] or 0 for part in parts) == 11
