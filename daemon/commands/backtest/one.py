"""One policy of a backtest, in a process of its own: `python -m daemon.commands.backtest.one JOB.json`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from daemon.clock import StreamClock
from daemon.commands.backtest.online import online_forecasts
from daemon.commands.backtest.policies import configured
from daemon.commands.backtest.scores import Rows, Table, scored
from daemon.commands.replay import POLL_RECORDS, POLL_RECORDS_MIN, POLLS_MIN, adapted, run_replay, written_s
from daemon.config.load import Config
from daemon.operator.logs import configure_logging
from daemon.training.ledger import entries, joined
from features.telemetry import TARGETS
from model.registry.durable import atomic_write
from streams.files.source import FileSource

ONLINE = "online_linear"


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Replay a recording under one policy.

    Args:
        job: path, policy, horizons, buckets, merged, config (a document of Config).

    Returns:
        scores (see `scores.scored`), trainings (see `ledger.joined`), cpu_s, and of the policy "frozen" the scores of the online rival.
    """
    configure_logging("error", "json", sys.stderr)
    path, rows = Path(job["path"]), Rows(tuple(job["horizons"]))
    source = FileSource(path, None, max_records=POLL_RECORDS)
    count = source.lag() or 0
    source.max_records = min(POLL_RECORDS, max(POLL_RECORDS_MIN, -(-count // POLLS_MIN)))
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="dwcp-backtest-") as name:
        config = configured(job["policy"], adapted(Config(**job["config"]), Path(name), count, merged=job["merged"]), count)
        report = run_replay(source, StreamClock(written_s(path)), config, True, listener=rows)
        trainings = joined(entries(sorted((Path(name) / "state").glob("ledger-*.ndjson"))))
    table = rows.table()
    result = {
        "policy": job["policy"],
        "trainings": trainings,
        "cpu_s": round(time.process_time() - began, 1),
        "interrupted": report["interrupted"],
        "nothing_judged": report["nothing_judged"],
        "scores": [] if table is None else scored(table, job["buckets"]),
    }
    if job["policy"] == "frozen" and table is not None:
        result[ONLINE] = _online(table)
    return result


def _online(table: Table) -> dict[str, float]:
    """Return the mean absolute error of the online rival by horizon and target, as "5 rtt_ms", on the rows that all methods forecast."""
    made, found = online_forecasts(table), {}
    for at, horizon in enumerate(table.horizons):
        for target, name in enumerate(TARGETS):
            known = (
                np.isfinite(table.targets[:, at, target])
                & np.isfinite(table.forecasts[:, at, target, 0])
                & np.isfinite(made[:, at, target])
            )
            if known.any():
                found[f"{horizon} {name}"] = float(np.abs(made[known, at, target] - table.targets[known, at, target]).mean())
    return found


if __name__ == "__main__":
    asked = Path(sys.argv[1])
    atomic_write(asked.with_suffix(".result.json"), json.dumps(run(json.loads(asked.read_text()))).encode())
