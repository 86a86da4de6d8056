"""`dwcp-learner run` as a process, for tests from outside."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testkit.kafka.broker import free_port
from testkit.paths import PYTHONPATH
from testkit.waiting import LIMIT_S, wait_for


def die_with_parent() -> None:
    """End with the test run, and the training with this process, if the test run is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


class Running:
    """`dwcp-learner run` with a configuration, a log and an HTTP address of its own.

    Args:
        folder: for its files; its working directory.
        kafka: servers.
        log: name of the log and of the configuration.
        faults: see testkit.faulty.
        changed: arguments of configure.
    """

    def __init__(self, folder: Path, kafka: str, log: str = "log", *, faults: dict[str, Any] | None = None, **changed: str) -> None:
        self.port = free_port()
        self.config, self.kafka = folder / f"{log}.toml", kafka
        self.configure(**changed)
        self.log = folder / log
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("DWCP_")}
        environment["PYTHONPATH"] = PYTHONPATH
        with self.log.open("wb") as out:
            launcher = ["-m", "daemon.cli"] if faults is None else ["-m", "testkit.faulty", json.dumps(faults)]
            command = [sys.executable, *launcher, "run", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=environment, preexec_fn=die_with_parent)

    def configure(self, topic: str = "dwcp.telemetry", more: str = "", kafka_more: str = "", events: str = "file") -> None:
        """Write the configuration.

        Args:
            topic: the telemetry's.
            more: further sections.
            kafka_more: further lines of the section kafka.
            events: destination of events, or lines of that section.
        """
        self.config.write_text(
            f"[kafka]\nbootstrap_servers = '{self.kafka}'\ntopic = '{topic}'\n{kafka_more}\n[http]\nport = {self.port}\n"
            f"[events]\n{events if '=' in events else f'to = {events!r}'}\n[log]\nformat = 'json'\n{more}"
        )

    def reported(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """Return the logged events of a name with these fields."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name and fields.items() <= line.items()]

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition is true and return its value. The wait fails if the process ends."""
        return wait_for(condition, lambda: self.log.read_text()[-5000:], alive=lambda: self.process.poll() is None)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of an HTTP request."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=LIMIT_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def reload(self, text: str) -> None:
        """Replace the configuration and send SIGHUP."""
        self.config.write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(LIMIT_S)

    def kill(self) -> None:
        """Kill the process, and with it its training. Works on a stopped process too."""
        self.process.kill()
        self.process.wait()
