"""The page at / for a person: state, figures and alerts. It has no script, loads nothing from elsewhere, and reloads itself."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from daemon.operator.facts import Facts
from daemon.operator.observer import Observer
from drift.region.policy import BUDGET_LINKS

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
RELOAD_S: Final = 5
LEAST_TRUSTED: Final = 3
"""Regions that the page names because their version has the least weight."""
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


def render(observer: Observer, facts: Facts | None, not_live: Sequence[str], not_ready: Sequence[str]) -> str:
    """Return the whole document.

    Args:
        observer: for the recent alerts, and the budget of false alerts.
        facts: facts of the last pass; None before the first.
        not_live, not_ready: see `Health`.
    """
    ill = dict.fromkeys([*not_live, *not_ready])
    state = "".join(f'<li class="ill">{html.escape(reason)}</li>' for reason in ill) or '<li class="well">live and ready</li>'
    rows = _figures(facts, observer.registry.get_sample_value("dwcp_alerts_budget_per_week") or 0.0) if facts is not None else []
    figures = "".join(f'<tr><th scope="row">{name}</th><td>{html.escape(value)}</td></tr>' for name, value in rows)
    changes = [_alert(event, fields) for event, fields in reversed(observer.recent_alerts())]
    head = "<tr><th>event time</th><th>change</th><th>what</th><th>incident</th></tr>"
    alerts = f"<table>{head}{''.join(changes)}</table>" if changes else "<p>None since the start.</p>"
    return _PAGE.format(reload_s=RELOAD_S, state=state, figures=figures, alerts=alerts)


def _alert(event: str, fields: dict[str, Any]) -> str:
    cells = (_time(fields["event_time_s"]), event.removeprefix("drift_"), str(fields["summary"]), str(fields["incident"])[:8])
    return f"<tr>{''.join(f'<td><bdi>{html.escape(cell)}</bdi></td>' for cell in cells)}</tr>"


def _figures(facts: Facts, budget_per_week: float) -> list[tuple[str, str]]:
    budget = budget_per_week * facts.monitored_links / BUDGET_LINKS
    stricter = (
        f"; that is many times the budget, so alerts need more evidence now (level {facts.strictness} of 3)" if facts.strictness else ""
    )
    pinned = "" if facts.pinned_version is None else ", pinned: no training starts until `dwcp-learner models unpin`"
    return [
        ("records behind", "not known" if facts.behind is None else f"{facts.behind:,}"),
        ("newest event time", _time(facts.event_time_s)),
        ("links", f"{facts.links:,}, of which {facts.monitored_links:,} are monitored"),
        ("model", (facts.live_version or "none yet") + pinned),
        ("weight of the model in what is published", _trust(facts.trust)),
        ("training", facts.training),
        ("open incidents", f"{facts.open_incidents:,}"),
        (
            "alerts in the last week",
            f"{facts.alerts_in_a_week:,}; budget of false alerts for this number of monitored links: {budget:.2g}{stricter}",
        ),
    ]


def _trust(trust: Mapping[str, float]) -> str:
    """Return the mean weight over regions, and the least ones by name."""
    if not trust:
        return "nothing was learnt yet"
    least = sorted(trust.items(), key=lambda item: item[1])[:LEAST_TRUSTED]
    named = ", ".join(f"{region or 'no region'} {share:.0%}" for region, share in least)
    return f"{statistics.fmean(trust.values()):.0%}" + (f"; least in {named}" if len(trust) > 1 else "")


def _time(time_s: float) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "not known"
