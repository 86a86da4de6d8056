"""The unit file under a real systemd, in a machine of its own (testkit.machine): with a small stand-in service, and with the daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from kafka import KafkaProducer

from daemon.config.load import load as load_config
from testkit.machine.machine import Machine, unavailable
from testkit.paths import ROOT

UNIT = "dwcp-learner.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/test.conf"
STAND_IN = "/opt/dwcp-learner/bin/python /opt/dwcp-learner/src/tests/testkit/machine/notify_service.py"
REPORT = "/var/lib/dwcp-learner/report.json"


@pytest.fixture
def machine() -> Iterator[Any]:
    """A booted systemd with the unit, its user and the example config installed as README.md says. A fresh one for each test: 1-3 s."""
    reason = unavailable()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no systemd machine in CI: {reason}")
        pytest.skip(f"no systemd machine here: {reason}")
    files = {
        f"/etc/systemd/system/{UNIT}": (ROOT / "systemd" / UNIT).read_text(),
        "/etc/sysusers.d/dwcp-learner.conf": (ROOT / "systemd/dwcp-learner.sysusers").read_text(),
        "/etc/dwcp-learner/dwcp-learner.toml": (ROOT / "systemd/dwcp-learner.toml").read_text(),
    }
    with Machine(ROOT, files) as booted:
        booted.run(["systemd-sysusers"])
        booted.run("cd /etc/dwcp-learner && chgrp dwcp-learner dwcp-learner.toml && chmod 640 dwcp-learner.toml")
        yield booted


def start(machine: Any, exec_start: str | None = None, settings: str = "") -> int:
    """Start the unit, with another command or other settings in a drop-in; returns once systemd has it as active, with its process id."""
    command = f"ExecStart=\nExecStart={exec_start}\n" if exec_start else ""
    machine.write_file(DROP_IN, f"[Service]\n{command}{settings}\n")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", UNIT)
    assert machine.property(UNIT, "ActiveState") == "active"
    return int(machine.property(UNIT, "MainPID"))


def is_alive(machine: Any, pid: int) -> bool:
    return bool(machine.run(["test", "-d", f"/proc/{pid}"], check=False).returncode == 0)


def child_of_stand_in(machine: Any) -> int:
    """Process id of the stand-in's child; the sandbox has no process namespace of its own, so the number holds in the machine."""
    return int(json.loads(machine.read_file(REPORT))["child"])


def test_example_config_is_valid_and_writes_where_the_unit_allows() -> None:
    """The example config loads as it is, and its folders lie in the unit's state directory."""
    config = load_config(ROOT / "systemd/dwcp-learner.toml", environment={})
    state = Path("/var/lib/dwcp-learner")
    assert state in config.state.directory.parents
    assert state in config.models.directory.parents
    assert f"127.0.0.1:{config.http.port}/readyz" in (ROOT / "systemd/README.md").read_text(), "the port that README.md names"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_exposure_is_low() -> None:
    """The unit's exposure score is at most 2.0 of 10 (`systemd-analyze security`)."""
    unit = str(ROOT / "systemd" / UNIT)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found.group(1)) <= 2.0, done.stdout


def test_unit_verifies(machine: Any) -> None:
    """`systemd-analyze verify` reports nothing about the installed unit: no unknown setting, no missing command."""
    done = machine.run(["systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}"])
    assert done.stdout + done.stderr == ""


def test_sandbox_allows_state_cache_and_tmp_only(machine: Any) -> None:
    """The service writes to its state, its cache and a /tmp of its own, as a user who sees no one else's processes; nothing more."""
    start(machine, STAND_IN)
    report = json.loads(machine.read_file(REPORT))
    assert report["probes"] == {
        "write /var/lib/dwcp-learner": "allowed",
        "write /var/cache/dwcp-learner": "allowed",
        "write /tmp": "allowed",
        "write /etc/dwcp-learner": "Permission denied",
        "write /etc": "Read-only file system",
        "write /usr": "Read-only file system",
        "write /opt/dwcp-learner/src": "Read-only file system",
        "list /home": "Permission denied",
        "read /etc/dwcp-learner/dwcp-learner.toml": "allowed",
    }
    assert not report["user_is_root"]
    assert report["file_mode"] == "0o640", "the group reads what is published, others see nothing"
    assert report["owners_of_processes_seen"] == ["dwcp-learner"]
    assert machine.run("ls /tmp/probe", check=False).returncode != 0, "its /tmp is not the machine's"
    assert machine.run("stat -c '%U %G %a' /var/lib/dwcp-learner /var/cache/dwcp-learner").stdout.split("\n")[:2] == [
        "dwcp-learner dwcp-learner 750",
        "dwcp-learner dwcp-learner 700",
    ]


