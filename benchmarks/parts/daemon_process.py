"""`dwcp-learner run` as a process that can be killed, its home on disk, and a producer beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from features.telemetry import Partition
from harness import FOLDER
from testkit.paths import PYTHONPATH
from testkit.remains import newest
from testkit.running import die_with_parent

POLL_S: Final = 0.05
STOP_LIMIT_S: Final = 300.0
"""Most seconds until a process ends: ten times what a daemon, or a producer that flushes, needs on a busy machine."""


class DaemonProcess:
    """One life of a daemon. As a context manager it is killed at the end.

    Args:
        command: to run.
        log: file to which its output is appended.
        environment: in addition to this process's own.
    """

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        ours = {name: value for name, value in os.environ.items() if not name.upper().startswith("DWCP_")}
        ours |= {"TF_CPP_MIN_LOG_LEVEL": "3", "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": f"{FOLDER}{os.pathsep}{PYTHONPATH}"}
        self._log, self._read = log, log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=FOLDER, env=ours | dict(environment), preexec_fn=die_with_parent
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def reported(self, event: str) -> dict[str, Any] | None:
        """Return the first event of this name in this life."""
        return next(iter(self.all_reported(event)), None)

    def all_reported(self, event: str) -> list[dict[str, Any]]:
        """Return all events of this name in this life."""
        lines = (line for line in self._lines() if f'"{event}"'.encode() in line)
        entries = (json.loads(line) for line in lines)
        return [entry for entry in entries if entry["event"] == event]

    def held(self) -> set[str]:
        """Return the partitions that this life has, by its log."""
        held: set[str] = set()
        for line in self._lines():
            event = json.loads(line)
            if event["event"] == "partition_assigned":
                held.add(event["partition"])
            elif event["event"] in ("partition_released", "partition_lost"):
                held -= set(event["partitions"])
        return held

    def has_loaded(self, library: str) -> bool:
        """Return whether a file of this library is mapped into the process."""
        return f"/{library}/" in Path(f"/proc/{self._process.pid}/maps").read_text()

    def _lines(self) -> list[bytes]:
        """Return the whole lines of this life's log that are events."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            return [line for line in log if line.startswith(b"{") and line.endswith(b"\n")]

    def wait_for(self, event: str, limit_s: float, or_else: str = "") -> str:
        """Wait for one of two events and return it. Raises RuntimeError if the process ends first, or takes too long."""
        until_s = time.monotonic() + limit_s
        while time.monotonic() < until_s and self._process.poll() is None:
            for name in filter(None, (event, or_else)):
                if self.reported(name) is not None:
                    return name
            time.sleep(POLL_S)
        raise RuntimeError(f"no {event} within {limit_s:.0f} s, exit code {self._process.poll()}:\n{last_words(self._log)}")

    def training_child(self, limit_s: float) -> psutil.Process | None:
        """Return the running training as soon as there is one; None if there is none in time, or the daemon ends."""
        until_s = time.monotonic() + limit_s
        while time.monotonic() < until_s and self._process.poll() is None:
            with suppress(psutil.Error):
                for child in psutil.Process(self._process.pid).children():
                    if "model.job" in child.cmdline():
                        return child
            time.sleep(POLL_S)
        return None

    def wait(self, limit_s: float) -> int | None:
        """Return the exit code; None while it lives."""
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, signal_name: str) -> int:
        """Send a signal that ends it in order, and return the exit code."""
        self._process.send_signal(signal.Signals[signal_name])
        code = self.wait(STOP_LIMIT_S)
        return self.kill() if code is None else code

    def freeze(self) -> None:
        """Stop the process (SIGSTOP). It keeps what it has."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> int:
        self._process.kill()
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self.kill()


class Home:
    """The home of a daemon: configuration, state, models, log.

    Args:
        folder: of configuration and log.
        sections: of the configuration.
        member: name of the group's member.
        shared: folder of state and models; None: `folder`.
    """

    def __init__(self, folder: Path, sections: Mapping[str, Mapping[str, Any]], member: str = "main", shared: Path | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.log, self.config = shared or folder, folder / "log", folder / "dwcp.toml"
        self.state = self.folder / "state"
        places = {"state": {"directory": str(self.state), "member": member}, "models": {"directory": str(self.folder / "models")}}
        fixed = places | {"http": {"enabled": False}, "log": {"format": "json"}}
        merged = {name: fixed.get(name, {}) | dict(sections.get(name, {})) for name in sections.keys() | fixed.keys()}
        self.config.write_text("".join(toml(name, section) for name, section in merged.items()))

    def start(self, faults: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> DaemonProcess:
        """Start a daemon. faults: see testkit.faulty. environment: in addition to this process's own."""
        launcher = ["-m", "daemon.cli"] if faults is None else ["-m", "testkit.faulty", json.dumps(faults)]
        return DaemonProcess([sys.executable, *launcher, "run", "--config", str(self.config)], self.log, environment or {})

    def take_the_rest(self, ends: Mapping[Partition, int], limit_s: float) -> None:
        """Run a last life until its checkpoint holds all records. Raises RuntimeError after limit_s seconds without progress."""
        with self.start() as process:
            process.wait_for("daemon_ready", limit_s)
            taken, until_s = -1, time.monotonic() + limit_s
            while (now := self._taken(ends)) < sum(ends.values()):
                if now > taken:
                    taken, until_s = now, time.monotonic() + limit_s
                if time.monotonic() > until_s or process.wait(POLL_S) is not None:
                    raise RuntimeError(f"{now} of {sum(ends.values())} records were taken:\n{self.last_words()}")
            if (code := process.stop("SIGTERM")) != 0:
                raise RuntimeError(f"exit code {code} after SIGTERM:\n{self.last_words()}")

    def _taken(self, ends: Mapping[Partition, int]) -> int:
        with suppress(OSError, IndexError):  # a checkpoint that is cleaned away meanwhile
            parts = {(part.topic, part.number): part.offset or 0 for part in newest(self.state)[1].parts}
            return sum(parts.get((partition.topic, partition.number), 0) for partition in ends)
        return 0

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of one of the files under state/events."""
        path = self.state / "events" / f"{name}.ndjson"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def all_reported(self) -> list[str]:
        """Return the names of all events of all lives."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [str(json.loads(line)["event"]) for line in lines if line.startswith("{") and line.endswith("}")]

    def last_words(self) -> str:
        """Return the end of the log."""
        return last_words(self.log)


def last_words(log: Path) -> str:
    """Return the end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:]) if log.exists() else "(no log)"


class Producer:
    """parts/steady_producer.py, or another producer that ends by SIGTERM, as a process."""

    def __init__(self, job: Mapping[str, Any], module: str = "parts.steady_producer") -> None:
        self._job, self._module = job, module

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", self._module, json.dumps(self._job)]
        self._process = subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE)
        return self

    def end(self) -> int:
        """End the producer in order and return the number of records sent."""
        return int(self.answer()["sent"])

    def answer(self) -> dict[str, Any]:
        """End the producer in order and return its last line."""
        self._process.terminate()
        out, _ = self._process.communicate(timeout=STOP_LIMIT_S)
        reported: dict[str, Any] = json.loads(out.splitlines()[-1])
        return reported

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()


def toml(name: str, section: Mapping[str, Any]) -> str:
    """Return a section as a TOML table, with a table for each mapping in it."""
    inner = {f"{name}.{key}": value for key, value in section.items() if isinstance(value, Mapping)}
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items() if not isinstance(value, Mapping))
    return f"[{name}]\n{keys}" + "".join(toml(table, value) for table, value in inner.items())
