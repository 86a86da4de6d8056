"""The arrays behind a FeatureStore: for each link a ring of raw rows, its times and intervals, and what it remembers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.definition import RING_ROWS
from features.memory import MEMORY, Memory, drop_running_hour
from features.telemetry import CATEGORIES, NUMERIC, Ints
from features.timeline import INTERVALS, PAUSES

_FIRST_CAPACITY: Final = 256
RINGS: Final[dict[str, tuple[tuple[int, ...], Any]]] = {
    "numeric": ((RING_ROWS, len(NUMERIC)), np.float32),
    "codes": ((RING_ROWS, len(CATEGORIES)), np.int16),
    "intervals": ((INTERVALS,), np.float32),
    "last_time_s": ((), np.float64),
    "head": ((), np.uint8),  # the ring's next row
    "rows": ((), np.uint8),  # rows of the current run in the ring, at most RING_ROWS
    "interval_head": ((), np.uint8),
    "intervals_known": ((), np.uint8),
    "pauses": ((PAUSES,), np.float32),  # lengths of the last pauses, newest first, seconds
    "pause_ages": ((PAUSES,), np.uint8),  # rows since each of them
    "last_offset": ((), np.int64),  # of the newest record, even if that was late or a duplicate
    **MEMORY,
}
"""State of each link: shape and dtype. In total 39 x (11 x 4 + 6 x 2) + 9 x 4 + 30 + 1,161 = 3,411 bytes a link."""


class Rings:
    """The arrays of RINGS, by name. Row k of each array belongs to slot k; there may be more rows than links.

    >>> rings = Rings()
    >>> rings.make_room(1, links_max=100)
    >>> rings["numeric"].shape[1:], rings["rows"][0].item()
    ((39, 11), 0)
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in RINGS.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    @property
    def memory(self) -> Memory:
        """The arrays of the memory, for the kernels."""
        return Memory(*(self._arrays[name] for name in MEMORY))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def make_room(self, links: int, links_max: int) -> None:
        """Grow the arrays, by half of them, if they have fewer rows than links.

        Args:
            links: How many links there are.
            links_max: How many links there may be at most.
        """
        held = links - 1
        if held < len(self._arrays["head"]):
            return
        capacity = max(links, min(links_max, max(_FIRST_CAPACITY, held + held // 2)))
        for name, array in self._arrays.items():
            grown = np.zeros((capacity, *array.shape[1:]), array.dtype)
            grown[:held] = array
            self._arrays[name] = grown

    def select(self, slots: Ints, count: int) -> None:
        """Let the given slots become slots 0, 1, ..., and empty the others.

        Args:
            slots: int32 (K,), ascending.
            count: How many links there were.
        """
        for array in self._arrays.values():
            array[: len(slots)] = array[slots]
            array[len(slots) : count] = 0

    def rewind(self, slots: Ints, time_s: float) -> None:
        """Empty the rings of links whose newest time was wrong. Levels and profiles stay; the running hour is dropped.

        Args:
            slots: int32 (K,).
            time_s: Their newest time from now on, UTC seconds.
        """
        for name in ("head", "rows", "interval_head", "intervals_known", "pauses", "pause_ages"):
            self._arrays[name][slots] = 0
        drop_running_hour(self.memory, slots)
        self._arrays["last_time_s"][slots] = time_s

    def copies(self, links: int) -> dict[str, NDArray[Any]]:
        """Return copies of the first rows of all arrays."""
        return {name: array[:links].copy() for name, array in self._arrays.items()}

    def restore(self, state: dict[str, NDArray[Any]], links: int) -> None:
        """Restore copies of the arrays that `copies` returned. Raises ValueError if one has another shape or dtype."""
        for name, (shape, dtype) in RINGS.items():
            array = state[name]
            if array.shape != (links, *shape) or array.dtype != dtype:
                raise ValueError(f"state {name}: {array.dtype} {array.shape} instead of {np.dtype(dtype)} {(links, *shape)}")
            self._arrays[name] = array.copy()
