"""The codes of categories: those that a model version carries, and those that a stream has seen so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from features.telemetry import CATEGORIES, Codes, Floats, Longs

MISSING: Final = -1
OTHER: Final = 0
"""Code of every value that a model version does not know."""
MAX_VALUES: Final = 32_767
"""Largest number of values of one category at a time (int16 codes). One more needs room, see `Interner.forget`."""
OVERFLOW: Final = "(other)"
"""Replacement of a forgotten value in the rows that links still hold."""
FORGOTTEN_SHARE: Final = 8
"""Share of the values (1 in 8) that is forgotten when a category is full: a flood of new values does not renumber the rest for each."""


@dataclass(frozen=True)
class Vocabulary:
    """The values of each category that a model version knows. Code 0 is OTHER, value i has the code i + 1.

    Args:
        values: For each of CATEGORIES its values.

    Raises:
        ValueError: The number of categories is wrong.

    >>> vocabulary = Vocabulary.empty().extended([["us", "eu"], *([()] * 5)])
    >>> vocabulary.extended([["ap"], *([()] * 5)]).values[0]  # appended: no code changes its meaning
    ('eu', 'us', 'ap')
    >>> vocabulary.encoding([["us", "af"], *([[]] * 5)])[0].tolist()
    [2.0, 0.0]
    """

    values: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(CATEGORIES):
            raise ValueError(f"a vocabulary has {len(CATEGORIES)} categories ({', '.join(CATEGORIES)}), not {len(self.values)}")

    @classmethod
    def empty(cls) -> Vocabulary:
        """Return a vocabulary without values."""
        return cls(tuple(() for _ in CATEGORIES))

    def extended(self, seen: Sequence[Iterable[str]]) -> Vocabulary:
        """Return this vocabulary with new values appended in sorted order, so that no code ever changes its meaning.

        Args:
            seen: For each of CATEGORIES the values to add; known ones are skipped.
        """
        return Vocabulary(tuple(known + tuple(sorted(set(values) - set(known))) for known, values in zip(self.values, seen, strict=True)))

    def encoding(self, stream_values: Sequence[Sequence[str]]) -> Floats:
        """Return the feature value of each code of a stream.

        Args:
            stream_values: For each of CATEGORIES the values of the stream's Interner, at most K.

        Returns:
            float32 (C, K).
        """
        width = max(1, *(len(values) for values in stream_values))
        encoding = np.zeros((len(CATEGORIES), width), np.float32)
        for row, known, values in zip(encoding, self.values, stream_values, strict=True):
            code_of = {value: code for code, value in enumerate(known, start=1)}
            row[: len(values)] = [code_of.get(value, OTHER) for value in values]
        return encoding

    def to_json(self) -> dict[str, list[str]]:
        """Return the JSON form: {category: [values]}."""
        return {name: list(values) for name, values in zip(CATEGORIES, self.values, strict=True)}

    @classmethod
    def from_json(cls, document: object) -> Vocabulary:
        """Return the vocabulary of a JSON form. Raises ValueError unless it is {category: [values]} for exactly the known categories."""
        if not isinstance(document, dict) or set(document) != set(CATEGORIES):
            raise ValueError(f"a vocabulary needs exactly the keys {', '.join(CATEGORIES)}")
        for name, values in document.items():
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise ValueError(f"the vocabulary of {name} is not a list of strings")
        return cls(tuple(tuple(document[name]) for name in CATEGORIES))


@dataclass
class Interner:
    """The values of each category that one stream has shown, by code: in the order in which they came, until one has to be forgotten.

    Args:
        values: For each of CATEGORIES its values.
        max_values: Of one category.

    >>> interner = Interner()
    >>> interner.codes([["eu", "us", "eu", None], *([[None] * 4] * 5)])[:, 0].tolist()
    [0, 1, 0, -1]
    """

    values: list[list[str]] = field(default_factory=lambda: [[] for _ in CATEGORIES])
    max_values: int = MAX_VALUES

    def __post_init__(self) -> None:
        self._code_of = [_codes_of(values) for values in self.values]
        self._seen: list[Longs] = [_never_seen(len(values)) for values in self.values]
        """int64 (K, 2) for each category: offset of the last record with the value, -1 if unknown, and how many records had it."""
        self.forgotten = 0
        """Number of times that values were forgotten. After each, codes may stand for other values."""

    def codes(self, columns: Sequence[Sequence[str | None]]) -> Codes:
        """Return the codes of N records, int16 (N, C), -1 if missing. New values get the next code.

        Args:
            columns: For each of CATEGORIES the values of the N records.
        """
        codes = np.empty((len(columns[0]), len(CATEGORIES)), np.int16)
        for category, column in enumerate(columns):
            code_of = self._code_of[category]
            try:
                codes[:, category] = [code_of[value] for value in column]
            except KeyError:
                codes[:, category] = [self._code(category, value) for value in column]
        return codes

    def seen(self, codes: Codes, offsets: Longs) -> None:
        """Count which values the N records of a batch have shown.

        Args:
            codes: int16 (N, C), from `codes`.
            offsets: int64 (N,), ascending.
        """
        for category, values in enumerate(self.values):
            present = codes[:, category] >= 0
            column, seen = codes[present, category], self._seen[category]
            seen[column, 0] = offsets[present]  # of several records with a value the last one stays
            seen[: len(values), 1] += np.bincount(column, minlength=len(values))

    def room(self, columns: Sequence[Sequence[str | None]]) -> tuple[int, int | None]:
        """Return how many of the N records come before one with a new value for which there is no room, and the category of that value.

        Args:
            columns: For each of CATEGORIES the values of the N records.
        """
        count = len(columns[0])
        first: tuple[int, int | None] = (count, None)
        for category, (column, code_of, values) in enumerate(zip(columns, self._code_of, self.values, strict=True)):
            left = self.max_values - 1 - len(values)
            if left >= count:
                continue
            new: set[str | None] = set()
            for row, value in enumerate(column[: first[0]]):
                if value not in code_of and value not in new:
                    if len(new) >= left:
                        first = (row, category)
                        break
                    new.add(value)
        return first

    def forget(self, category: int) -> Codes:
        """Make room in a full category: forget an eighth of its values, first those that came once, then those not seen for longest.

        A forgotten value has the code of OVERFLOW from now on, and a new code if it comes again. Depends on the stream alone.

        Args:
            category: Index into CATEGORIES.

        Returns:
            int16 (K + 1,), the new code of each of the K old ones. The last element, which the code MISSING (-1) selects, is MISSING.
        """
        values, seen = self.values[category], self._seen[category][: len(self.values[category])]
        oldest_first = np.lexsort((seen[:, 0], np.minimum(seen[:, 1], 2)))
        oldest_first = oldest_first[oldest_first != self._code_of[category].get(OVERFLOW, MISSING)]
        goes = np.zeros(len(values), np.bool_)
        goes[oldest_first[: max(1, self.max_values // FORGOTTEN_SHARE) + max(0, len(values) - self.max_values)]] = True
        stay = np.flatnonzero(~goes)
        self.values[category][:] = [values[code] for code in stay.tolist()]
        self._seen[category] = seen[stay]
        self._code_of[category] = _codes_of(self.values[category])
        if OVERFLOW not in self._code_of[category]:
            self._append(category, OVERFLOW)
        mapping = np.full(len(goes) + 1, self._code_of[category][OVERFLOW], np.int16)
        mapping[stay] = np.arange(len(stay), dtype=np.int16)
        mapping[-1] = MISSING
        self.forgotten += 1
        return mapping

    def state(self) -> Longs:
        """Return the state that `restored` needs beside the values: int64 (K, 2), of all categories one after another."""
        return np.concatenate([seen[: len(values)] for values, seen in zip(self.values, self._seen, strict=True)])

    @classmethod
    def restored(cls, values: list[list[str]], state: Longs, max_values: int = MAX_VALUES) -> Interner:
        """Return the interner whose values and `state` are given. Raises ValueError if they do not fit together."""
        if state.shape != (sum(map(len, values)), 2) or state.dtype != np.int64:
            raise ValueError(f"state names: {state.dtype} {state.shape} instead of int64 {(sum(map(len, values)), 2)}")
        made = cls(values, max_values)
        made._seen = [part.copy() for part in np.split(state, np.cumsum([len(names) for names in values])[:-1])]
        return made

    def _code(self, category: int, value: str | None) -> int:
        code_of, values = self._code_of[category], self.values[category]
        code = code_of.get(value)
        if code is not None or value is None:
            return MISSING if code is None else code
        if len(values) >= self.max_values - 1:
            # Without room a value is not remembered: a stream of ever new values must not grow the table.
            return code_of[OVERFLOW] if OVERFLOW in code_of else self._append(category, OVERFLOW)
        return self._append(category, value)

    def _append(self, category: int, value: str) -> int:
        self._code_of[category][value] = len(self.values[category])
        self.values[category].append(value)
        if len(self._seen[category]) < len(self.values[category]):
            room = max(16, len(self.values[category]) // 2)
            self._seen[category] = np.append(self._seen[category], _never_seen(room), axis=0)
        return len(self.values[category]) - 1


def _codes_of(values: Sequence[str]) -> dict[str | None, int]:
    return {None: MISSING, **{value: code for code, value in enumerate(values)}}


def _never_seen(count: int) -> Longs:
    return np.tile(np.array([-1, 0], np.int64), (count, 1))
