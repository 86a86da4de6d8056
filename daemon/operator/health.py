"""Whether the daemon does its work: what /livez, /readyz, the watchdog and dwcp_ready go by.

Not live is what a restart mends: a thread that hangs. Not ready is what an operator has to mend: a broker, a disk. Progress is a record
that was taken, or a poll that came back with nothing to read; a loop that only goes round is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

STALLED_S: Final = 60.0
"""Nothing was taken for so long although there are records. A poll takes .25 s, a fetch from a busy broker some seconds."""
CHECKPOINT_S: Final = 60.0
"""That of 100,000 links takes 10 s on a slow disk, and waits up to 10 s more for the broker that takes the events: a factor of 3."""
PUBLICATION_S: Final = 300.0
"""Three graphs are verified on their samples and 20 MB are written: a second. A share of another continent takes a minute."""
HOPELESS: Final = 5
"""Times the watchdog's limit (60 s), after which a hanging checkpoint, or records that do not come from a broker that answers, are a
matter for a restart: 5 minutes are longer than any time limit below (a request 30 s, a session 45 s, a rebalance 300 s), and reading as
much again costs less than standing still. A disk that is full is not: the checkpoint fails, says so, and no restart frees space."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass of the loop has seen.

    took: records were taken. waits: nothing is to be read (a source that has ended, a training that is waited for). silent_s: see
    Polled. connected: the source can give records. lag: None where unknown. checkpoint_s, publication_s: for how long one has been
    under way. problems: what was met, and what to do, in words: no record is taken meanwhile, and a restart would not help. troubles:
    the same of the source and the live version, which explains no standstill.
    """

    took: bool
    waits: bool
    silent_s: float
    connected: bool
    lag: int | None
    paused: bool
    checkpoint_s: float
    publication_s: float
    problems: tuple[str, ...]
    troubles: tuple[str, ...]


class Health:
    """Written by the loop's thread, read by any."""

    def __init__(self, watchdog_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """watchdog_s: how long the loop may take for one pass."""
        self._watchdog_s, self._clock = watchdog_s, clock
        self._progressed_s = self._served_s = self._passed_s = clock()
        self._seen = Pass(False, True, 0.0, False, None, False, 0.0, 0.0, (), ())
        self._starting = True

    def note(self, seen: Pass) -> bool:
        """Takes in one pass. True where it was progress: then, and only then, the watchdog is fed."""
        now_s = self._clock()
        before_s = self._progressed_s
        self._progressed_s = max(before_s, now_s - seen.silent_s)
        if seen.took or seen.waits or seen.lag in (0, None) or not seen.connected:
            self._served_s = now_s  # there was nothing to take, or the source says itself why
        self._passed_s, self._seen, self._starting = now_s, seen, False
        return self._progressed_s > before_s and not self.not_live()

    def not_live(self) -> list[str]:
        """Why a restart is called for; empty: it is not."""
        seen, now_s, hopeless_s = self._seen, self._clock(), HOPELESS * self._watchdog_s
        silent_s, starved_s, reasons = now_s - self._progressed_s, self._starved_s(), []
        if silent_s > self._watchdog_s:
            who = "the thread of the source hangs" if seen.silent_s else "the loop hangs"
            reasons.append(f"no progress for {silent_s:.0f} s, {who}: restart the daemon, nothing is lost; the watchdog of systemd does so")
        if seen.checkpoint_s > hopeless_s:
            reasons.append(f"{_hanging_checkpoint(seen.checkpoint_s)}; restart the daemon once it does")
        if starved_s > hopeless_s and not seen.problems:
            reasons.append(f"{self._starved(starved_s)}; restart the daemon")
        return reasons

    def not_ready(self) -> list[str]:
        """Why it does not do all of its work, and what to do; empty: it does."""
        seen, reasons = self._seen, self.not_live()
        starved_s = self._starved_s()
        if self._starting:
            reasons.append("the daemon is starting, and has not asked its source for records yet: wait, or see its log")
        if CHECKPOINT_S < seen.checkpoint_s <= HOPELESS * self._watchdog_s:
            reasons.append(_hanging_checkpoint(seen.checkpoint_s))
        if seen.publication_s > PUBLICATION_S:
            reasons.append(
                f"a new version has been written for {seen.publication_s:.0f} s and forecasts come from the old one: see that the disk of "
                "models.directory answers"
            )
        if starved_s > STALLED_S and (starved_s <= HOPELESS * self._watchdog_s or seen.problems):
            reasons.append(self._starved(starved_s))
        return [*reasons, *seen.problems, *seen.troubles]

    def _starved_s(self) -> float:
        """For how long passes of the loop have come back without the records that wait."""
        return self._passed_s - self._served_s

    def _starved(self, seconds: float) -> str:
        behind = f"no record was taken for {seconds:.0f} s, {self._seen.lag} wait"
        if self._seen.paused:
            return f"{behind}: the source is paused until open rows and events are written; see that disk and broker take them"
        return f"{behind}: see the log of the broker that leads the topic's partitions"


def _hanging_checkpoint(seconds: float) -> str:
    return f"a checkpoint has been written for {seconds:.0f} s, and nothing becomes durable: see that the disk of state.directory answers"
