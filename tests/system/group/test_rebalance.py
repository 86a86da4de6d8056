"""Rebalances of benchmarks/rebalance.py in short: a partition's state goes with it to another daemon, whatever became of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rebalance

LIMIT_S = 300.0
"""For a move that takes a second or a session time-out of 6: machines are slow at times."""


def test_partitions_move_with_their_state(kafka_broker: str, tmp_path: Path) -> None:
    """A second daemon joins and takes a share over while the first trains; the first is cut off for longer than its session, comes back
    with a state that is out of date, and is kept from writing it; so does one that is frozen; one is killed and one stopped. Every record
    once, and the features as without all that."""

    def moves(group: Any) -> None:
        group.start("a")
        assert group.await_training(LIMIT_S) == "a"
        group.start("b")
        group.alive["a"].wait_for("partition_released", LIMIT_S)
        group.alive["b"].wait_for("partition_assigned", LIMIT_S)
        group.cut("a")
        group.alive["a"].wait_for("partition_lost", LIMIT_S, or_else="checkpoint_failed")
        group.freeze("b")
        group.alive["b"].wait_for("partition_lost", LIMIT_S, or_else="checkpoint_failed")
        group.kill("b")
        group.start("c")
        group.alive["c"].wait_for("partition_assigned", LIMIT_S)
        group.stop("a")

    figures = rebalance.measure(kafka_broker, moves, 1, tmp_path)
    assert (figures["lost"], figures["duplicated"], figures["different"], figures["failures"]) == (0, 0, 0, 0)
    assert figures["handed_over"] > 0
    assert figures["taken_away"] + figures["fenced"] > 1
    assert figures["rows"] > 1000
