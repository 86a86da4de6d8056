"""What asks for a training, and for how long it has to wait."""

from __future__ import annotations

from dataclasses import replace

from daemon.training.memory import UNPAID_MOST, Memory
from drift.messages import IncidentChange


def settled(link: str) -> IncidentChange:
    """The end of an incident of one link whose new level lasts."""
    return IncidentChange("closed", link, 1, "link", "network", "eu", 2.0, 1.0, 1.0, (), (), (link,), 1, (), 3, 9, "settled")


def test_single_links_whose_new_level_lasts_ask_together() -> None:
    """A fleet of one link asks at once, one of a hundred links once two have settled; what has recovered does not count."""
    alone = Memory(rows=7)
    alone.observe(settled("a"), monitored=1)
    assert (alone.drift_at_rows, alone.asked) == (7, [["a", 7]])
    fleet = Memory(rows=7)
    fleet.observe(replace(settled("a"), outcome="recovered"), monitored=100)
    fleet.observe(replace(settled("b"), kind="updated", outcome=""), monitored=100)
    fleet.observe(settled("c"), monitored=100)
    fleet.observe(settled("c"), monitored=100)
    assert fleet.drift_at_rows is None, "one link of a hundred is not enough"
    fleet.observe(settled("d"), monitored=100)
    assert [one for one, _ in fleet.asked] == ["c", "d"]
    fleet.observe(settled("d"), monitored=100)
    assert [one for one, _ in fleet.asked] == ["c", "d"], "each asks once"


def test_links_that_settled_before_a_training_are_answered_by_it() -> None:
    memory = Memory(rows=7)
    memory.observe(settled("a"), monitored=100)
    memory.trained(0.0, 7, (), paid=True)
    memory.observe(settled("b"), monitored=100)
    assert memory.asked == []


def test_a_version_that_is_behind_asks_until_it_is_not() -> None:
    """It is reported once; each training that gives nothing better, or whose version is withdrawn, makes the next one wait longer."""
    memory = Memory(rows=100)
    assert memory.observe_behind(behind=True)
    memory.rows = 150
    assert not memory.observe_behind(behind=True)
    assert memory.behind_at_rows == 100
    memory.trained(0.0, 150, (), paid=False)
    assert (memory.behind_at_rows, memory.unpaid) == (150, 1)
    memory.wait_for_more_rows(170)
    assert memory.behind_at_rows == 170, "the same rows would fail again"
    for _ in range(9):
        memory.trained(0.0, 170, (), paid=False)
    assert memory.unpaid == UNPAID_MOST
    memory.trained(0.0, 170, (), paid=True)
    assert memory.unpaid == 0
    memory.rows = 300
    memory.withdrawn()
    assert (memory.behind_at_rows, memory.unpaid, memory.rows_trained) == (None, 1, 300)
    memory.observe_behind(behind=True)
    memory.observe_behind(behind=False)
    assert memory.behind_at_rows is None
