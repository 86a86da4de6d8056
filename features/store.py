"""The rolling state of every link of one partition: link table, rings of raw rows, memory, and the windows that come from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.changes import FeatureRows
from features.definition import FEATURES, RING_ROWS, WINDOW_ROWS
from features.kernels import update_rings
from features.local_time import UTC, LocalTime, RegionPlaces
from features.memory import context_shape
from features.rings import Rings
from features.telemetry import CATEGORIES, DEFAULT_LINK_KEY, KEY_COLUMNS, TARGETS, Doubles, Flags, Floats, Ints, TelemetryBatch
from features.timeline import ACCEPTED, DEFAULT_GAP_MULTIPLE, DUPLICATE, LATE
from features.vocabulary import MAX_VALUES, Interner, Vocabulary

_REGION: Final = CATEGORIES.index("region")
DEFAULT_LINKS_MAX: Final = 100_000
_EVICTED_AT_ONCE: Final = 8
"""Share of the links (1 in 8) that is evicted when the table is full: a flood of new links does not move the rings for each of them."""


def link_name(key: Sequence[str | None]) -> str:
    r"""Return the name of a link in buffers, alerts and logs: the parts of its key joined by "|", which is escaped within a part.

    >>> link_name(("edge-17", None, "metro")), link_name(())
    ('edge-17||metro', '(all)')
    """
    return "|".join((part or "").replace("\\", "\\\\").replace("|", "\\|") for part in key) or "(all)"


class FeatureStore:
    """The rolling state of every link: rings of raw rows. They belong to no model: features are computed from them when they are needed.

    >>> from features.telemetry import NUMERIC
    >>> store = FeatureStore(key=("node_id", "peer_id"))
    >>> numeric = np.full((2, len(NUMERIC)), np.nan, np.float32)
    >>> numeric[:, NUMERIC.index("rtt_ms")] = 20.0, 21.0
    >>> categories = tuple([None, None] for _ in CATEGORIES)
    >>> batch = TelemetryBatch(np.arange(2), np.array([0.0, 60.0]), numeric, ["a", "a"], ["b", "b"], categories)
    >>> rows = store.update(batch, store.resolve(batch), watch=np.array([True]), vocabulary=None)
    >>> store.links, rows.last_known[:, TARGETS.index("rtt_ms")].tolist()
    (['a|b'], [20.0, 21.0])
    """

    def __init__(
        self,
        key: Sequence[str] = DEFAULT_LINK_KEY,
        gap_multiple: float = DEFAULT_GAP_MULTIPLE,
        links_max: int = DEFAULT_LINKS_MAX,
        names_max: int | None = MAX_VALUES,
        local_time: LocalTime = UTC,
    ) -> None:
        """Start without links.

        Args:
            key: Columns of KEY_COLUMNS that identify a link. With none, the stream is one merged series.
            gap_multiple: How many sampling intervals make a pause, which ends a run unless it is the rhythm of the link.
            links_max: Size of the link table, see `evict`.
            names_max: Distinct values of one category, see `forget`. None: no value is forgotten, and all after the first MAX_VALUES
                share one code.
            local_time: Time zones and holidays of the regions, for what links remember of their days.

        Raises:
            ValueError: A key column is unknown.
        """
        if unknown := sorted(set(key) - set(KEY_COLUMNS)):
            raise ValueError(f"a link key is made of {', '.join(KEY_COLUMNS)}; unknown: {', '.join(unknown)}")
        self.key = tuple(key)
        self.gap_multiple = gap_multiple
        self.links_max = links_max
        self.evicted_through_s = -math.inf
        """Newest event time of any evicted link, UTC seconds. Records up to then are late for a new link: it may be an evicted one."""
        self.links: list[str] = []
        self.interner = Interner(max_values=names_max or MAX_VALUES)
        self._forgets = names_max is not None
        self._slot_of: dict[tuple[str | None, ...], int] = {}
        self._keys: list[tuple[str | None, ...]] = []
        self._encoding_of: tuple[Vocabulary | None, tuple[int, ...]] = (None, ())  # with how many values were forgotten and known
        self._cached_encoding = np.zeros((0, 0), np.float32)
        self._places = RegionPlaces(local_time)
        self._rings = Rings()

    def __len__(self) -> int:
        return len(self.links)

    @property
    def nbytes(self) -> int:
        """Bytes of the rings, without the link table."""
        return self._rings.nbytes

    def resolve(self, batch: TelemetryBatch) -> Ints:
        """Return the slots of the first M records' links, int32 (M,). New links get the next slots and empty rings.

        M is less than N if there is no room for record M: use the records before it, make room, and go on from there. If record M has a
        new value of a category that is full, `full_category` of the rest names it and `forget` makes room. Otherwise its link is new,
        and `evict` makes room.

        Args:
            batch: N records.
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
        """Make room in a full table: evict the eighth of the links whose last record is the oldest. Depends on the stream alone.

        Returns:
            int32 (K,), ascending: the slots that stay. They are 0 to K - 1 from now on.
        """
        count = len(self.links)
        going = max(1, self.links_max // _EVICTED_AT_ONCE) + count - self.links_max
        oldest_first = np.argsort(self._rings["last_offset"][:count], kind="stable")
        gone, stay = oldest_first[:going], np.sort(oldest_first[going:]).astype(np.int32)
        self.evicted_through_s = max(self.evicted_through_s, float(self._rings["last_time_s"][gone].max()))
        self._rings.select(stay, count)
        self._name([self._keys[slot] for slot in stay.tolist()])
        return stay

    def full_category(self, batch: TelemetryBatch) -> int | None:
        """Return the index of the category that has no room for a value of the batch's first record; None if all have room."""
        return self.interner.room(batch.part(0, 1).categories)[1]

    def forget(self, category: int) -> None:
        """Make room in a full category, see `Interner.forget`, and write the new codes into the rows in the rings.

        Args:
            category: Index into CATEGORIES.
        """
        mapping = self.interner.forget(category)
        codes = self._rings["codes"]
        codes[:, :, category] = mapping[codes[:, :, category]]

    def rewind(self, slots: Ints, time_s: float) -> None:
        """Restart links whose newest time is in the future, with empty rings. What they remember of their days stays.

        Args:
            slots: int32 (K,), from `EventTime.undo`.
            time_s: UTC seconds; later rows of these links are accepted.
        """
        self._rings.rewind(slots, max(time_s, self.evicted_through_s))

    @property
    def newest_s(self) -> Doubles:
        """float64 (L,): time of each link's newest row, UTC seconds, -inf if it has none."""
        rows, last_time_s = (self._rings[name][: len(self.links)] for name in ("rows", "last_time_s"))
        return np.where(rows > 0, last_time_s, -np.inf)

    def update(
        self, batch: TelemetryBatch, slots: Ints, watch: Flags, vocabulary: Vocabulary | None, horizons: Sequence[int] = ()
    ) -> FeatureRows:
        """Ingest a batch in one pass, and compute the window of each monitored link as it was at each of its rows.

        Args:
            batch: N records.
            slots: int32 (N,), from `resolve`.
            watch: bool (L,), which links are monitored.
            vocabulary: Of the live model. None: there is no model, and no windows are computed.
            horizons: Rows ahead whose times the context has profiles for. With none, there is no context.
        """
        codes = self.interner.codes(batch.categories)
        self.interner.seen(codes, batch.offsets)
        rings, wanted, most = self._rings, vocabulary is not None, int(np.count_nonzero(watch[slots]))
        windows = np.full((most if wanted else 0, WINDOW_ROWS, len(FEATURES)), np.nan, np.float32)
        status, restarted, ready = np.zeros(len(batch), np.uint8), np.zeros(len(batch), np.bool_), np.zeros(most, np.bool_)
        watched, previous, last_known = (
            np.zeros(most, np.int64),
            np.zeros(most, np.int64),
            np.full((most, len(TARGETS)), np.nan, np.float32),
        )
        context, interval_s = np.empty(context_shape(most, horizons), np.float32), np.full(most, np.nan)
        count = update_rings(
            slots, batch.time_s, batch.numeric, codes, watch, self._encoding(vocabulary), wanted, self.gap_multiple,
            np.array(horizons, np.int64), self._places.places, self._places.of(self.interner.values[_REGION], self.interner.forgotten),
            rings["numeric"], rings["codes"], rings["intervals"], rings["last_time_s"], rings["head"], rings["rows"],
            rings["interval_head"], rings["intervals_known"], rings["pauses"], rings["pause_ages"], rings.memory,
            np.full(len(self.links), -1, np.int64) if most else np.zeros(0, np.int64),
            status, restarted, watched, previous, ready, windows, last_known, context, interval_s,
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
            context=context[:count],
            interval_s=interval_s[:count],
        )

    @property
    def run_rows(self) -> Ints:
        """int32 (L,): rows of each link since its last gap, at most RING_ROWS."""
        return self._rings["rows"][: len(self.links)].astype(np.int32)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of the rings, arrays of L rows, and the state of the interner. The store may change while they are written."""
        return self._rings.copies(len(self.links)) | {"names": self.interner.state()}

    def slot(self, key: tuple[str | None, ...]) -> int | None:
        """Return the slot of a link, or None if it is unknown."""
        return self._slot_of.get(key)

    def last_time_s(self, slot: int) -> float:
        """Return the event time of a link's newest row, UTC seconds."""
        return float(self._rings["last_time_s"][slot])

    def link_keys(self, begin: int = 0) -> list[tuple[str | None, ...]]:
        """Return the key of each slot from `begin` on."""
        return self._keys[begin:]

    def nodes(self) -> list[str]:
        """Return the sender of each slot's link: its node, or the whole name of the link if the key has no node."""
        index = self.key.index("node_id") if "node_id" in self.key else None
        return list(self.links) if index is None else [key[index] or "" for key in self._keys]

    def region_of(self, slot: int) -> str:
        """Return the region of a link's newest row; empty if it has none."""
        code = self._rings["codes"][slot, (int(self._rings["head"][slot]) - 1) % RING_ROWS, _REGION]
        return self.interner.values[_REGION][code] if code >= 0 and self._rings["rows"][slot] else ""

    def knows(self, batch: TelemetryBatch) -> Flags:
        """Return whether the link of each record has been seen, bool (N,)."""
        keys = zip(*(batch.column(name) for name in self.key), strict=True) if self.key else ((),) * len(batch)
        return np.array([key in self._slot_of for key in keys], np.bool_)

    def restore(
        self, keys: Sequence[Sequence[str | None]], values: list[list[str]], state: dict[str, NDArray[Any]], evicted_through_s: float
    ) -> None:
        """Restore the state of another store.

        Args:
            keys: From `link_keys`.
            values: Of its interner.
            state: From `state`.
            evicted_through_s: Of that store, UTC seconds.

        Raises:
            ValueError: The arguments do not fit together.
        """
        self._rings.restore(state, len(keys))
        self.interner = Interner.restored(values, state["names"], self.interner.max_values)
        self.evicted_through_s = evicted_through_s
        self._name([tuple(part) for part in keys])

    def _name(self, keys: list[tuple[str | None, ...]]) -> None:
        """Make the link table anew: slot k is the link of keys[k]."""
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
        self._rings.make_room(slot + 1, self.links_max)
        self._rings["last_time_s"][slot] = self.evicted_through_s
        self.links.append(link_name(key))
        self._keys.append(key)
        self._slot_of[key] = slot
        return slot
