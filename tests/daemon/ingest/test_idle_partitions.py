"""The watermark over partitions of which some bring nothing, or nothing but refused records, while others have come to their end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from features.event_time import ROWS_MIN
from features.telemetry import Partition
from streams.source import Polled, RawBatch
from testkit import rig, scripted

IDLE_POLLS = 3.0
LATENESS_S = 60.0
END_S = 1.7e9
VALID = [json.dumps({"timestamp": END_S + n, "node_id": "a", "peer_id": "b", "rtt_ms": 1.0}).encode() for n in range(1 - 2 * ROWS_MIN, 1)]
POISON = [b"not json"]
AHEAD, BEHIND = Partition("telemetry", 0), Partition("telemetry", 1)


@pytest.fixture
def watermarks(home: Path) -> Callable[..., list[float]]:
    """The watermark after each pass over a script: records by partition for each poll."""

    def run(script: list[dict[Partition, list[bytes]]], *, healthy: bool = True) -> list[float]:
        class Source(scripted.ScriptedSource):  # type: ignore[name-defined, misc]
            def poll(self, timeout_s: float) -> Polled:  # noqa: ARG002 - see Source
                self.polls += 1
                if self.polls == 1:
                    return Polled(assigned=frozenset({AHEAD, BEHIND}))
                given = script[self.polls - 2]
                batches = []
                for partition, values in given.items():
                    begin = self.positions[partition]
                    self.positions[partition] += len(values)
                    batches.append(RawBatch(partition, range(begin, begin + len(values)), values))
                return Polled(batches)

            def troubles(self) -> list[str]:
                return []

            def healthy(self) -> bool:
                return healthy

        made = rig.daemon_over(Source(seed=0), rig.config(home, drift={"idle_s": IDLE_POLLS, "lateness_s": LATENESS_S}))
        seen = []
        for _ in range(len(script) + 1):
            made.loop.step()
            seen.append(made.parts.group.watermark_s)
        made.loop.finish("done")
        made.journal.close()
        made.lock.release()
        return seen

    return run


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([{AHEAD: VALID}] + [{}] * 5, id="a partition that never brings anything"),
        pytest.param([{AHEAD: VALID}, {BEHIND: POISON}] + [{}] * 5, id="refused records come last"),
        pytest.param([{AHEAD: VALID}] + [{BEHIND: POISON}] * 5, id="refused records for ever"),
        pytest.param([{BEHIND: VALID[:ROWS_MIN]}, {AHEAD: VALID[ROWS_MIN:]}] + [{}] * 5, id="a partition that ends before the other"),
    ],
)
def test_the_end_of_a_stream_is_judged(watermarks: Callable[..., list[float]], script: list[dict[Partition, list[bytes]]]) -> None:
    """A partition that holds up those ahead of it does so for idle_s; the watermark then is that of the one that is furthest ahead."""
    seen = watermarks(script)
    assert seen[2] < END_S - LATENESS_S
    assert max(seen) == END_S - LATENESS_S


def test_silence_without_a_connection_tells_nothing(watermarks: Callable[..., list[float]]) -> None:
    """While the source is not connected no partition counts as idle, however long that lasts."""
    assert max(watermarks([{AHEAD: VALID}] + [{}] * 20, healthy=False)) < END_S - LATENESS_S
