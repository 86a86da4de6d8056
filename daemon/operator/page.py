"""The page at /: what the daemon is doing, for a person. It has no script, takes nothing from the outside, and loads itself anew."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from daemon.operator.observer import Observer

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
RELOAD_S: Final = 5
WATCHED_OF_BUDGET: Final = 2000
"""Watched links of the fleet that drift.false_alerts_per_week is for."""
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta http-equiv="refresh" content="{reload_s}"><meta name="viewport" content="width=device-width">
<title>dwcp-learner</title>
<style>
body {{ font: 1rem/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ccc; vertical-align: top }}
.well {{ color: #1b6e3c }} .ill {{ color: #a61b1b }}
</style>
<h1>dwcp-learner</h1>
<ul>{state}</ul>
<table>{figures}</table>
<h2>Alerts</h2>
{alerts}
<p><a href="/metrics">/metrics</a> <a href="/livez">/livez</a> <a href="/readyz">/readyz</a></p>
</html>
"""


def render(observer: Observer, not_live: Sequence[str], not_ready: Sequence[str]) -> str:
    """The whole document."""
    ill = dict.fromkeys([*not_live, *not_ready])
    state = "".join(f'<li class="ill">{html.escape(reason)}</li>' for reason in ill) or '<li class="well">live and ready</li>'
    figures = "".join(f'<tr><th scope="row">{name}</th><td>{html.escape(value)}</td></tr>' for name, value in _figures(observer))
    rows = [_alert(event, fields) for event, fields in reversed(observer.recent_alerts())]
    head = "<tr><th>event time</th><th>change</th><th>what</th><th>incident</th></tr>"
    alerts = f"<table>{head}{''.join(rows)}</table>" if rows else "<p>None since the start.</p>"
    return _PAGE.format(reload_s=RELOAD_S, state=state, figures=figures, alerts=alerts)


def _alert(event: str, fields: dict[str, Any]) -> str:
    told = (_time(fields["event_time_s"]), event.removeprefix("drift_"), str(fields["summary"]), str(fields["incident"])[:8])
    return f"<tr>{''.join(f'<td><bdi>{html.escape(cell)}</bdi></td>' for cell in told)}</tr>"


def _figures(observer: Observer) -> list[tuple[str, str]]:
    def of(name: str) -> float:
        value = observer.registry.get_sample_value(name)
        return math.nan if value is None else value

    def whole(name: str) -> str:
        return f"{of(name):,.0f}" if math.isfinite(of(name)) else "not known"

    watched = of("dwcp_watched_links")
    accepted = f"{of('dwcp_alerts_budget_per_week') * watched / WATCHED_OF_BUDGET:.2g} of so many watched links"
    return [
        ("records behind", whole("dwcp_lag_records")),
        ("newest event time", _time(of("dwcp_event_time_seconds"))),
        ("links", f"{whole('dwcp_links')}, of which {whole('dwcp_watched_links')} are watched"),
        ("model", _model(observer)),
        ("training", observer.training_words),
        ("open incidents", whole("dwcp_incidents_open")),
        ("alerts in the last week", f"{whole('dwcp_alerts_in_a_week')}; accepted without a cause: {accepted}"),
    ]


def _model(observer: Observer) -> str:
    pinned = observer.pinned_version
    suffix = "" if pinned is None else ", pinned: no training starts until `dwcp-learner models unpin`"
    return (observer.live_version or "none yet") + suffix


def _time(time_s: float) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "not known"
