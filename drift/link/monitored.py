"""The choice of monitored links, which are forecast and inspected at every row: all links of a small fleet, a part of a large one."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import numpy as np

from features.telemetry import Doubles, Flags, Ints

SILENT_S: Final = 86_400.0
"""Seconds of event time without a record after which a monitored link loses its place to a link that has none."""
PRESENT_S: Final = 3600.0
"""Seconds of event time within which a link must have sent a record to get such a place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringPolicy:
    """Bounds of the number of monitored links of one partition.

    A forecast costs about 0.4 ms of CPU on a fast core: 1,000 links at one row a minute are 0.7 % of it.

    >>> MonitoringPolicy(always=("core-*",)).pinned("core-7|edge-1")
    True

    Args:
        links_per_region: at most this many of each region.
        links_max: at most this many in all.
        always: patterns of names that are monitored in any case. They count towards the bounds, but no bound keeps them out.
    """

    links_per_region: int = 100
    links_max: int = 1000
    always: tuple[str, ...] = ()

    def pinned(self, link: str) -> bool:
        """Return whether a link is monitored in any case."""
        return any(fnmatchcase(link, pattern) for pattern in self.always)


@dataclass
class MonitoredList:
    """The monitored links of one partition. A link is chosen, or not, at its first record. It stays so until it has been silent for long
    and another link needs its place (`review`).

    >>> links = MonitoredList(MonitoringPolicy(links_per_region=1))
    >>> links.follow(["a|b", "a|c", "d|e"], ["eu", "eu", "us"])
    >>> links.index
    [0, -1, 1]

    Args:
        index: for each slot the index of its link among the monitored ones, -1 if it is not monitored.
        regions: for each monitored link the region of its first record. The link counts towards that region for good.
    """

    policy: MonitoringPolicy
    index: list[int] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._per_region = Counter(self.regions)
        self._arrays()

    def __len__(self) -> int:
        return len(self.regions)

    def follow(self, links: Sequence[str], region_of_new: Sequence[str | None]) -> None:
        """Decide for new links whether they are monitored.

        Args:
            links: names of all slots.
            region_of_new: the region of each slot that came since the last call, in slot order.
        """
        known = len(self.index)
        for link, region in zip(links[known:], region_of_new, strict=True):
            name = region or ""
            full = len(self.regions) >= self.policy.links_max or self._per_region[name] >= self.policy.links_per_region
            if not full or self.policy.pinned(link):
                self.index.append(len(self.regions))
                self.regions.append(name)
                self._per_region[name] += 1
            else:
                self.index.append(-1)
        if len(links) > known:
            self._arrays()

    def pin(self, links: Sequence[str]) -> int:
        """After a start, monitor the links that were known before and are pinned now. Return how many joined.

        Args:
            links: names of all slots.
        """
        known = len(self)
        for slot, link in enumerate(links[: len(self.index)]):
            if self.index[slot] < 0 and self.policy.pinned(link):
                self.index[slot] = len(self.regions)
                self.regions.append("")
        self._arrays()
        return len(self) - known

    def review(self, links: Sequence[str], newest_s: Doubles, event_s: float, region_of: Callable[[int], str]) -> tuple[Ints, int]:
        """Replace monitored links that have been silent for SILENT_S by links that send records and found no place. So neither links of
        long ago nor a flood of names that came once can fill the places.

        Args:
            links: names of all slots.
            newest_s: float64 (L,), when each was seen last, UTC seconds.
            event_s: the partition's event time, UTC seconds.
            region_of: returns the region of a slot.

        Returns:
            int32, ascending, the indices that stay, which are 0, 1, ... from now on; and the number of links that joined after them.
        """
        silent = _Silent(self, links, newest_s, event_s)
        places = Counter(self.regions)
        gone: set[int] = set()
        joined: list[tuple[int, str]] = []
        for slot in np.flatnonzero((newest_s >= event_s - PRESENT_S) & (self.index_of_slot < 0)).tolist():
            all_full = len(self.regions) - len(gone) + len(joined) >= self.policy.links_max
            if all_full and silent.first(None) is None:
                break  # no place is left, and none will be free
            region = region_of(slot)
            full = places[region] >= self.policy.links_per_region
            if full or all_full:
                leaves = silent.first(region if full else None)
                if leaves is None:
                    continue
                silent.remove(leaves)
                gone.add(leaves)
                places[self.regions[self.index[leaves]]] -= 1
            places[region] += 1
            joined.append((slot, region))
        stay = self.keep(np.arange(len(self.index), dtype=np.int32), gone)
        for slot, region in joined:
            self.index[slot] = len(self.regions)
            self.regions.append(region)
        self.__post_init__()
        return stay, len(joined)

    def keep(self, slots: Ints, unwatched: Collection[int] = ()) -> Ints:
        """Keep only these slots (ascending), which are 0, 1, ... from now on.

        Args:
            unwatched: slots that are not monitored any more.

        Returns:
            int32, ascending, the indices of monitored links that stay.
        """
        index = np.where(np.isin(slots, list(unwatched)), -1, self.index_of_slot[slots])
        stay = np.sort(index[index >= 0])
        self.index = np.where(index >= 0, np.searchsorted(stay, index), -1).tolist()
        self.regions = [self.regions[i] for i in stay.tolist()]
        self.__post_init__()
        return stay

    def _arrays(self) -> None:
        self.index_of_slot: Ints = np.array(self.index, np.int32)
        self.mask: Flags = self.index_of_slot >= 0


class _Silent:
    """Monitored links that have been silent for long, those of the longest silence first."""

    def __init__(self, watch: MonitoredList, links: Sequence[str], newest_s: Doubles, event_s: float) -> None:
        silent = np.flatnonzero((newest_s < event_s - SILENT_S) & watch.mask)
        order = silent[np.argsort(newest_s[silent], kind="stable")]
        self._slots = deque(slot for slot in order.tolist() if not watch.policy.pinned(links[slot]))
        self._of_region: dict[str, deque[int]] = {}
        for slot in self._slots:
            self._of_region.setdefault(watch.regions[watch.index[slot]], deque()).append(slot)
        self._given: set[int] = set()

    def first(self, region: str | None) -> int | None:
        """Return the next slot of a region (None: of any region), or None if there is none left."""
        slots = self._slots if region is None else self._of_region.get(region, deque())
        while slots and slots[0] in self._given:
            slots.popleft()
        return slots[0] if slots else None

    def remove(self, slot: int) -> None:
        """Remove a slot from the list."""
        self._given.add(slot)
