"""Every reader of telemetry accepts the same raw bytes and reads the same (benchmarks/differential.py, on fewer inputs)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from parts import differential_run, record_grammar, record_oracle, record_readers

INPUTS = 20_000
READERS = {"decoder", "decoder alone", "decoder in chunks", "kafka", "go", "schema", "file", "pipe"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go client as a program."""
    readers = record_readers
    try:
        binary: Path = readers.build_go(tmp_path_factory.mktemp("go"))
    except readers.UnavailableError as reason:
        if os.environ.get("CI") == "true":  # there, a test that silently does not run is a defect
            raise
        pytest.skip(str(reason))
    return binary


@pytest.fixture
def run(client: Path, kafka_broker: str, kafka_topic: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Return the readings of inputs of a seed by all readers, further ones included."""

    def run_inputs(seed: int, inputs: int, extra: Any = None) -> dict[str, Any]:
        topic = kafka_topic(configs={"max.message.bytes": str(32 << 20)})
        job = {"bootstrap": kafka_broker, "topic": topic, "go": str(client), "seed": seed, "inputs": inputs}
        found: dict[str, Any] = differential_run.run(job, extra)
        return found

    return run_inputs


def test_all_readers_say_the_same(run: Callable[..., dict[str, Any]]) -> None:
    """The records are as producers write them and as nobody should; both are many, so that both cases are tested."""
    found = run(7, INPUTS)
    assert found["examples"] == []
    assert found["differences"] == 0
    assert sum(found["inputs"].values()) == INPUTS
    assert min(found["inputs"].values()) > INPUTS / 20
    assert min(found["outcomes"].values()) > INPUTS / 5
    assert found["compared"].keys() >= READERS | {"csv alone", "csv in chunks"} | {f"{name} of the record" for name in READERS}
    assert sum(found["schema_does_not_say"].values()) < INPUTS / 200


def test_a_difference_is_found_and_made_small(run: Callable[..., dict[str, Any]]) -> None:
    """A reader that knows one spelling of a name too many, as Go's own JSON package does, is shown with the least input that tells it."""

    def any_case(values: Sequence[bytes]) -> list[Any]:
        readings: list[Any] = record_readers.alone([value.replace(b"RTT_MS", b"rtt_ms") for value in values])
        return readings

    found = run(7, 2_000, {"any case": any_case})
    assert found["differences"] > 0
    smallest = min(found["examples"], key=len)
    assert "RTT_MS" in smallest
    assert len(smallest.partition("\n")[0]) < 160
    assert "any case: " in smallest


def test_the_same_seed_makes_the_same_inputs() -> None:
    """A difference can be looked for again."""
    grammars = [record_grammar.Grammar(seed) for seed in (5, 5, 6)]
    first, again, other = ([grammar.json_value() for _ in range(300)] for grammar in grammars)
    assert first == again != other
    header = grammars[0].header()
    assert header == grammars[1].header()
    assert [grammars[0].csv_line(header) for _ in range(300)] == [grammars[1].csv_line(header) for _ in range(300)]


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ("a,b", ["a", "b"]),
        (' a , "b" ', ["a", "b"]),
        ('"a,""b""",', ['a,"b"', ""]),
        ('a"b,c', ['a"b', "c"]),
        ('"a"b,c', None),
        ('"a,c', None),
        ("", [""]),
        ("\t,\xa0", ["", ""]),
    ],
)
def test_a_csv_line_by_hand(line: str, cells: list[str] | None) -> None:
    """The benchmark's own reading of a line, against which the readers are held."""
    assert record_oracle.cells_of(line) == cells


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("2026-01-05T00:00:00Z", 1767571200.0),
        ("2026-01-05 05:30:00.1234565+0530", 1767571200.123457),
        ("2025-12-31t23:59:59.9999999z", 1767225600.0),
        (1767571200, 1767571200.0),
    ],
)
def test_a_time_by_hand(text: str | float, time_s: float) -> None:
    """The benchmark's own reading of a time."""
    assert record_oracle.seconds_of(text) == time_s
