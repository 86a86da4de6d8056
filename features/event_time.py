"""Event time of a partition: the time that the bulk of its links has reached. No single record moves it far.

A record that is at most STEP_S ahead moves it at once: that is how time passes. A larger jump is confirmed or withdrawn by the records
that follow. Event time follows it when more links have jumped than have not, and then goes to the middle one of them. So it follows a
stream that goes on after an outage, but neither one link whose clock is wrong nor one record of the far future.

The first record is such a jump as well: time begins with a second link, at the earlier of the two, or after ROWS_MIN rows of one link.
The result depends on the stream alone, record by record.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.compiled import compiled
from features.telemetry import Doubles, Flags, Ints, Longs

STEP_S: Final = 300.0
"""Largest step of event time by one record, seconds. A record may lie in the future by as much: a usual fleet steps less."""
ACTIVE_S: Final = 86_400.0
"""Time after its last row within which a link is expected again, seconds of event time: enough for links that report once a day."""
ROWS_MIN: Final = 4
"""Rows after which a jump is decided in a partition of one or two links."""
BEGIN_LINKS: Final = 2
"""Links with which time begins. The earlier of two cannot be one record of the far future; from too early a time the others jump."""
_ROWS, _ACTIVE, _OTHERS, _AHEAD, _NEAR = range(5)
"""Counters from the first record that jumped on: rows, active links, active links that have not jumped, links that have jumped, and links
that were seen near event time."""


class EventTime:
    """The event time of one partition. Links are numbered by slot, as in the FeatureStore.

    >>> event_time = EventTime()
    >>> slots, times = np.array([0, 1, 0, 1], np.int32), np.array([1000.0, 1010.0, 1060.0, 1_000_000.0])
    >>> event_time.follow(slots, times).tolist()  # the last record is years ahead, and alone
    [-inf, 1000.0, 1060.0, 1060.0]
    """

    def __init__(self) -> None:
        self.value_s = -math.inf
        """UTC seconds; -inf before it begins."""
        self._seen_s: Doubles = np.full(0, -np.inf)
        self._ahead_s: Doubles = np.full(0, -np.inf)
        self._near: Flags = np.zeros(0, np.bool_)
        self._run: Longs = np.zeros(5, np.int64)

    @property
    def end_s(self) -> float:
        """Event time if the stream ends here: a jump counts if more links have made it than not. UTC seconds."""
        ahead_s = self._ahead_s[self._ahead_s > -np.inf]
        return _middle(ahead_s) if self._run[_AHEAD] > self._run[_NEAR] else self.value_s

    def follow(self, slots: Ints, time_s: Doubles) -> Doubles:
        """Follow accepted rows in stream order.

        Args:
            slots: int32 (A,), slot of each row's link.
            time_s: float64 (A,), UTC seconds, later than the row of the same link before.

        Returns:
            Event time after each row, float64 (A,), UTC seconds; -inf before it begins.
        """
        self._make_room(int(slots.max(initial=-1)) + 1)
        complete_s = np.empty(len(slots))
        self.value_s = _follow(slots, time_s, self.value_s, self._seen_s, self._ahead_s, self._near, self._run, complete_s)
        return complete_s

    def keep(self, slots: Ints) -> None:
        """Forget all links but those of the given slots, which become slots 0, 1, ... .

        Args:
            slots: int32 (K,), ascending.
        """
        self._make_room(int(slots.max(initial=-1)) + 1)
        self._seen_s, self._ahead_s, self._near = self._seen_s[slots], self._ahead_s[slots], self._near[slots]
        self._count()

    def undo(self, limit_s: float, now_s: float) -> Ints:
        """Undo times after a limit that no record can have passed. Event time becomes the newest time of the other links.

        Args:
            limit_s: UTC seconds.
            now_s: UTC seconds, the new event time if there are no other links.

        Returns:
            int32 (K,), the slots of the links that had run ahead.
        """
        gone = np.flatnonzero(self._seen_s > limit_s).astype(np.int32)
        self._seen_s[gone] = -np.inf
        if not -math.inf < self.value_s <= limit_s:
            self.value_s = float(self._seen_s.max(initial=-np.inf))
            self.value_s = self.value_s if math.isfinite(self.value_s) else now_s
        self._ahead_s[:], self._near[:], self._run[:] = -np.inf, False, 0
        return gone

    def is_ahead(self, limit_s: float) -> bool:
        """Return whether event time or any link has passed limit_s (UTC seconds)."""
        return self.value_s > limit_s or bool((self._seen_s > limit_s).any())

    def document(self) -> dict[str, Any]:
        """Return the part of the state that is plain numbers."""
        return {"event_time_s": self.value_s, "event_time_run": self._run.tolist()}

    def arrays(self, links: int) -> dict[str, NDArray[Any]]:
        """Return the rest of the state of L links: event_time_ahead_s, float64 (L,), and event_time_near, bool (L,)."""
        self._make_room(links)
        return {"event_time_ahead_s": self._ahead_s.copy(), "event_time_near": self._near.copy()}

    def restore(self, document: dict[str, Any], arrays: dict[str, NDArray[Any]], last_time_s: Doubles) -> None:
        """Restore the state from what `document` and `arrays` returned.

        Args:
            document: From `document`.
            arrays: From `arrays`.
            last_time_s: float64 (L,), UTC seconds of each link's newest row, -inf if it has none.
        """
        self.value_s, self._run = document["event_time_s"], np.array(document["event_time_run"], np.int64)
        self._seen_s = last_time_s.copy()
        self._ahead_s, self._near = arrays["event_time_ahead_s"].copy(), arrays["event_time_near"].copy()

    def _make_room(self, links: int) -> None:
        if (more := links - len(self._seen_s)) > 0:
            self._seen_s, self._ahead_s = (np.append(times, np.full(more, -np.inf)) for times in (self._seen_s, self._ahead_s))
            self._near = np.append(self._near, np.zeros(more, np.bool_))

    def _count(self) -> None:
        """Count anew after links have gone. A jump ends when all links that made it have gone."""
        ahead = self._ahead_s > -np.inf
        self._run[_AHEAD], self._run[_NEAR] = np.count_nonzero(ahead), np.count_nonzero(self._near)
        self._run[_ACTIVE] = min(int(self._run[_ACTIVE]), len(ahead))
        self._run[_OTHERS] = min(int(self._run[_OTHERS]), int(np.count_nonzero(~ahead)))
        if not self._run[_AHEAD]:
            self._near[:], self._run[:] = False, 0


@compiled
def _middle(time_s: Doubles) -> float:
    """Return the lower median."""
    return float(np.sort(time_s)[(len(time_s) - 1) // 2])


@compiled
def _follow(
    slots: Ints, time_s: Doubles, event_s: float, seen_s: Doubles, ahead_s: Doubles, near: Flags, run: Longs, complete_s: Doubles
) -> float:  # fmt: skip
    """Return the event time after the last row. See EventTime.follow."""
    for row in range(len(slots)):
        slot, at_s = slots[row], time_s[row]
        jumps = at_s > event_s + STEP_S
        if jumps and run[_ROWS] == 0 and event_s > -math.inf:
            for link in range(len(seen_s)):
                if seen_s[link] >= event_s - ACTIVE_S:
                    run[_ACTIVE] += 1
            run[_OTHERS] = run[_ACTIVE]
        if jumps:
            if ahead_s[slot] == -math.inf:
                run[_AHEAD] += 1
                if event_s > -math.inf and seen_s[slot] >= event_s - ACTIVE_S:
                    run[_OTHERS] = max(0, run[_OTHERS] - 1)
            if near[slot]:
                near[slot] = False
                run[_NEAR] -= 1
            ahead_s[slot] = at_s
        else:
            if run[_ROWS] > 0 and at_s >= event_s - STEP_S and not near[slot] and ahead_s[slot] == -math.inf:
                near[slot] = True
                run[_NEAR] += 1
            event_s = max(event_s, at_s)
        if jumps or run[_ROWS] > 0:
            run[_ROWS] += 1
            all_were_seen = run[_ROWS] >= max(ROWS_MIN, 2 * run[_ACTIVE])
            follows = run[_AHEAD] > run[_OTHERS] or (all_were_seen and run[_AHEAD] > run[_NEAR])
            if event_s == -math.inf:
                follows = run[_AHEAD] >= BEGIN_LINKS or all_were_seen
            if follows:
                event_s = max(event_s, _middle(ahead_s[ahead_s > -math.inf]))
            if follows or all_were_seen or 2 * run[_NEAR] > run[_ACTIVE]:
                ahead_s[:] = -math.inf
                near[:] = False
                run[:] = 0
        seen_s[slot] = at_s
        complete_s[row] = event_s
    return event_s
