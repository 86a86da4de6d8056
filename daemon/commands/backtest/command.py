"""dwcp-learner backtest: what a recording would have been worth under each policy of training."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Column, Table

from daemon.commands.backtest.one import ONLINE
from daemon.commands.backtest.page import page
from daemon.commands.backtest.policies import POLICIES
from daemon.config.load import Config
from daemon.errors import EXIT_NOTHING, DaemonError
from daemon.plain_text import plain
from model.registry.durable import atomic_write

HORIZONS: Final[tuple[int, ...]] = (1, 5, 15)
BUCKETS: Final = 40
"""Parts of equal time in which errors are given."""
AT_ONCE: Final = 2
_LAST_CHARACTERS: Final = 2_000


def backtest_file(
    path: Path, config: Config, *, policies: Sequence[str], merged: bool, keep: Path | None, html: Path | None, as_json: bool
) -> int:  # fmt: skip
    """Replay a recording under each policy, and print them side by side.

    Args:
        path: CSV or NDJSON file, or a folder of them.
        policies: of POLICIES.
        merged: read the file as one series.
        keep: folder for the results of each policy, so that an interrupted backtest goes on; None: a temporary one.
        html: page to write.

    Returns:
        The exit code: EXIT_NOTHING if nothing was judged.

    Raises:
        DaemonError: a policy does not exist, or its replay failed.
    """
    if unknown := [name for name in policies if name not in POLICIES]:
        raise DaemonError(f"{', '.join(unknown)}: no such policy; use {', '.join(POLICIES)}")
    if not path.exists():
        raise DaemonError(f"{path}: does not exist")
    document = config.model_dump(mode="json")
    with tempfile.TemporaryDirectory(prefix="dwcp-backtest-") if keep is None else nullcontext(keep) as folder:
        work = Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        horizons = [rows for rows in HORIZONS if rows in config.forecast.horizons_rows] or list(config.forecast.horizons_rows[:3])
        common = {"path": str(path.absolute()), "horizons": horizons, "buckets": BUCKETS, "merged": merged, "config": document}
        note = Console(stderr=True, quiet=as_json)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(lambda name: _result(common | {"policy": name}, work, note), policies))
    if html is not None:
        atomic_write(html, page(path.name, results).encode(), shared=True)
    print_results(results, as_json=as_json)
    return EXIT_NOTHING if not any(result["scores"] for result in results) else 0


def _result(job: dict[str, Any], work: Path, note: Console) -> dict[str, Any]:
    """Return the result of one policy, computed in a process of its own unless the folder has it for the same recording and settings."""
    path = Path(job["path"])
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    of_files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(json.dumps([job, of_files], sort_keys=True).encode()).hexdigest()[:16]
    asked = work / f"{job['policy']}-{digest}.json"
    done = asked.with_suffix(".result.json")
    if not done.exists():
        note.print(f"[dim]replaying: {job['policy']}[/dim]", highlight=False)
        atomic_write(asked, json.dumps(job).encode())
        command = [sys.executable, "-P", "-m", "daemon.commands.backtest.one", str(asked)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0 or not done.exists():
            said = made.stderr.strip()[-_LAST_CHARACTERS:]
            raise DaemonError(f"the replay of policy {job['policy']} failed ({made.returncode}): {said}")
    result: dict[str, Any] = json.loads(done.read_text())
    return result


def print_results(results: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print the policies beside each other."""
    if as_json:
        print(json.dumps(list(results), indent=2))
        return
    console = Console(soft_wrap=False)
    pairs = [(score["rows_ahead"], score["target"]) for score in results[0]["scores"]]
    if not pairs:
        for reason in results[0]["nothing_judged"] or ["no forecast met its row"]:
            console.print(f"[yellow]nothing was judged:[/yellow] {plain(reason)}", highlight=False)
        return
    columns = (Column(f"{target}, {rows} ahead") for rows, target in pairs)
    table = Table(Column("policy", no_wrap=True), *columns, "trainings", "CPU s", title="Mean absolute error")
    for name, errors, trainings, cpu_s in lines(results):
        cells = ("-" if errors.get(pair) is None else f"{errors[pair]:.4g}" for pair in pairs)
        table.add_row(name, *cells, trainings, cpu_s)
    console.print(table)


def lines(results: Sequence[dict[str, Any]]) -> list[tuple[str, dict[tuple[int, str], float | None], str, str]]:
    """Return the lines of the table: name, error by horizon and target, number of trainings and their CPU seconds."""
    found: list[tuple[str, dict[tuple[int, str], float | None], str, str]] = []
    for result in results:
        trainings = [one for one in result["trainings"] if one["status"] in ("candidate", "refused")]
        published = sum(one["status"] == "candidate" for one in trainings)
        cpu_s = sum(one["cpu_s"] or 0.0 for one in trainings)
        counted = f"{len(trainings)} ({published} published)", f"{cpu_s:.0f}"
        for method, label in (("published", "published"), ("version", "version alone")):
            errors = {(one["rows_ahead"], one["target"]): one["mae"].get(method) for one in result["scores"]}
            found.append((f"{result['policy']}: {label}", errors, *(counted if method == "published" else ("", ""))))
    first = results[0]
    for method in first["scores"][0]["mae"] if first["scores"] else ():
        if method not in ("published", "version"):
            errors = {(one["rows_ahead"], one["target"]): one["mae"].get(method) for one in first["scores"]}
            found.append((method.replace("_", " "), errors, "", ""))
    if online := next((result[ONLINE] for result in results if ONLINE in result), None):
        errors = {(one["rows_ahead"], one["target"]): online.get(f"{one['rows_ahead']} {one['target']}") for one in first["scores"]}
        found.append(("online linear model", errors, "", ""))
    return found
