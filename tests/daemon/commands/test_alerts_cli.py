"""dwcp-learner alerts: follow and explain, on the files of a daemon and on files of any kind."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer

from streams.files.read_events import events_in_file
from streams.files.sink import rotated
from streams.kafka.connection.options import KafkaOptions
from streams.kafka.read_events import events_of_topic
from testkit import rig
from testkit.waiting import wait_for


def event(name: str, incident: str = "1f00", **data: Any) -> str:
    made = {"incident": incident, "summary": f"eu: RTT +18 ms ({name})", "severity": "warning"} | data
    return json.dumps({"id": name, "type": "dwcp.drift.opened", "time": "2026-01-05T02:07:00Z", "data": made}) + "\n"


@pytest.fixture
def state(home: Path) -> Path:
    """The state directory of a daemon that has seen a drift, and a configuration for it."""
    assert rig.run(home) == 0
    config = home / "config.toml"
    config.write_text(f"[events]\nto = 'file'\n[state]\ndirectory = '{home / 'state'}'\n[models]\ndirectory = '{home / 'models'}'\n")
    return config


def test_an_alert_is_explained_with_its_telemetry(state: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    """The beginning of its id is enough for the events, the signals, and curves of the affected links around the change."""
    code, out, _ = cli("alerts", "follow", "--once", "--config", state)
    assert code == 0
    lines = [line for line in out.splitlines() if "opened" in line]
    assert lines
    events = [json.loads(line) for line in (state.parent / "state/events/drift.ndjson").read_text().splitlines()]
    incident = next(one["data"]["incident"] for one in events if one["data"].get("scope") == "region")
    code, out, _ = cli("alerts", "explain", incident[:10], "--config", state)
    assert code == 0
    assert "rtt_ms" in out
    assert "median and quartiles of" in out
    assert "what v20260101_000000 forecast for the next row" in out
    assert "\x1b" not in out, "no escape code in a pipe"
    code, out, _ = cli("alerts", "explain", incident, "--json", "--file", state.parent / "state/events/drift.ndjson")
    reported = json.loads(out)
    assert {one["data"]["incident"] for one in reported["events"]} == {incident}
    evidence = {one["signal"]: one for one in reported["evidence"]}
    links = reported["events"][-1]["data"]["links"]
    assert evidence["rtt_ms"]["links"] == len(links)
    curve = [value for value in evidence["rtt_ms"]["middle"] if value is not None]
    assert len(curve) > 20
    assert np.median(curve[-10:]) > np.median(curve[:10]), "the planted re-route raises the delay"
    forecasts = [value for value in evidence["rtt_ms"]["forecast"] if value is not None]
    assert len(forecasts) > 20
    assert np.isfinite(forecasts).all()
    page = tmp_path / "page.html"
    assert cli("alerts", "explain", incident, "--html", page, "--config", state)[0] == 0
    assert page.read_text().count('id="axes_') == len(evidence)
    code, _, err = cli("alerts", "explain", incident, "--html", tmp_path / "none/page.html", "--config", state)
    assert (code, err) == (
        1,
        f"error: {tmp_path / 'none/page.html'}: cannot be written (No such file or directory); name another file with --html\n",
    )


def test_an_incident_without_telemetry_is_explained_as_far_as_it_goes(state: Path, cli: Callable[..., Any]) -> None:
    """The buffer forgets before the file of alerts does."""
    shutil.rmtree(state.parent / "state/checkpoints")
    first = json.loads((state.parent / "state/events/drift.ndjson").read_text().splitlines()[0])
    code, out, _ = cli("alerts", "explain", first["data"]["incident"], "--config", state)
    assert code == 0
    assert "no telemetry" in out


@pytest.mark.parametrize(("name", "problem"), [("ff", "there is no incident"), ("1f", "2 incidents begin with"), ("", "2 incidents")])
def test_an_id_that_names_no_incident_is_refused(cli: Callable[..., Any], tmp_path: Path, name: str, problem: str) -> None:
    """The message has the ids that exist."""
    (tmp_path / "a").write_text(event("1") + event("2", incident="1f11"))
    code, _, err = cli("alerts", "explain", name, "--file", tmp_path / "a")
    assert code != 0
    assert problem in err
    assert "1f11" in err


def test_what_is_no_event_is_skipped_and_repeats_are_left_out(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """A file that anybody may have written into never ends the command."""
    hostile = ["\x00\xff", "[1]", "{}", '{"id": 1}', "[" * 100_000, json.dumps({"id": "x", "type": "t", "time": "now", "data": []}), ""]
    (tmp_path / "a").write_text(event("1") + "\n".join(hostile) + "\n" + event("1") + event("2", summary="[bold]eu[/bold]") + '{"id": "cut')
    code, out, _ = cli("alerts", "follow", "--once", "--file", tmp_path / "a")
    assert code == 0
    assert len(out.strip().splitlines()) == 2
    assert "[bold]eu[/bold]" in out
    code, _, err = cli("alerts", "follow", "--once", "--file", tmp_path / "missing")
    assert code != 0
    assert "there is no file" in err


@pytest.mark.parametrize(
    "data",
    [
        {"incident": 5}, {"incident": ["1f"]}, {"signals": "none"}, {"signals": [{"signal": "rtt_ms"}]}, {"since_s": 1e300}, {"links": 3},
        {"signals": [{"signal": "rtt_ms", "change": "shift", "size": None, "size_sigma": 1, "links": 1}]}, {"summary": ["a"]},
    ],
)  # fmt: skip
def test_data_that_no_daemon_writes_are_left_out(tmp_path: Path, cli: Callable[..., Any], data: dict[str, Any]) -> None:
    """They hide no other incident."""
    (tmp_path / "a").write_text(event("1", **data) + event("2", incident="2f00"))
    code, out, _ = cli("alerts", "follow", "--once", "--file", tmp_path / "a")
    assert (code, len(out.strip().splitlines())) == (0, 1)
    assert cli("alerts", "explain", "2f", "--file", tmp_path / "a")[0] == 0
    assert cli("alerts", "explain", "1f", "--file", tmp_path / "a")[0] != 0


def test_an_explanation_has_one_form(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """JSON and a page at once would be two results."""
    (tmp_path / "a").write_text(event("1"))
    assert cli("alerts", "explain", "1f", "--json", "--html", tmp_path / "page", "--file", tmp_path / "a")[0] == 2
    assert not (tmp_path / "page").exists()


def test_nothing_of_an_event_reaches_the_terminal_but_its_text(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """No escape sequence, extra line or half of a character; the last line counts without its end."""
    (tmp_path / "a").write_text(event("1", summary="a\x1b[2Jb\nc\ud800d\u202e").rstrip())
    code, out, _ = cli("alerts", "follow", "--once", "--file", tmp_path / "a")
    assert code == 0
    assert "a\ufffd[2Jb\ufffdc?d" in out
    assert len(out.strip().splitlines()) == 1


def test_a_file_is_followed_while_it_grows_and_when_it_is_replaced(tmp_path: Path) -> None:
    """It is followed even before it exists. A line counts when it is whole."""
    path, seen = tmp_path / "events", []

    def read() -> None:
        for one in events_in_file(path, follow=True):
            seen.append(one["id"])
            if one["id"] == "end":
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def until(count: int) -> None:
        wait_for(lambda: len(seen) >= count, f"{count} events", alive=reader.is_alive)

    path.write_text(event("1") + event("2")[:20])
    until(1)
    with path.open("a") as file:
        file.write(event("2")[20:])
    until(2)
    path.unlink()
    path.write_text(event("3"))
    until(3)
    with path.open("a") as file:
        file.write(event("4"))
    path.rename(rotated(path))  # full; nobody may have looked since the last one
    path.write_text(event("end"))
    wait_for(lambda: not reader.is_alive(), "the last event")
    assert seen == ["1", "2", "3", "4", "end"]
    assert [one["id"] for one in events_in_file(path, follow=False)] == ["3", "4", "end"]


def read_while(path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Callable[[], object]], from_start: bool = True) -> list[str]:
    """Return the ids that a follower sees if each of these steps happens between two of its looks at the file."""
    ended, left = RuntimeError("the steps are done"), iter(steps)

    def sleep(_seconds: float) -> None:
        step = next(left, None)
        if step is None:
            raise ended
        step()

    monkeypatch.setattr("streams.files.read_events.time.sleep", sleep)
    seen: list[str] = []
    with pytest.raises(RuntimeError, match="the steps are done"):
        seen.extend(one["id"] for one in events_in_file(path, follow=True, from_start=from_start))
    return seen


def add(path: Path, name: str) -> None:
    with path.open("a") as file:
        file.write(event(name))


def test_no_event_is_missed_where_a_file_is_rotated_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rotation happens at any of its steps, once or twice. A file that is truncated in place is read anew."""
    path = tmp_path / "events.ndjson"
    add(rotated(path), "1")
    add(path, "2")

    def twice() -> None:
        for name in ("4", "5"):
            add(path, name)
            path.replace(rotated(path))
        add(path, "6")

    def under_the_other_name() -> None:
        add(rotated(path), "8")  # it had been opened before the rename
        add(path, "9")

    steps: list[Callable[[], object]] = [
        lambda: add(path, "3"), twice, lambda: add(path, "7"), lambda: path.replace(rotated(path)), under_the_other_name,
        lambda: path.write_text(""), lambda: add(path, "a"),
    ]  # fmt: skip
    assert read_while(path, monkeypatch, steps) == [*"123", *"456", "7", "8", "9", "a"]


