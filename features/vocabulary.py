"""The codes of categories: what each model version carries, and what a stream has seen so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from features.telemetry import CATEGORIES, Codes, Floats

MISSING: Final = -1
OTHER: Final = 0
"""Code of every value that a model version does not know."""
MAX_VALUES: Final = 32_767
"""Distinct values of one category that are told apart (int16 codes); what comes later counts as OVERFLOW."""
OVERFLOW: Final = "(other)"


@dataclass(frozen=True)
class Vocabulary:
    """The values of each category that a model version knows. Code 0 is OTHER, value i has the code i + 1."""

    values: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(CATEGORIES):
            raise ValueError(f"a vocabulary has {len(CATEGORIES)} categories ({', '.join(CATEGORIES)}), not {len(self.values)}")

    @classmethod
    def empty(cls) -> Vocabulary:
        return cls(tuple(() for _ in CATEGORIES))

    def extended(self, seen: Sequence[Iterable[str]]) -> Vocabulary:
        """This vocabulary with new values appended in sorted order, so that no code ever changes its meaning."""
        return Vocabulary(tuple(known + tuple(sorted(set(values) - set(known))) for known, values in zip(self.values, seen, strict=True)))

    def encoding(self, stream_values: Sequence[Sequence[str]]) -> Floats:
        """float32 (6, K): the feature value of each code that a stream's Interner gave (K: its largest number of values)."""
        width = max(1, *(len(values) for values in stream_values))
        encoding = np.zeros((len(CATEGORIES), width), np.float32)
        for row, known, values in zip(encoding, self.values, stream_values, strict=True):
            code_of = {value: code for code, value in enumerate(known, start=1)}
            row[: len(values)] = [code_of.get(value, OTHER) for value in values]
        return encoding

    def to_json(self) -> dict[str, list[str]]:
        return {name: list(values) for name, values in zip(CATEGORIES, self.values, strict=True)}

    @classmethod
    def from_json(cls, document: object) -> Vocabulary:
        """Raises ValueError where the document is not {category: [values]} for exactly the known categories."""
        if not isinstance(document, dict) or set(document) != set(CATEGORIES):
            raise ValueError(f"a vocabulary needs exactly the keys {', '.join(CATEGORIES)}")
        for name, values in document.items():
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise ValueError(f"the vocabulary of {name} is not a list of strings")
        return cls(tuple(tuple(document[name]) for name in CATEGORIES))


@dataclass
class Interner:
    """The values of each category in the order in which one stream first showed them."""

    values: list[list[str]] = field(default_factory=lambda: [[] for _ in CATEGORIES])

    def __post_init__(self) -> None:
        self._code_of: list[dict[str | None, int]] = [
            {None: MISSING, **{value: code for code, value in enumerate(values)}} for values in self.values
        ]

    def codes(self, columns: Sequence[Sequence[str | None]]) -> Codes:
        """int16 (N, 6): the codes of N records' categories, -1 where missing; new values get the next code."""
        codes = np.empty((len(columns[0]), len(CATEGORIES)), np.int16)
        for category, column in enumerate(columns):
            code_of = self._code_of[category]
            try:
                codes[:, category] = [code_of[value] for value in column]
            except KeyError:
                codes[:, category] = [self._code(category, value) for value in column]
        return codes

    def _code(self, category: int, value: str | None) -> int:
        code_of, values = self._code_of[category], self.values[category]
        code = code_of.get(value)
        if code is not None or value is None:
            return MISSING if code is None else code
        if len(values) >= MAX_VALUES - 1:
            # Not remembered: a stream of ever new values must not grow the table.
            return code_of[OVERFLOW] if OVERFLOW in code_of else self._append(category, OVERFLOW)
        return self._append(category, value)

    def _append(self, category: int, value: str) -> int:
        self._code_of[category][value] = len(self.values[category])
        self.values[category].append(value)
        return len(self.values[category]) - 1