def test_start_may_take_as_long_as_it_makes_progress(machine: Any) -> None:
    """A start without a reachable broker does not time out while the daemon asks for more time and reports what it waits for."""
    machine.write_file(DROP_IN, f"[Service]\nExecStart=\nExecStart={STAND_IN} 8\nTimeoutStartSec=5\n")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "--no-block", UNIT)
    machine.wait_until(lambda: machine.property(UNIT, "StatusText") == "connecting", "the status of the start", unit=UNIT)
    assert machine.property(UNIT, "ActiveState") == "activating"
    machine.wait_until(lambda: machine.property(UNIT, "ActiveState") == "active", "ready", unit=UNIT)
    assert machine.property(UNIT, "NRestarts") == "0"


def test_only_the_daemon_itself_is_heard(machine: Any) -> None:
    """A training, which inherits the notification socket, cannot speak for the daemon: the status stays the daemon's."""
    start(machine, STAND_IN)
    machine.wait_until(lambda: "reception only permitted for main PID" in machine.journal(UNIT), "the child's message refused", unit=UNIT)
    assert machine.property(UNIT, "StatusText") == "waiting for telemetry"


def test_reload_reaches_the_daemon(machine: Any) -> None:
    """`systemctl reload` sends SIGHUP; the unit is active again afterwards, with the same process."""
    pid = start(machine, STAND_IN)
    machine.systemctl("reload", UNIT)
    machine.wait_until(lambda: machine.property(UNIT, "StatusText") == "reloaded", "the reload", unit=UNIT)
    assert machine.property(UNIT, "ActiveState") == "active"
    assert int(machine.property(UNIT, "MainPID")) == pid


def test_watchdog_restarts_a_stopped_process(machine: Any) -> None:
    """A process that hangs (SIGSTOP) is ended by the watchdog with its stack in the journal, its child too, and started again."""
    pid = start(machine, STAND_IN, "WatchdogSec=5\nRestartSec=100ms")
    child = child_of_stand_in(machine)
    machine.run(["kill", "-STOP", str(pid)])
    machine.wait_until(lambda: machine.property(UNIT, "NRestarts") == "1", "the restart", unit=UNIT)
    machine.wait_until(lambda: machine.property(UNIT, "ActiveState") == "active", "active again", unit=UNIT)
    assert int(machine.property(UNIT, "MainPID")) != pid
    assert not is_alive(machine, pid)
    assert not is_alive(machine, child), "the old child would train beside the new one"
    journal = machine.journal(UNIT)
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal, "the stack says where it hung"


def test_stop_is_clean_and_reaches_the_child(machine: Any) -> None:
    """`systemctl stop` gives the daemon SIGTERM and time to leave by itself; a child that ignores SIGTERM is gone as well."""
    pid = start(machine, STAND_IN)
    child = child_of_stand_in(machine)
    assert is_alive(machine, child)
    machine.systemctl("stop", UNIT)
    assert machine.property(UNIT, "ActiveState") == "inactive"
    assert machine.property(UNIT, "Result") == "success"
    assert machine.property(UNIT, "ExecMainStatus") == "0"
    assert not is_alive(machine, pid)
    assert not is_alive(machine, child)
    assert "stopped" in machine.journal(UNIT).splitlines()


