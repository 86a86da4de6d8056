"""Rebalances of benchmarks/rebalance.py in short: a partition's state moves with it to another daemon, whatever happens to the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rebalance

LIMIT_S = 300.0
"""For a move that takes a second or a session time-out of 6: machines are slow at times."""


def test_partitions_move_with_their_state(kafka_broker: str, tmp_path: Path) -> None:
    """Every record is in the buffers once, and the features are as without moves.

    A second daemon joins and gets a share while the first trains. The first is cut off for longer than its session, returns with an
    outdated state, and is kept from writing it. Another one is frozen, one is killed and one stopped.
    """

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
