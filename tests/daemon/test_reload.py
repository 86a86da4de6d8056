"""SIGHUP: never the end of a daemon, whenever it comes; what changes at once, and what is said to need a restart."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.clock import StreamClock
from daemon.config.load import Config, ConfigError
from daemon.operator.observer import Observer
from daemon.reload import needs_restart, reloader
from daemon.wiring import build
from streams.files.source import FileSource
from testkit import rig


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Messages to the service manager so far."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        heard: list[str] = []

        def messages() -> list[str]:
            while True:
                try:
                    heard.append(listening.recv(4096).decode())
                except BlockingIOError:
                    return heard

        yield messages


def test_sighup_while_the_daemon_starts(run: Callable[..., Any], no_broker: str) -> None:
    """From the first imports on, it does not end the process; a signal while the parts are built is answered by the loop."""
    daemon = run(no_broker)
    maps = Path(f"/proc/{daemon.process.pid}/maps")
    daemon.until(lambda: "pydantic_core" in maps.read_text())  # imports go on for a second from here
    while not daemon.reported("daemon_started"):
        assert daemon.process.poll() is None, "SIGHUP has ended it"
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    daemon.process.send_signal(signal.SIGHUP)  # a fast start may have been over before the first: those before its handler are ignored
    daemon.until(lambda: daemon.reported("config_reloaded"))
    assert daemon.stop() == 0


def test_a_reload_is_no_readiness(run: Callable[..., Any], no_broker: str, manager: Callable[[], list[str]]) -> None:
    """While no broker can be reached, systemd gets the reason for the wait, and neither READY=1 nor RELOADING=1."""
    daemon = run(no_broker)
    daemon.until(lambda: daemon.reported("kafka_unreachable"))
    daemon.until(lambda: any("STATUS=not connected to the source" in one for one in manager()))
    assert manager()[0] == "STATUS=starting"
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.reported("config_reloaded"))
    assert daemon.stop() == 0
    assert not [one for one in manager() if one.startswith(("READY", "RELOADING"))]


def test_a_reload_of_a_ready_daemon(
    run: Callable[..., Any], kafka_broker: str, kafka_topic: Callable[..., str], manager: Callable[[], list[str]]
) -> None:
    """systemd hears that it begins and that it is done."""
    daemon = run(kafka_broker, topic=kafka_topic())
    daemon.until(lambda: daemon.reported("daemon_ready"))
    daemon.until(lambda: manager().count("READY=1") == 1)  # which comes after the line in the log
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: manager().count("READY=1") == 2)
    assert [one.partition("\n")[0] for one in manager() if one.startswith(("READY", "RELOADING"))] == ["READY=1", "RELOADING=1", "READY=1"]
    daemon.until(lambda: daemon.reported("config_reloaded", needs_restart=[]))
    assert daemon.stop() == 0


CHANGES: dict[str, tuple[dict[str, dict[str, Any]], list[str]]] = {
    "nothing": ({}, []),
    "all of training": ({"training": {"rows_min": 7, "schedule": "0 4 * * *", "threads": 1, "cooldown_s": 5.0}}, []),
    "all of the buffer": ({"buffer": {"rows_max": 7, "age_max_s": 7.0, "open_rows_max": 7}}, []),
    "the interval of checkpoints": ({"state": {"checkpoint_interval_s": 7.0}}, []),
    "the state directory": ({"state": {"directory": Path("elsewhere")}}, ["state"]),
    "the member's name": ({"state": {"member": "other", "checkpoint_interval_s": 7.0}}, ["state"]),
    "how many versions are kept": ({"models": {"keep": 7}}, []),
    "the models folder": ({"models": {"keep": 7, "directory": Path("elsewhere")}}, ["models"]),
    "the gap": ({"links": {"gap_multiple": 7.0}}, ["links"]),
    "the time zone": ({"local_time": {"zone": "Europe/Berlin"}}, ["local_time"]),
    "several": ({"http": {"port": 7}, "kafka": {"topic": "other"}, "log": {"level": "debug"}}, ["kafka", "http", "log"]),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_needs_a_restart(case: str) -> None:
    """Just the sections in which a key differs that the running daemon goes on without."""
    changed, sections = CHANGES[case]
    assert needs_restart(Config(), Config(**changed)) == sections  # type: ignore[arg-type]


def test_what_is_told_is_what_happens(tmp_path: Path) -> None:
    """Training takes the changed limits over, and keeps the gap with which the stream's windows are made."""
    (tmp_path / "telemetry.ndjson").write_text('{"timestamp": 1767571200, "node_id": "a", "peer_id": "b", "rtt_ms": 1}\n')
    reported: list[dict[str, Any]] = []
    observer = Observer(lambda event, fields: reported.append(fields) if event == "config_reloaded" else None)
    config = rig.config(tmp_path)
    daemon = build(config, FileSource(tmp_path / "telemetry.ndjson"), StreamClock(), observer)
    changed = rig.config(
        tmp_path, links={"gap_multiple": 9.0}, models={"keep": 3}, training={"time_limit_s": 77.0, "rows_min": 55},
        state={"checkpoint_interval_s": 44.0}, buffer={"rows_max": 33},
    )  # fmt: skip
    reloader(daemon, config, lambda: changed, observer)()
    training, store = daemon.parts.training, daemon.parts.keeper.store
    assert reported == [{"needs_restart": ["links"]}]
    assert (training.config.keep_versions, training.trainer.time_limit_s, training.config.policy.rows_min) == (3, 77.0, 55)
    assert (daemon.parts.keeper.interval_s, store.rows_max) == (44.0, 33)
    assert training.config.gap_multiple == 5.0, "the pipelines keep it until the restart"
    daemon.run()


def test_days_of_a_calendar_that_have_changed_need_a_restart(tmp_path: Path) -> None:
    """The pipelines and trainings keep the days of the start. A calendar that is damaged now changes nothing, and is reported."""
    event = "BEGIN:VEVENT\nDTSTART;VALUE=DATE:{}\nEND:VEVENT\n"
    calendar, text = tmp_path / "days.ics", "BEGIN:VCALENDAR\n" + event + "END:VCALENDAR\n"
    calendar.write_text(text.format("20260501"))
    (tmp_path / "telemetry.ndjson").write_text('{"timestamp": 1767571200, "node_id": "a", "peer_id": "b", "rtt_ms": 1}\n')
    reported: list[dict[str, Any]] = []
    observer = Observer(lambda event, fields: reported.append(fields) if event == "config_reloaded" else None)
    config = rig.config(tmp_path, local_time={"holidays": str(calendar)})
    daemon = build(config, FileSource(tmp_path / "telemetry.ndjson"), StreamClock(), observer)
    changed = rig.config(tmp_path, local_time={"holidays": str(calendar)}, training={"rows_min": 55})
    apply, training = reloader(daemon, config, lambda: changed, observer), daemon.parts.training
    calendar.write_text("BEGIN:VCALENDAR\n")
    with pytest.raises(ConfigError, match=r"days\.ics: ends within VCALENDAR"):
        apply()
    assert (reported, training.config.policy.rows_min) == ([], config.training.rows_min)
    calendar.write_text(text.format("20260601"))
    apply()
    assert reported == [{"needs_restart": ["local_time"]}]
    assert training.config.policy.rows_min == 55
    assert [str(day) for day in training.config.local_time.calendars[str(calendar)]] == ["2026-05-01"]
    daemon.run()
