"""The rolling state of every link of one partition: link table, rings of raw rows, and the windows that come from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.definition import FEATURES, RING_ROWS, WINDOW_ROWS
from features.kernels import update_rings
from features.telemetry import (
    CATEGORIES,
    DEFAULT_LINK_KEY,
    KEY_COLUMNS,
    NUMERIC,
    Codes,
    Doubles,
    Flags,
    Floats,
    Ints,
    Longs,
    TelemetryBatch,
)
from features.timeline import ACCEPTED, DEFAULT_GAP_MULTIPLE, DUPLICATE, INTERVALS, LATE
from features.vocabulary import MAX_VALUES, Interner, Vocabulary

_REGION: Final = CATEGORIES.index("region")
_FIRST_CAPACITY: Final = 256
DEFAULT_LINKS_MAX: Final = 100_000
_EVICTED_AT_ONCE: Final = 8
"""One link in so many goes when the table is full, so that a flood of new links does not move the rings for each of them."""

_RINGS: Final[dict[str, tuple[tuple[int, ...], Any]]] = {
    "numeric": ((RING_ROWS, len(NUMERIC)), np.float32),
    "codes": ((RING_ROWS, len(CATEGORIES)), np.int16),
    "intervals": ((INTERVALS,), np.float32),
    "last_time_s": ((), np.float64),
    "head": ((), np.uint8),  # the ring's next row
    "rows": ((), np.uint8),  # rows of the current run in the ring, at most RING_ROWS
    "interval_head": ((), np.uint8),
    "intervals_known": ((), np.uint8),
    "last_offset": ((), np.int64),  # of the newest record, were it late or a duplicate
}
"""Per-link state and its shape. In all 39 x (11 x 4 + 6 x 2) + 9 x 4 + 20 = 2,240 bytes a link."""


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """What one batch did to the state.

    accepted: int64 (A,), the batch's rows that were new, in order; the others were duplicate or late.
    slots: int32 (A,), link of each. codes: int16 (A, 6), codes of its categories. restarted: bool (A,): a gap lies before it.
    watched: int64 (W,), which of the A rows belong to watched links.
    previous: int64 (W,): position in `watched` of the link's row before, -1 where it came in an earlier batch.
    ready: bool (W,): the link's run has the 30 rows that a forecast needs.
    windows: float32 (W, 30, 44), features unscaled; rows that are not ready hold NaN. None where no vocabulary was given.
    last_known: float32 (W, 4): each metric's last measured value in the run, the forecast by persistence.
    """

    accepted: Longs
    slots: Ints
    codes: Codes
    restarted: Flags
    duplicates: int
    late: int
    watched: Longs
    previous: Longs
    ready: Flags
    windows: Floats | None
    last_known: Floats


def link_name(key: Sequence[str | None]) -> str:
    """The name of a link in buffers, alerts and logs: the parts of its key joined by "|" (escaped in the parts)."""
    return "|".join((part or "").replace("\\", "\\\\").replace("|", "\\|") for part in key) or "(all)"


class FeatureStore:
    """Rings of raw rows for every link. The rings are free of any model: features are computed from them when a forecast is due."""

    def __init__(
        self,
        key: Sequence[str] = DEFAULT_LINK_KEY,
        gap_multiple: float = DEFAULT_GAP_MULTIPLE,
        links_max: int = DEFAULT_LINKS_MAX,
        names_max: int | None = MAX_VALUES,
    ) -> None:
        """key: the columns of KEY_COLUMNS that tell links apart; none: the stream is one merged series. links_max: see `evict`.
        names_max: values of one category, see `forget`; None: none is forgotten, and those after the first MAX_VALUES share one code."""
        if unknown := sorted(set(key) - set(KEY_COLUMNS)):
            raise ValueError(f"a link key is made of {', '.join(KEY_COLUMNS)}; unknown: {', '.join(unknown)}")
        self.key = tuple(key)
        self.gap_multiple = gap_multiple
        self.links_max = links_max
        self.evicted_through_s = -math.inf
        """The newest event time of any link that was evicted: nobody remembers what came up to then, so for a new link it is late."""
        self.links: list[str] = []
        self.interner = Interner(max_values=names_max or MAX_VALUES)
        self._forgets = names_max is not None
        self._slot_of: dict[tuple[str | None, ...], int] = {}
        self._keys: list[tuple[str | None, ...]] = []
        self._encoding_of: tuple[Vocabulary | None, tuple[int, ...]] = (None, ())  # the numbers: of forgotten values, then of all
        self._cached_encoding = np.zeros((0, 0), np.float32)
        self._rings: dict[str, NDArray[Any]] = {name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in _RINGS.items()}

    def __len__(self) -> int:
        return len(self.links)

    @property
    def nbytes(self) -> int:
        """Bytes of the rings, without the link table."""
        return sum(ring.nbytes for ring in self._rings.values())

    def resolve(self, batch: TelemetryBatch) -> Ints:
        """int32 (M,): the slots of the first M records' links; new links get the next slots and empty rings.

        M is less than N if there is no room for record M: take the records before it, make room, and go on with it. If it has a new value
        of a category that is full, `full_category` of what is left names it, and `forget` makes room; otherwise its link is new, and
        `evict` does.
        """
        room = self.interner.room(batch.categories)[0] if self._forgets else len(batch)
        batch = batch if room == len(batch) else batch.part(0, room)
        if not self.key:
            if len(batch) and not self.links:
                self._add(())
            return np.zeros(len(batch), np.int32)
        keys = zip(*(batch.column(name) for name in self.key), strict=True)
        slot_of = self._slot_of
        try:
            slots = [slot_of[key] for key in keys]
        except KeyError:
            keys = zip(*(batch.column(name) for name in self.key), strict=True)
            slots = []
            for key in keys:
                slot = slot_of.get(key)
                if slot is None:
                    if len(self.links) >= self.links_max:
                        break
                    slot = self._add(key)
                slots.append(slot)
        return np.array(slots, np.int32)

    def evict(self) -> Ints:
        """Makes room in a full table: the links whose last record is the oldest go, an eighth of them. Depends on the stream alone.

        Gives int32 (K,), ascending: the slots that stay, which are 0 to K - 1 from now on.
        """
        count = len(self.links)
        going = max(1, self.links_max // _EVICTED_AT_ONCE) + count - self.links_max
        oldest_first = np.argsort(self._rings["last_offset"][:count], kind="stable")
        gone, kept = oldest_first[:going], np.sort(oldest_first[going:]).astype(np.int32)
        self.evicted_through_s = max(self.evicted_through_s, float(self._rings["last_time_s"][gone].max()))
        for ring in self._rings.values():
            ring[: len(kept)] = ring[kept]
            ring[len(kept) : count] = 0
        self._name([self._keys[slot] for slot in kept.tolist()])
        return kept

    def full_category(self, batch: TelemetryBatch) -> int | None:
        """Which category has no room for a value of the batch's first record; None if all have."""
        return self.interner.room(batch.part(0, 1).categories)[1]

    def forget(self, category: int) -> None:
        """Makes room in a full category: see Interner.forget. Rows in the rings have the new codes then."""
        mapping = self.interner.forget(category)
        codes = self._rings["codes"]
        codes[:, :, category] = mapping[codes[:, :, category]]

    def rewind(self, slots: Ints, time_s: float) -> None:
        """Links whose newest time cannot be (see EventTime.undo) begin anew after time_s (UTC seconds), with empty rings."""
        for name in ("head", "rows", "interval_head", "intervals_known"):
            self._rings[name][slots] = 0
        self._rings["last_time_s"][slots] = max(time_s, self.evicted_through_s)

    @property
    def newest_s(self) -> Doubles:
        """float64 (L,): the time of each link's newest row, UTC seconds, -inf if it has none."""
        count = len(self.links)
        return np.where(self._rings["rows"][:count] > 0, self._rings["last_time_s"][:count], -np.inf)

    def update(self, batch: TelemetryBatch, slots: Ints, watch: Flags, vocabulary: Vocabulary | None) -> FeatureRows:
        """Takes a batch into the rings in one pass, and computes the windows of watched links as they were at each of their rows.

        slots: from `resolve`. watch: bool (L,), which links are watched. vocabulary: the live model's; None: no model, no windows.
        """
        codes = self.interner.codes(batch.categories)
        self.interner.seen(codes, batch.offsets)
        rings = self._rings
        most = int(np.count_nonzero(watch[slots]))
        wanted = vocabulary is not None
        encoding = self._encoding(vocabulary)
        windows = np.full((most if wanted else 0, WINDOW_ROWS, len(FEATURES)), np.nan, np.float32)
        status, restarted = np.zeros(len(batch), np.uint8), np.zeros(len(batch), np.bool_)
        watched, previous = np.zeros(most, np.int64), np.zeros(most, np.int64)
        ready, last_known = np.zeros(most, np.bool_), np.full((most, 4), np.nan, np.float32)
        count = update_rings(
            slots, batch.time_s, batch.numeric, codes, watch, encoding, wanted, self.gap_multiple,
            rings["numeric"], rings["codes"], rings["intervals"], rings["last_time_s"], rings["head"], rings["rows"],
            rings["interval_head"], rings["intervals_known"],
            np.full(len(self.links), -1, np.int64) if most else np.zeros(0, np.int64),
            status, restarted, watched, previous, ready, windows, last_known,
        )  # fmt: skip
        rings["last_offset"][slots] = batch.offsets  # of several records of a link the last one stays
        accepted = np.flatnonzero(status == ACCEPTED)
        return FeatureRows(
            accepted=accepted,
            slots=slots[accepted],
            codes=codes[accepted],
            restarted=restarted[accepted],
            duplicates=int(np.count_nonzero(status == DUPLICATE)),
            late=int(np.count_nonzero(status == LATE)),
            watched=watched[:count],
            previous=previous[:count],
            ready=ready[:count],
            windows=windows[:count] if wanted else None,
            last_known=last_known[:count],
        )

    @property
    def run_rows(self) -> Ints:
        """int32 (L,): rows of each link since its last gap, at most RING_ROWS."""
        return self._rings["rows"][: len(self.links)].astype(np.int32)

    def state(self) -> dict[str, NDArray[Any]]:
        """The rings as arrays of L rows (copies: the state goes on changing while they are written), and what is known of names."""
        return {name: ring[: len(self.links)].copy() for name, ring in self._rings.items()} | {"names": self.interner.state()}

    def slot(self, key: tuple[str | None, ...]) -> int | None:
        """The slot of a link; None for one that is not known."""
        return self._slot_of.get(key)

    def last_time_s(self, slot: int) -> float:
        """The event time of a link's newest row."""
        return float(self._rings["last_time_s"][slot])

    def link_keys(self, begin: int = 0) -> list[tuple[str | None, ...]]:
        """The key of each slot from `begin` on."""
        return self._keys[begin:]

    def nodes(self) -> list[str]:
        """For each slot who sends of the link, as far as its key says so: the node, or its whole name."""
        at = self.key.index("node_id") if "node_id" in self.key else None
        return list(self.links) if at is None else [key[at] or "" for key in self._keys]

    def region_of(self, slot: int) -> str:
        """The region of a link's newest row; empty if it has none."""
        code = self._rings["codes"][slot, (int(self._rings["head"][slot]) - 1) % RING_ROWS, _REGION]
        return self.interner.values[_REGION][code] if code >= 0 and self._rings["rows"][slot] else ""

    def knows(self, batch: TelemetryBatch) -> Flags:
        """bool (N,): whether the link of each record has been seen."""
        keys = zip(*(batch.column(name) for name in self.key), strict=True) if self.key else ((),) * len(batch)
        return np.array([key in self._slot_of for key in keys], np.bool_)

    def restore(
        self, keys: Sequence[Sequence[str | None]], values: list[list[str]], state: dict[str, NDArray[Any]], evicted_through_s: float
    ) -> None:
        """Becomes the store that the arguments were taken from. Raises ValueError where they do not fit together."""
        for name, (shape, dtype) in _RINGS.items():
            ring = state[name]
            if ring.shape != (len(keys), *shape) or ring.dtype != dtype:
                raise ValueError(f"state {name}: {ring.dtype} {ring.shape} instead of {np.dtype(dtype)} {(len(keys), *shape)}")
            self._rings[name] = ring.copy()
        self.interner = Interner.restored(values, state["names"], self.interner.max_values)
        self.evicted_through_s = evicted_through_s
        self._name([tuple(part) for part in keys])

    def _name(self, keys: list[tuple[str | None, ...]]) -> None:
        """Makes the link table anew: slot k is the link of keys[k]."""
        self._keys = keys
        self._slot_of = {key: slot for slot, key in enumerate(keys)}
        self.links = [link_name(key) for key in keys]

    def _encoding(self, vocabulary: Vocabulary | None) -> Floats:
        if vocabulary is None:
            return np.zeros((len(CATEGORIES), 1), np.float32)
        lengths = (self.interner.forgotten, *(len(values) for values in self.interner.values))
        # The vocabulary itself, not its id: a new model's may get the address of one that is gone.
        if vocabulary is not self._encoding_of[0] or lengths != self._encoding_of[1]:
            self._encoding_of, self._cached_encoding = (vocabulary, lengths), vocabulary.encoding(self.interner.values)
        return self._cached_encoding

    def _add(self, key: tuple[str | None, ...]) -> int:
        slot = len(self.links)
        if slot == len(self._rings["head"]):
            capacity = max(slot + 1, min(self.links_max, max(_FIRST_CAPACITY, slot + slot // 2)))
            for name, ring in self._rings.items():
                grown = np.zeros((capacity, *ring.shape[1:]), ring.dtype)
                grown[:slot] = ring
                self._rings[name] = grown
        self._rings["last_time_s"][slot] = self.evicted_through_s
        self.links.append(link_name(key))
        self._keys.append(key)
        self._slot_of[key] = slot
        return slot
