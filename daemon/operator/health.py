"""The health of the daemon: the answers of /livez and /readyz, the gauge dwcp_ready, and the progress that feeds the watchdog.

Not live: a thread hangs, and a restart mends it. Not ready: an operator has to mend something, a broker or a disk. Progress is a record
that was ingested, or a poll that returned and found nothing to read. A loop that only goes round makes no progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from daemon.operator.facts import Facts

STALLED_S: Final = 60.0
"""Seconds without an ingested record, although records wait, until the daemon is not ready. A poll takes .25 s, a fetch from a busy broker
some seconds."""
CHECKPOINT_S: Final = 60.0
"""Seconds of one checkpoint until the daemon is not ready: three times what 100,000 links need, 10 s on a slow disk and up to 10 s until
the broker has acknowledged the events."""
PUBLICATION_S: Final = 300.0
"""Seconds of one publication until the daemon is not ready. It verifies three graphs on their samples and writes 20 MB: a second on a local
disk, a minute on a share of another continent."""
HOPELESS: Final = 5
"""A checkpoint that hangs, or records that do not come from a broker that answers, call for a restart after this many times the watchdog's
limit (60 s). 5 minutes are longer than any time-out below (a request 30 s, a session 45 s, a rebalance 300 s), and to read as much again
costs less than to stand still. A full disk does not count: the checkpoint fails with a message, and no restart frees space."""


class Health:
    """Answers of one daemon. The loop's thread writes, any thread reads."""

    def __init__(self, watchdog_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        Args:
            watchdog_s: how long the loop may take for one pass, seconds.
            clock: monotonic seconds.
        """
        self._watchdog_s, self._clock = watchdog_s, clock
        self._progressed_s = self._served_s = self._passed_s = clock()
        self.facts: Facts | None = None
        """Facts of the last pass; None before the end of the first."""

    def note(self, facts: Facts) -> bool:
        """Record one pass.

        Returns:
            True if there was progress. Then, and only then, the watchdog is fed.
        """
        now_s = self._clock()
        before_s = self._progressed_s
        self._progressed_s = max(before_s, now_s - facts.silent_s)
        if facts.ingested or facts.waits or facts.lag in (0, None) or not facts.connected:
            self._served_s = now_s  # there was nothing to read, or the source reports the reason itself
        self._passed_s, self.facts = now_s, facts
        return self._progressed_s > before_s and not self.not_live()

    def not_live(self) -> list[str]:
        """Return why a restart is called for, each reason with what to do; empty if it is not."""
        facts, hopeless_s = self.facts, HOPELESS * self._watchdog_s
        silent_s, starved_s, reasons = self._clock() - self._progressed_s, self._starved_s(), []
        if silent_s > self._watchdog_s:
            who = "the thread of the source hangs" if facts is not None and facts.silent_s else "the loop hangs"
            reasons.append(f"no progress for {silent_s:.0f} s, {who}: restart the daemon, nothing is lost; the watchdog of systemd does so")
        if facts is not None and facts.checkpoint_s > hopeless_s:
            reasons.append(f"{_hanging_checkpoint(facts.checkpoint_s)}; restart the daemon once it does")
        if facts is not None and starved_s > hopeless_s and not facts.problems:
            reasons.append(f"{_starved(facts, starved_s)}; restart the daemon")
        return reasons

    def not_ready(self) -> list[str]:
        """Return why the daemon does not do all of its work, each reason with what to do; empty if it does."""
        facts, reasons, starved_s = self.facts, self.not_live(), self._starved_s()
        if facts is None:
            return [*reasons, "the daemon is starting, and has not asked its source for records yet: wait, or see its log"]
        if CHECKPOINT_S < facts.checkpoint_s <= HOPELESS * self._watchdog_s:
            reasons.append(_hanging_checkpoint(facts.checkpoint_s))
        if facts.publication_s > PUBLICATION_S:
            reasons.append(
                f"a new version has been written for {facts.publication_s:.0f} s and forecasts come from the old one: see that the disk of "
                "models.directory answers"
            )
        if starved_s > STALLED_S and (starved_s <= HOPELESS * self._watchdog_s or facts.problems):
            reasons.append(_starved(facts, starved_s))
        return [*reasons, *facts.problems, *facts.troubles]

    def _starved_s(self) -> float:
        """Seconds for which passes of the loop have returned without the records that wait."""
        return self._passed_s - self._served_s


def _starved(facts: Facts, seconds: float) -> str:
    behind = f"no record was read for {seconds:.0f} s, {facts.lag} wait"
    if facts.paused:
        return f"{behind}: the source is paused until open rows and events are written; see that disk and broker accept them"
    return f"{behind}: see the log of the broker that leads the topic's partitions"


def _hanging_checkpoint(seconds: float) -> str:
    return f"a checkpoint has been written for {seconds:.0f} s, and nothing becomes durable: see that the disk of state.directory answers"
