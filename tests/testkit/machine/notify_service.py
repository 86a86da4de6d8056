"""The smallest service that keeps the daemon's contract with systemd, to try the unit without the daemon. Standard library only.

It looks at its sandbox from inside and writes what it found to report.json in its state folder. It also starts a child that does what a
training must not be able to do: speak to systemd in the daemon's name, and outlive it.
The only argument: seconds that it is to spend starting.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

# An unruly child: deaf to SIGTERM, and a claimant to be the service.
CHILD = """
import os, signal, socket, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"STATUS=the child was heard\\nWATCHDOG=1", os.environ["NOTIFY_SOCKET"])
time.sleep(600)
"""


def notify(*assignments: str) -> None:
    """One datagram with one variable a line, to the socket that systemd names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto("\n".join(assignments).encode(), os.environ["NOTIFY_SOCKET"])


def attempt(action: str, path: str) -> str:
    """Try to write into a folder, list it, or read a file: "allowed", or the system's reason against it."""
    try:
        if action == "write":
            Path(path, "probe").write_text("x")
        elif action == "list":
            list(Path(path).iterdir())
        else:
            Path(path).read_bytes()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "allowed"


def look_around() -> dict[str, object]:
    """Return the sandbox as the service meets it."""
    state, config = os.environ["STATE_DIRECTORY"], os.environ["CONFIGURATION_DIRECTORY"]
    writes = [state, os.environ["CACHE_DIRECTORY"], "/tmp", config, "/etc", "/usr", "/opt/dwcp-learner/src"]
    probes = [*(("write", folder) for folder in writes), ("list", "/home"), ("read", f"{config}/dwcp-learner.toml")]
    return {
        "probes": {f"{action} {path}": attempt(action, path) for action, path in probes},
        "user_is_root": os.getuid() == 0,
        "file_mode": oct(Path(state, "probe").stat().st_mode & 0o777),
        "owners_of_processes_seen": sorted({entry.owner() for entry in Path("/proc").iterdir() if entry.name.isdigit()}),
    }


class Signals:
    """Return the requests since the last call."""

    def __init__(self) -> None:
        self.stop = self.reload = False
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True


def connect(duration_s: float) -> None:
    """A start that takes long: each sign of progress gives it another five seconds, however short TimeoutStartSec is."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < duration_s:
        notify("EXTEND_TIMEOUT_USEC=5000000", "STATUS=connecting")
        time.sleep(0.1)


def main() -> None:
    signals = Signals()
    report = look_around()
    child = subprocess.Popen([sys.executable, "-c", CHILD])
    report["child"] = child.pid
    Path(os.environ["STATE_DIRECTORY"], "report.json").write_text(json.dumps(report))
    connect(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0)
    notify("READY=1", "STATUS=waiting for telemetry")
    # A sign is due within WATCHDOG_USEC, of which the tests make 5 s. A sleep goes on after a signal, so it is short.
    while not signals.stop:
        notify("WATCHDOG=1")
        if signals.reload:
            signals.reload = False
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            print("reloaded", flush=True)
            notify("READY=1", "STATUS=reloaded")
        time.sleep(0.1)
    notify("STOPPING=1", "STATUS=stopping")
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
