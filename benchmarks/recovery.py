"""Recovery: seconds from kill -9 until a restarted daemon has its partitions with their state, and is ready.

    make bench-recovery        (or: python benchmarks/recovery.py --quick)

A daemon on Apache Kafka reads a fleet, is killed, and started again at once, as by a service manager. The time includes the start of
Python, the imports, every checksum of the newest checkpoint, joining the group and reading the state. TensorFlow is not imported.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from harness import Bar, arguments, in_process, report, say
from parts.consistency import read_topic
from parts.daemon_process import DaemonProcess, Home
from parts.stream import PARTITIONS, broker, fleet, write_topic

LINKS: Final = {"1k": 1_000, "10k": 10_000, "100k": 100_000}
ROWS: Final = 3
"""Rows of each link: its ring has the same size with one row as with all."""
LIMIT_S: Final = 600.0
NEVER: Final = 2**62


def recovery_s(home: Home, rounds: int) -> list[float]:
    """Return the seconds from kill to ready of each round. Raises RuntimeError if TensorFlow was loaded, or a partition had no state."""
    seconds = []
    process = home.start()
    ready(process)
    for _ in range(rounds):
        process.kill()
        began_s = time.monotonic()
        process = home.start()
        ready(process)
        seconds.append(time.monotonic() - began_s)
        if process.has_loaded("tensorflow"):
            raise RuntimeError("TensorFlow is on the path to ready")
    process.stop("SIGTERM")
    return seconds


def ready(process: DaemonProcess) -> None:
    """Wait until a daemon is ready and has every partition."""
    process.wait_for("daemon_ready", LIMIT_S)
    until_s = time.monotonic() + LIMIT_S
    while len(process.all_reported("partition_assigned")) < PARTITIONS:
        if time.monotonic() > until_s:
            raise RuntimeError("no partitions")
        time.sleep(0.01)


def measure(bootstrap: str, name: str, links: int, rounds: int, models: Path) -> dict[str, Any]:
    """Return the figures of a fleet."""
    topic = f"recovery.{name}"
    written = write_topic(fleet(links), ROWS, bootstrap, topic)
    with tempfile.TemporaryDirectory(prefix="dwcp-recovery-") as folder:
        home = Home(
            Path(folder) / "home",
            {
                "kafka": {"bootstrap_servers": bootstrap, "topic": topic, "group_id": topic},
                "events": {"to": "file"},
                "training": {"schedule": "", "rows_min": NEVER, "drift_rows_min": NEVER},
                "models": {"directory": str(models)},
            },
        )
        home.take_the_rest({partition: len(values) for partition, values in read_topic(bootstrap, topic).items()}, LIMIT_S)
        newest = max(home.state.glob("checkpoints/*-main"))
        state_bytes = sum(path.stat().st_size for path in newest.iterdir())
        seconds = recovery_s(home, rounds)
    say(f"{name}: {written.records} records, {', '.join(f'{one:.2f}' for one in seconds)} s")
    return {"links": links, "state_mb": state_bytes / 1e6, "seconds": statistics.median(seconds), "worst_s": max(seconds)}


def main() -> int:
    given = arguments(__doc__)
    sizes = dict(list(LINKS.items())[: 1 if given.quick else 3])
    with broker() as kafka, tempfile.TemporaryDirectory(prefix="dwcp-models-") as folder:
        in_process("parts.version", {"models": f"{folder}/models"})
        fleets = {name: measure(kafka.bootstrap, name, links, given.rounds, Path(folder) / "models") for name, links in sizes.items()}
    figures = {f"recovery_s_{name}": one["seconds"] for name, one in fleets.items()} | {"fleets": list(fleets.values())}
    return report("recovery", figures, [Bar("recovery_s_10k", figures.get("recovery_s_10k"), "<=", 5)])


if __name__ == "__main__":
    sys.exit(main())
