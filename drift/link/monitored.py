"""Which links are watched: forecast and judged at every row. All of them in a small fleet, a stable sample in a large one."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import numpy as np

from features.telemetry import Doubles, Flags, Ints

SILENT_S: Final = 86_400.0
"""Seconds of event time after which a watched link gives its place to one that has none."""
PRESENT_S: Final = 3600.0
"""Seconds of event time in which a link was seen that is there."""


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """share: of the links, by a hash of their name. Then at most so many for each region, and in all, of one partition. always: patterns of
    names that are watched in any case; they count towards these bounds, but no bound keeps them out.

    A forecast costs about 0.4 ms of CPU on a fast core: 1,000 links at one row a minute are 0.7 % of it.
    """

    share: float = 1.0
    links_per_region: int = 100
    links_max: int = 1000
    always: tuple[str, ...] = ()

    def pinned(self, link: str) -> bool:
        return any(fnmatchcase(link, pattern) for pattern in self.always)


@dataclass
class WatchList:
    """The watched links of one partition. Whether a link is watched is decided at its first record, and stays so until it has been silent
    for long and another one needs the place (`review`)."""

    policy: WatchPolicy
    index: list[int] = field(default_factory=list)
    """For each slot its watch index, -1 where it is not watched."""
    regions: list[str] = field(default_factory=list)
    """For each watch index the region of the link's first record: a link counts towards that one for good."""

    def __post_init__(self) -> None:
        self._per_region = Counter(self.regions)
        self._arrays()

    def __len__(self) -> int:
        return len(self.regions)

    def follow(self, links: Sequence[str], region_of_new: Sequence[str | None]) -> None:
        """links: the names of all slots. region_of_new: the region of each slot that came since the last call, in slot order."""
        known = len(self.index)
        for link, region in zip(links[known:], region_of_new, strict=True):
            name = region or ""
            if self._wanted(link, name):
                self.index.append(len(self.regions))
                self.regions.append(name)
                self._per_region[name] += 1
            else:
                self.index.append(-1)
        if len(links) > known:
            self._arrays()

    def pin(self, links: Sequence[str]) -> int:
        """After a start: watches links that were known before and are pinned now. links: the names of all slots. Gives how many joined."""
        known = len(self)
        for slot, link in enumerate(links[: len(self.index)]):
            if self.index[slot] < 0 and self.policy.pinned(link):
                self.index[slot] = len(self.regions)
                self.regions.append("")
        self._arrays()
        return len(self) - known

    def review(self, links: Sequence[str], newest_s: Doubles, event_s: float, region_of: Callable[[int], str]) -> tuple[Ints, int]:
        """Gives the places of watched links that have been silent for SILENT_S to links that are there and found none. So what fills the
        places for good is neither links of long ago nor a flood of names that came once.

        Args:
            links: names of all slots.
            newest_s: float64 (L,), when each was seen last, UTC seconds.
            event_s: the partition's event time, UTC seconds.
            region_of: the region of a slot.

        Returns:
            int32, ascending: the watch indices that stay, which are 0, 1, ... from now on; and how many links joined after them.
        """
        silent = _Silent(self, links, newest_s, event_s)
        places = Counter(self.regions)
        gone: set[int] = set()
        joined: list[tuple[int, str]] = []
        for slot in np.flatnonzero((newest_s >= event_s - PRESENT_S) & (self.index_of_slot < 0)).tolist():
            all_full = len(self.regions) - len(gone) + len(joined) >= self.policy.links_max
            if all_full and silent.first(None) is None:
                break  # no place is left, and none will be
            region = region_of(slot)
            full = places[region] >= self.policy.links_per_region
            if full or all_full:
                leaves = silent.first(region if full else None)
                if leaves is None or not self._in_share(links[slot]):
                    continue
                silent.give(leaves)
                gone.add(leaves)
                places[self.regions[self.index[leaves]]] -= 1
            elif not self._in_share(links[slot]):
                continue
            places[region] += 1
            joined.append((slot, region))
        stay = self.keep(np.arange(len(self.index), dtype=np.int32), gone)
        for slot, region in joined:
            self.index[slot] = len(self.regions)
            self.regions.append(region)
        self.__post_init__()
        return stay, len(joined)

    def keep(self, slots: Ints, unwatched: Collection[int] = ()) -> Ints:
        """Only these slots stay (ascending), and are 0, 1, ... from now on; `unwatched` ones are watched no more. Gives int32, ascending:
        the watch indices that stay."""
        kept = np.where(np.isin(slots, list(unwatched)), -1, self.index_of_slot[slots])
        watched = np.sort(kept[kept >= 0])
        self.index = np.where(kept >= 0, np.searchsorted(watched, kept), -1).tolist()
        self.regions = [self.regions[at] for at in watched.tolist()]
        self.__post_init__()
        return watched

    def _wanted(self, link: str, region: str) -> bool:
        if self.policy.pinned(link):
            return True
        if len(self.regions) >= self.policy.links_max or self._per_region[region] >= self.policy.links_per_region:
            return False
        return self._in_share(link)

    def _in_share(self, link: str) -> bool:
        return int.from_bytes(hashlib.blake2b(link.encode(), digest_size=8).digest()) < self.policy.share * 2**64

    def _arrays(self) -> None:
        self.index_of_slot: Ints = np.array(self.index, np.int32)
        self.mask: Flags = self.index_of_slot >= 0


class _Silent:
    """Watched links that have been silent for long, those of longest silence first."""

    def __init__(self, watch: WatchList, links: Sequence[str], newest_s: Doubles, event_s: float) -> None:
        silent = np.flatnonzero((newest_s < event_s - SILENT_S) & watch.mask)
        order = silent[np.argsort(newest_s[silent], kind="stable")]
        self._slots = deque(slot for slot in order.tolist() if not watch.policy.pinned(links[slot]))
        self._of_region: dict[str, deque[int]] = {}
        for slot in self._slots:
            self._of_region.setdefault(watch.regions[watch.index[slot]], deque()).append(slot)
        self._given: set[int] = set()

    def first(self, region: str | None) -> int | None:
        """The next slot of a region, None: of any; None if there is none left."""
        slots = self._slots if region is None else self._of_region.get(region, deque())
        while slots and slots[0] in self._given:
            slots.popleft()
        return slots[0] if slots else None

    def give(self, slot: int) -> None:
        """Takes a slot out of the list."""
        self._given.add(slot)
