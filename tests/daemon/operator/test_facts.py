"""Operators' views of a daemon in a given state: the answers of /livez and /readyz, gauges, the status line and the page."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import pytest

from daemon.operator.facts import Facts
from daemon.operator.gauges import show, status_line
from daemon.operator.health import CHECKPOINT_S, HOPELESS, PUBLICATION_S, STALLED_S, Health
from daemon.operator.observer import Observer
from daemon.operator.page import render
from daemon.training.progress import Running

LIMIT_S: Final = 60.0
WELL: Final = Facts(
    now_s=0.0, ingested=True, waits=False, silent_s=0.0, connected=True, paused=False, lag=0, held=0, keyless=0, problems=(), troubles=(),
    checkpoint_since_s=None, publication_since_s=None, open_rows=7, event_time_s=1_767_571_200.0, links=500, monitored_links=400,
    split_links=2, moved_links=3, open_incidents=4, late_samples=5, alerts_in_a_week=3, strictness=1, trust={"eu": 0.5},
    live_version="v20260101_000000",
    pinned_version=None, running=None, training_busy=False, training_waits_for="new rows",
)  # fmt: skip
WAITING: Final = replace(WELL, ingested=False, lag=7)


@pytest.mark.parametrize(
    ("facts", "seconds", "live", "ready"),
    [
        (WELL, 1000.0, "", ""),
        (replace(WELL, ingested=False), 1000.0, "", ""),  # a quiet stream
        (replace(WAITING, waits=True), 1000.0, "", ""),  # replay: the stream waits for a training
        (WAITING, STALLED_S - 2, "", ""),
        (WAITING, STALLED_S + 2, "", "7 wait"),
        (WAITING, HOPELESS * LIMIT_S + 2, "7 wait", "7 wait"),
        (replace(WAITING, paused=True), STALLED_S + 2, "", "is paused until"),
        (replace(WAITING, paused=True, problems=("disk full",)), 1000.0, "", "disk full"),  # no restart frees space
        (replace(WAITING, connected=False, lag=None, troubles=("no broker",)), 1000.0, "", "no broker"),  # nor brings a broker back
        (replace(WELL, checkpoint_since_s=-CHECKPOINT_S - 1), 1.0, "", "nothing becomes durable"),
        (replace(WELL, checkpoint_since_s=-HOPELESS * LIMIT_S - 1), 1.0, "nothing becomes durable", "nothing becomes durable"),
        (replace(WELL, publication_since_s=-PUBLICATION_S - 1), 1.0, "", "the disk of models.directory"),
        (
            replace(WELL, ingested=False, silent_s=LIMIT_S + 1),
            LIMIT_S + 1,
            "the thread of the source hangs",
            "the thread of the source hangs",
        ),
        (replace(WELL, ingested=False, silent_s=5.0), 1000.0, "", ""),  # a slow broker: it comes back
    ],
)
def test_what_lasts_how_long(facts: Facts, seconds: float, live: str, ready: str) -> None:
    """Both answers after passes of that kind, one a second."""
    now_s = 0.0
    health = Health(LIMIT_S, lambda: now_s)
    fed = health.note(WELL)
    while now_s < seconds:
        now_s += 1.0
        fed = health.note(replace(facts, silent_s=min(facts.silent_s, now_s)))
    for reasons, expected in ((health.not_live(), live), (health.not_ready(), ready)):
        assert bool(reasons) == bool(expected)
        assert expected in "\n".join(reasons)
    assert fed == (not live)


def gauges(facts: Facts) -> dict[str, float]:
    """Every gauge without labels, after `show`."""
    observer = Observer()
    show(facts, observer)
    return {sample.name: sample.value for family in observer.registry.collect() for sample in family.samples if not sample.labels}


def test_a_daemon_that_starts_is_live_and_not_ready() -> None:
    """It is so until its first pass is done: the source has not been asked yet, and an unknown figure is not 0."""
    health, observer = Health(LIMIT_S), Observer()
    observer.watch(health.not_live, health.not_ready)
    values = observer.registry.get_sample_value
    assert health.not_live() == []
    assert health.not_ready()[0].startswith("the daemon is starting")
    assert (values("dwcp_live"), values("dwcp_ready")) == (1.0, 0.0)
    for unknown in ("dwcp_lag_records", "dwcp_event_time_seconds"):
        value = values(unknown)
        assert value is not None
        assert math.isnan(value)
    page = render(observer, health.facts, health.not_live(), health.not_ready())
    assert "the daemon is starting" in page
    health.note(WELL)
    assert health.not_ready() == []
    assert values("dwcp_ready") == 1.0


def test_gauges_are_the_facts() -> None:
    """Each under its metric's name; what is not known is not 0."""
    shown = gauges(replace(WELL, lag=70, held=10, keyless=6))
    expected = {
        "dwcp_links": 500, "dwcp_watched_links": 400, "dwcp_links_split": 2, "dwcp_links_moved": 3, "dwcp_buffer_open_rows": 7,
        "dwcp_incidents_open": 4, "dwcp_region_samples_late": 5, "dwcp_alerts_in_a_week": 3,
        "dwcp_alerts_strictness": 1, "dwcp_lag_records": 80,
        "dwcp_lag_held_records": 10, "dwcp_records_without_key_total": 6, "dwcp_event_time_seconds": 1_767_571_200.0,
    }  # fmt: skip
    assert {name: shown[name] for name in expected} == expected
    unknown = gauges(replace(WELL, lag=None, event_time_s=-math.inf))
    assert math.isnan(unknown["dwcp_lag_records"])
    assert math.isnan(unknown["dwcp_event_time_seconds"])