@pytest.mark.parametrize("at", range(6))
def test_a_rotation_in_the_middle_of_a_look_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Before any of the files is opened: the moved event and the next one are there, once."""
    path = tmp_path / "events.ndjson"
    add(rotated(path), "1")
    add(path, "2")
    real, opened = Path.open, iter(range(100))

    def rotating(self: Path, *arguments: Any, **named: Any) -> Any:
        if arguments == ("rb",) and next(opened) == at:
            path.replace(rotated(path))
            add(path, "3")
        return real(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", rotating)
    seen = read_while(path, monkeypatch, [lambda: None] * 6)
    assert seen == (["2", "3"] if at < 2 else ["1", "2", "3"])


def test_what_was_there_before_is_not_told_to_who_asks_for_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the start nor when the file is removed and only the one before it is left."""
    path = tmp_path / "events.ndjson"
    add(rotated(path), "1")
    add(path, "2")
    steps: list[Callable[[], object]] = [lambda: add(path, "3"), path.unlink, lambda: add(path, "4")]
    assert read_while(path, monkeypatch, steps, from_start=False) == ["3", "4"]
    path.unlink()
    assert read_while(path, monkeypatch, [lambda: None, lambda: add(path, "5")], from_start=False) == ["5"]


def test_the_file_before_is_read_alone_while_there_is_no_new_one(tmp_path: Path) -> None:
    """A daemon without room for a new file has its alerts there."""
    path = tmp_path / "events.ndjson"
    with pytest.raises(FileNotFoundError, match="there is no file of alerts"):
        list(events_in_file(path, follow=False))
    add(rotated(path), "1")
    assert [one["id"] for one in events_in_file(path, follow=False)] == ["1"]


