"""Tables of a training for a person: what was found in the data, and what was reached."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from daemon.plain_text import plain
from features.telemetry import TARGETS
from model.windows.quality import DataQuality

TABLE_WIDTH: Final = 120
"""Characters of a line of the table of results in a file or a pipe."""


def print_quality(quality: DataQuality, console: Console) -> None:
    """Print what was found in the data."""
    least, median, most = quality.rows_per_link
    span = " to ".join(datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M") for at_s in (quality.from_s or 0, quality.until_s or 0))
    interval = "-" if quality.interval_s is None else f"{quality.interval_s:g} s"
    table = Table("", "", title="The data", show_header=False)
    table.add_row("rows", f"{quality.rows:,} of {quality.links:,} links ({least:,} to {most:,} each, median {median:,})")
    table.add_row("time", f"{span} UTC, a row every {interval}, {quality.gaps:,} gaps")
    table.add_row("windows", ", ".join(f"{count:,} {part}" for part, count in quality.windows.items()))
    table.add_row("missing", ", ".join(f"{name} {share:.1%}" for name, share in quality.missing_ratio.items() if share) or "nothing")
    console.print(table)
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in quality.findings:
        text = f"[{styles[finding.level]}]{finding.level}[/]: {plain(finding.what)}: {plain(finding.action)}"
        console.print(text, highlight=False, soft_wrap=True)


def print_report(report: dict[str, Any], output: Path) -> None:
    """Print what was reached, beside what it has to be compared with."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH) if not console.is_terminal else console.width
    performance = report["performance"]
    table = Table(
        "target", "windows", "MAE", "best baseline", "skill", "corr.", "accuracy %", "MAPE %",
        title=f"{report['version']} on the last {report['shares'][2]:.0%} of the rows, which it has not seen",
    )  # fmt: skip
    for target in TARGETS:
        figures, best = performance["targets"][target], report["best_baseline"][target]
        skill = performance["skill"][best["name"]][target] if best else None
        table.add_row(
            target,
            f"{figures['windows']:,}",
            _number(figures["mae"]),
            f"{best['name']} {best['mae']:.4g}" if best else "-",
            f"{skill['skill']:+.1%} ({skill['low']:+.1%} to {skill['high']:+.1%})" if skill and skill["low"] is not None else "-",
            _number(figures["correlation"]),
            _number(figures["accuracy_percent"]),
            _number(figures["mape_percent"]),
        )
    console.print(table)
    if "horizons" in performance:
        console.print(_horizons(performance["horizons"]))
    for note in report["notes"]:
        console.print(plain(note, lines=True), highlight=False, soft_wrap=True)
    console.print(f"Written to {output}; see {output / 'report.html'}", highlight=False, soft_wrap=True)


def _horizons(horizons: list[dict[str, Any]]) -> Table:
    """Return a table of the forecasts further ahead."""
    table = Table(
        "target", "rows ahead", "windows", "MAE", "persistence", "skill", "coverage", "interval", title="Rows ahead, and intervals"
    )
    for target in TARGETS:
        for entry in horizons:
            if not (figures := entry["targets"][target])["windows"]:
                continue
            table.add_row(
                target,
                f"{entry['rows']}",
                f"{figures['windows']:,}",
                _number(figures["mae"]),
                _number(figures["simple"].get("persistence")),
                "-" if figures["skill"] is None else f"{figures['skill']:+.1%}",
                f"{figures['coverage']:.1%}",
                _number(figures["width"]),
            )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
