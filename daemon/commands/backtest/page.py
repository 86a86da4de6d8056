"""The page of a backtest: errors over time, with the versions marked. One file without scripts, which loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from model.report.charts import error_over_time

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2330; margin: 0 auto; max-width: 1080px; padding: 24px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { text-align: right; padding: 3px 10px; }
th:first-child, td:first-child { text-align: left; } svg { width: 100%; height: auto; }
"""


def page(name: str, results: Sequence[dict[str, Any]]) -> str:
    """Return the page.

    Args:
        name: of the recording.
        results: of the policies, see one.run.
    """
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Backtest of {escape(name)}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>Backtest of {escape(name)}</h1>")
    pairs = [(one["rows_ahead"], one["target"]) for one in results[0]["scores"]] if results else []
    for at, (rows, target) in enumerate(pairs):
        lines, ends_s = {}, results[0]["scores"][at]["over_time"]["ends_s"]
        for result in results:
            lines[result["policy"]] = result["scores"][at]["over_time"]["mae"]["published"]
        lines["average"] = results[0]["scores"][at]["over_time"]["mae"].get("average") or [None] * len(ends_s)
        marks_s = [one["time_s"] for one in results[-1]["trainings"] if one["status"] == "candidate"]
        parts.append(f"<h2>{escape(target)}, {rows} rows ahead</h2>{error_over_time(ends_s, lines, marks_s)}")
    parts.append(f"<p>Lines: versions of the policy {escape(results[-1]['policy'])}.</p>" if results else "")
    for result in results:
        parts.append(f"<h2>Trainings: {escape(result['policy'])}</h2><table><tr><th>version<th>reason<th>outcome<th>CPU s<th>rows</tr>")
        for one in result["trainings"]:
            cells = (one["version"], one["reason"], one["status"], one["cpu_s"], one["rows"])
            parts.append(f"<tr>{''.join(f'<td>{escape(str(cell))}' for cell in cells)}</tr>")
        parts.append("</table>")
    return "\n".join([*parts, "</html>"])