def test_a_topic_is_read_to_its_end(kafka_broker: str, kafka_topic: Callable[..., str]) -> None:
    """Outside of any group, from its first event."""
    topic = kafka_topic(partitions=2)
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for at in range(5):
        producer.send(topic, event(str(at)).encode(), partition=at % 2)
    producer.send(topic, b"no event")
    producer.close()
    options = KafkaOptions(bootstrap_servers=(kafka_broker,))
    assert sorted(one["id"] for one in events_of_topic(topic, options, follow=False)) == ["0", "1", "2", "3", "4"]


def test_a_page_has_words_for_every_event(cli: Callable[..., Any], tmp_path: Path) -> None:
    """How the training went that an incident asked for is a sentence, and not what Python prints of a dictionary."""
    training = {"id": "r", "type": "dwcp.drift.retraining", "time": "2026-01-05T03:07:00Z"}
    training["data"] = {"incident": "1f00", "retraining": "published", "version": "v20260105_030000"}  # type: ignore[assignment]
    path, page = tmp_path / "drift.ndjson", tmp_path / "page.html"
    path.write_text(event("one") + json.dumps(training) + "\n")
    assert cli("alerts", "explain", "1f00", "--file", path, "--html", page)[0] == 0
    text = page.read_text()
    assert "retraining published: v20260105_030000" in text
    assert "{" not in text.partition("</style>")[2]
