"""dwcp-learner ledger: what trainings have cost and brought."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Column, Table

from daemon.config.load import Config
from daemon.errors import DaemonError
from daemon.plain_text import plain
from daemon.training.ledger import NAME, entries, joined

_UNITS: Final = {"throughput_mbps": "Mbps", "rtt_ms": "ms", "jitter_ms": "ms", "packet_loss": ""}


def show_ledger(config: Config, *, as_json: bool) -> None:
    """Print the ledgers of all members that share the state directory.

    Raises:
        DaemonError: there is none yet, or one cannot be read.
    """
    directory = config.state.directory
    paths = sorted(directory.glob(NAME.format("*")))
    try:
        found = joined(entries(paths))
    except OSError as error:
        raise DaemonError(f"{error.filename} cannot be read ({error.strerror})") from error
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found:
        raise DaemonError(f"{directory}: there is no ledger yet; a daemon begins it with its first training")
    columns = [Column(name, no_wrap=True) for name in ("ended (UTC)", "version", "reason", "outcome", "CPU", "rows")]
    table = Table(*columns, "promised", "brought, beside the version before")
    for entry in found:
        try:
            cells = _cells(entry)
        except (KeyError, TypeError, ValueError, OverflowError, OSError):  # a line that no daemon has written
            cells = ["not readable", entry["version"]]
        table.add_row(*(plain(str(cell)) for cell in cells))
    Console(soft_wrap=False).print(table)


def _cells(entry: dict[str, Any]) -> list[str]:
    proof, promised, cpu_s = entry["proof"], entry.get("promised"), entry.get("cpu_s")
    outcome = {"candidate": "published"}.get(entry["status"], entry["status"])
    if proof is not None:
        outcome = "withdrawn" if proof["failed"] else "proved"
    return [
        datetime.fromtimestamp(entry["time_s"], UTC).strftime("%Y-%m-%d %H:%M"),
        entry["version"],
        entry.get("reason") or "",
        outcome,
        f"{cpu_s:.0f} s" if cpu_s is not None else "",
        f"{entry['rows']:,}" if entry.get("rows") else "",
        f"{promised['mean']:+.1%} ({promised['low']:+.1%} to {promised['high']:+.1%})" if promised else "",
        _brought(proof) if proof is not None else "",
    ]


def _brought(proof: dict[str, Any]) -> str:
    parts = []
    for one in proof["brought"]:
        unit = _UNITS.get(one["target"], "")
        change = one["mae"] - one["mae_before"]
        of = f" ({change / one['mae_before']:+.1%})" if one["mae_before"] else ""
        parts.append(f"{one['target']} {change:+.3g} {unit}{of}".replace("  ", " "))
    return "; ".join(parts)
