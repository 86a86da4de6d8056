"""Ingest: telemetry records per CPU second from file and from Apache Kafka to the checkpoint, and where the time goes.

    make bench-ingest        (or: python benchmarks/ingest.py --quick)

10,000 links, 461-byte records, four partitions, lz4. Every contender runs in a process of its own, one after the other, several times. CPU
seconds are those of all threads of the process, from opening the source to the last record's checkpoint, without compiling and importing.
A stream that is so far behind sheds its forecasts (drift.shed_above_lag): that is how the daemon catches up. The shed records are in the
result, and the cost of a forecast is measured separately.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any, Final

from harness import FOLDER, Bar, arguments, environment, in_process, median_of_ratios, report, say
from parts.stream import Written, broker, fleet, write_file, write_topic

ENVIRONMENT: Final = ".venv-bench"
"""Virtual environment with Quix Streams."""
LOCK: Final = FOLDER / "requirements.lock"
OWN: Final = ("decode", "features", "drift", "buffer")
"""Stages that `own_vs_poll` sums. Buffer includes sealing the segments."""
LINKS: Final = 10_000


def measure(folder: Path, links: int, rows: int, rounds: int) -> tuple[Written, dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Return the stream, the results of each contender in each round, and the cost of a forecast."""
    quix, models = environment(ENVIRONMENT, LOCK), folder / "models"
    in_process("parts.version", {"models": str(models)})
    with broker() as kafka:
        say(f"writing {links * rows:,} records into a file and a topic")
        written = write_file(fleet(links), rows, folder / "stream.ndjson")
        write_topic(fleet(links), rows, kafka.bootstrap, "stream")
        found: dict[str, list[dict[str, Any]]] = {}
        for number in range(rounds):
            for name, module, job in contenders(folder, models, kafka.bootstrap, written.records):
                python = quix if module == "parts.quix_streams" else sys.executable
                found.setdefault(name, []).append(in_process(module, job, python))
                ran = found[name][-1]
                say(f"round {number + 1}: {name:<18}{ran['records'] / ran['cpu_s']:>10,.0f} records per CPU second")
    cost = in_process("parts.forecast_cost", {"models": str(models), "links": 400, "rows": min(rows, 100) + 30, "seconds": 2.0})
    return written, found, cost


def contenders(folder: Path, models: Path, bootstrap: str, records: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Return name, module and job of each contender in the order of a round. Those that are compared stand side by side."""

    def kafka(**more: Any) -> dict[str, Any]:
        return {"bootstrap": bootstrap, "topic": "stream", "group": uuid.uuid4().hex, "records": records} | more

    file = {"file": str(folder / "stream.ndjson"), "records": records}
    return [
        ("bare_poll", "parts.bare_poll", kafka()),
        ("kafka_live_model", "parts.daemon_run", kafka(models=str(models))),
        ("quix_streams", "parts.quix_streams", kafka()),
        ("kafka_no_model", "parts.daemon_run", kafka(models=None)),
        ("file_live_model", "parts.daemon_run", file | {"models": str(models)}),
        ("file_no_model", "parts.daemon_run", file | {"models": None}),
    ]


def figures(written: Written, links: int, found: dict[str, list[dict[str, Any]]], cost: dict[str, Any]) -> dict[str, Any]:
    """Return the medians over the rounds."""
    daemons = [name for name in found if name.startswith(("kafka", "file"))]
    live = found["kafka_live_model"]
    row_ms = cost["watched_row"]["cpu_ms"]
    return {
        "links": links,
        "records": written.records,
        "record_bytes": written.record_bytes,
        "rounds": len(live),
        "records_per_cpu_s": {name: statistics.median(ran["records"] / ran["cpu_s"] for ran in runs) for name, runs in found.items()},
        "records_per_wall_s": {name: statistics.median(ran["records"] / ran["wall_s"] for ran in runs) for name, runs in found.items()},
        "cpu_us_per_record": {name: _stages(found[name], written.records) for name in daemons},
        "stage_share": {name: _shares(found[name]) for name in daemons},
        "kafka_live_model_catching_up": {
            "watched_links": live[-1]["watched_links"],
            "rows_without_forecast": statistics.median(ran["shed"] for ran in live),
            "forecasts": statistics.median(ran["forecasts"] for ran in live),
        },
        "caught_up": {
            "forecast_cpu_ms": cost["forecast_ms"],
            "watched_row_cpu_ms": row_ms,
            "watched_links_per_core_at_one_row_a_minute": int(60_000 / row_ms),
        },
    }


def bars(found: dict[str, list[dict[str, Any]]]) -> list[Bar]:
    """Return the bars, for Kafka with the default configuration and a live model."""

    def cpu_s(name: str) -> list[float]:
        return [ran["cpu_s"] for ran in found[name]]

    own_s = [sum(ran["stage_s"][stage] for stage in OWN) for ran in found["kafka_live_model"]]
    return [
        Bar("kafka_vs_poll", median_of_ratios(cpu_s("bare_poll"), cpu_s("kafka_live_model")), ">=", 0.5),
        Bar("kafka_vs_quix", median_of_ratios(cpu_s("quix_streams"), cpu_s("kafka_live_model")), ">=", 2.5),
        Bar("own_vs_poll", median_of_ratios(own_s, cpu_s("bare_poll")), "<=", 1.0),
    ]


def _stages(runs: list[dict[str, Any]], records: int) -> dict[str, float]:
    return {stage: statistics.median(1e6 * ran["stage_s"][stage] / records for ran in runs) for stage in runs[0]["stage_s"]}


def _shares(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {stage: statistics.median(ran["stage_s"][stage] / ran["cpu_s"] for ran in runs) for stage in runs[0]["stage_s"]}


def main() -> int:
    options = arguments(__doc__)
    rows = 20 if options.quick else 100
    with tempfile.TemporaryDirectory(prefix="dwcp-bench-") as name:
        written, found, cost = measure(Path(name), LINKS, rows, options.rounds)
    result = figures(written, LINKS, found, cost)
    return report("ingest", result, bars(found), {"quixstreams": found["quix_streams"][0]["quixstreams"]})


if __name__ == "__main__":
    sys.exit(main())