@pytest.mark.parametrize(
    ("facts", "ready", "line"),
    [
        (WELL, True, "500 links, model v20260101_000000, 4 open incidents, training waits for new rows"),
        (replace(WELL, lag=9), True, "500 links, model v20260101_000000, 4 open incidents, training waits for new rows, 9 records behind"),
        (replace(WELL, training_waits_for=""), False, "not ready, see /readyz and the log: 500 links, model v20260101_000000, "
         "4 open incidents, training waits for the first records"),
        (replace(WELL, connected=False, live_version=None, running=Running("v2", 61.4, 9.0, None)), False,
         "not connected to the source, see the log: 500 links, model none, 4 open incidents, training v2 for 61 s"),
        (replace(WELL, publication_since_s=-1.0), True, "500 links, model v20260101_000000, 4 open incidents, publishing"),
        (replace(WELL, training_busy=True), True, "500 links, model v20260101_000000, 4 open incidents, training starts"),
    ],
)  # fmt: skip
def test_the_status_line(facts: Facts, ready: bool, line: str) -> None:
    """The line has the problem first, then the figures."""
    assert status_line(facts, ready=ready) == line


def test_the_page_shows_facts_and_alerts() -> None:
    """For a person: why it is not ready, the live version, alerts beside their budget, the newest alert first."""
    observer = Observer()
    page = render(observer, replace(WELL, live_version=None, lag=None, event_time_s=-math.inf), [], [])
    for part in ("live and ready", "none yet", "None since the start"):
        assert part in page
    assert page.count("<td>not known</td>") == 2
    observer.alerts_budget.set(0.5)
    for number in range(60):
        observer.emit(
            "drift_opened", summary=f"<script>alert({number})</script>", incident="abcdef0123456789", event_time_s=1_767_571_200.0
        )
    page = render(observer, WELL, [], ["the disk is full: free <some>"])
    assert "the disk is full: free &lt;some&gt;" in page
    assert "v20260101_000000" in page
    assert "pinned" not in page
    assert "3; budget of false alerts for this number of monitored links: 0.1" in page
    assert "<script" not in page
    assert "alert(9)" not in page, "only the newest"
    assert page.index("alert(59)") < page.index("alert(58)")
    assert "2026-01-05 00:00:00Z" in page


def test_the_page_shows_that_a_version_is_pinned() -> None:
    """Beside its name, with the way out."""
    page = render(Observer(), replace(WELL, pinned_version="v20260101_000000"), [], [])
    assert "v20260101_000000, pinned: no training starts until `dwcp-learner models unpin`" in page