DAEMON_CONFIG = """
[kafka]
bootstrap_servers = "{bootstrap}"
topic = "{topic}"
group_id = "{topic}"
[training]
schedule = ""
rows_min = 1000
new_rows_min = 1000000
epochs = 1
[training.expert]
windows_min = 64
gate_windows_min = 32
batch_size = 64
epoch_windows_max = 256
[state]
directory = "/var/lib/dwcp-learner/state"
checkpoint_interval_s = 1
[models]
directory = "/var/lib/dwcp-learner/models"
[http]
port = 0
[log]
format = "json"
"""
needs_daemon = pytest.mark.skipif(not (ROOT / "daemon/cli.py").exists(), reason="needs daemon/cli.py")


def telemetry(links: int, rows: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and record of `rows` seconds of each link up to now: noise around a level, which a mean forecasts better than the last value."""
    random = Random(42)
    start_s = int(time.time()) - rows - 60
    for row in range(rows):
        for link in range(links):
            record = {
                "timestamp": start_s + row,
                "region": "eu-1",
                "az": "eu-1a",
                "link_type": "fiber",
                "node_id": f"n{link}",
                "peer_id": "hub",
                "rtt_ms": 20 + 5 * link + random.gauss(0, 1),
                "jitter_ms": 2 + abs(random.gauss(0, 0.2)),
                "throughput_mbps": 100 + 10 * link + random.gauss(0, 3),
                "packet_loss": abs(random.gauss(0, 0.001)),
            }
            yield f"n{link}".encode(), json.dumps(record).encode()


@pytest.fixture
def fed_machine(machine: Any, kafka_broker: str) -> Any:
    """A machine configured for a topic with 1,200 records of 4 links on a broker of the host, whose network it shares."""
    topic = f"systemd-{uuid4().hex[:8]}"
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for key, value in telemetry(links=4, rows=300):
        producer.send(topic, key=key, value=value)
    producer.flush()
    producer.close()
    machine.write_file("/etc/dwcp-learner/dwcp-learner.toml", DAEMON_CONFIG.format(bootstrap=kafka_broker, topic=topic))
    return machine


@needs_daemon
def test_daemon_trains_inside_the_sandbox(fed_machine: Any) -> None:
    """Started from its unit as it is, the daemon consumes, trains in a child, publishes a version, and stops cleanly."""
    start(fed_machine)
    current = "/var/lib/dwcp-learner/models/CURRENT"
    fed_machine.wait_until(lambda: fed_machine.run(["test", "-e", current], check=False).returncode == 0, "a published version", unit=UNIT)
    manifest = f"/var/lib/dwcp-learner/models/{fed_machine.read_file(current).strip()}/MANIFEST.json"
    assert fed_machine.run(["stat", "-c", "%U %a", manifest]).stdout.strip() == "dwcp-learner 640"
    assert fed_machine.property(UNIT, "NRestarts") == "0"
    assert fed_machine.run("ls -A /var/lib/dwcp-learner").stdout.split() == ["models", "state"], "no library leaves files of its own"
    fed_machine.systemctl("stop", UNIT)
    assert fed_machine.property(UNIT, "Result") == "success", fed_machine.journal(UNIT)
    assert fed_machine.property(UNIT, "ExecMainStatus") == "0"


@needs_daemon
def test_daemon_reloads_and_is_restarted_by_the_watchdog(fed_machine: Any) -> None:
    """SIGHUP leaves the daemon running. Stopped by SIGSTOP, the watchdog restarts it, and it becomes ready by itself."""
    pid = start(fed_machine, settings="WatchdogSec=10\nRestartSec=100ms")
    fed_machine.systemctl("reload", UNIT)
    fed_machine.wait_until(lambda: "config_reloaded" in fed_machine.journal(UNIT), "the reload", unit=UNIT)
    assert int(fed_machine.property(UNIT, "MainPID")) == pid
    fed_machine.run(["kill", "-STOP", str(pid)])
    fed_machine.wait_until(lambda: fed_machine.property(UNIT, "NRestarts") == "1", "the restart", unit=UNIT)
    fed_machine.wait_until(lambda: fed_machine.property(UNIT, "ActiveState") == "active", "ready again", unit=UNIT)
    assert "Watchdog timeout" in fed_machine.journal(UNIT)
    fed_machine.systemctl("stop", UNIT)
    assert fed_machine.property(UNIT, "Result") == "success", fed_machine.journal(UNIT)
