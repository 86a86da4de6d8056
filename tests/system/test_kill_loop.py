"""The kill loop of benchmarks/kill.py in short: a daemon on Apache Kafka that dies again and again loses nothing and repeats nothing."""

from __future__ import annotations

from pathlib import Path

import kill
from parts import consistency
from testkit.versions import publish


def test_six_kills(kafka_broker: str, tmp_path: Path) -> None:
    """After kills at random moments and at a step, and after SIGTERM and SIGINT: every record once, and all as without a stop."""
    home = tmp_path / "home"
    home.mkdir()
    publish(home, "v20260101_000000")
    figures = kill.measure(kafka_broker, kill.Plan(kills=6, seed=3, trainings=False), home)
    assert figures["kills"] >= 6
    assert (figures["lost"], figures["duplicated"], figures["different"], figures["failures"], figures["unacknowledged"]) == (0, 0, 0, 0, 0)
    assert figures["rows"] > 1000
    assert figures["dead_letters"] > 0


def test_the_check_finds_what_it_is_there_for() -> None:
    """A missing row, a repeated row and a row without a record are found and named."""
    compare = consistency.compare
    found = compare([(0, 0, 1.0), (0, 1, 2.0), (1, 0, 1.0)], [(0, 1, 2.0), (0, 1, 2.0), (1, 0, 1.5)])
    assert (found.lost, found.duplicated, found.unexpected) == (2, 1, 1)
    assert found.examples == ["lost 0:0", "lost 1:0", "duplicated 0:1", "unexpected 1:0"]


def test_two_states_that_differ_are_told_apart_by_name() -> None:
    unlike = consistency.unlike
    one = {"watched": {"eu": [1, float("nan"), 0.0]}, "late": 3}
    assert unlike("regions", one, {"late": 3, "watched": {"eu": [1, float("nan"), 0.0]}}) == []
    other = {"watched": {"eu": [1, 2.0, -0.0]}, "late": 3, "more": None}
    assert unlike("regions", one, other) == ["regions.watched.eu.1: nan against 2.0", "regions.watched.eu.2: 0.0 against -0.0"]
    assert unlike("regions", one, {"watched": {"eu": []}, "late": 3}) == [f"regions.watched.eu: {one['watched']['eu']} against []"]
