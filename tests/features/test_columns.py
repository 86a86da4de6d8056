"""The table of columns: what derives from it, and that a column in the wrong place is an error and not a wrong number."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features import kernels
from features.columns import COLUMN, LARGEST, RANGES, TABLE, first_of, in_rows
from features.definition import FEATURES, VERSION
from features.telemetry import CALENDAR, CATEGORIES, COLUMNS, NUMERIC, TARGETS
from streams.records.decode import Record

FEATURES_OF_VERSION = {1: "3f27515abe5839f9"}


def test_each_numeric_column_has_one_position_and_the_targets_come_first() -> None:
    assert in_rows(TABLE) == NUMERIC
    assert NUMERIC[: len(TARGETS)] == TARGETS
    assert {COLUMN[name].role for name in TARGETS} == {"target"}
    assert FEATURES[: len(TARGETS)] == TARGETS


@pytest.mark.parametrize(
    ("name", "position"), [("rtt_ms", 2), ("queue_depth", 11), ("throughput_mbps", None)], ids=["twice", "hole", "none"]
)
def test_positions_that_do_not_count_from_0_on_are_refused(name: str, position: int | None) -> None:
    with pytest.raises(ValueError, match="must be 0, 1, 2 and so on, each once; they are "):
        in_rows([replace(column, position=position) if column.name == name else column for column in TABLE])


def test_a_column_before_a_target_is_refused() -> None:
    """All that reads `row[: len(TARGETS)]` would read it."""
    changed = [replace(c, position={"jitter_ms": 4, "congestion_window": 3}.get(c.name, c.position)) for c in TABLE]
    with pytest.raises(ValueError, match="0 to 3, before all other numeric columns"):
        in_rows(changed)


def test_a_group_that_is_torn_apart_is_refused() -> None:
    """A kernel that loops over a group from its first position would write into other features."""
    assert first_of(("b", "c"), ("a", "b", "c")) == 1
    for order in (("a", "b", "x", "c"), ("c", "b"), ("a", "b")):
        with pytest.raises(ValueError, match="b, c must follow one another"):
            first_of(("b", "c"), order)


def test_kernels_look_their_positions_up() -> None:
    """In the order of today they are the numbers that were written out before."""
    positions = {name: value for name, value in vars(kernels).items() if name.startswith("_F_")}
    assert [positions[f"_F_{name}"] for name in ("TARGETS", "HOUR", "WEEKDAY", "WINDOW", "QUEUE", "RETRANSMITS")] == [0, 4, 5, 6, 7, 8]
    assert [positions[f"_F_{name}"] for name in ("TOTAL", "RATIO", "LOAD", "CONGESTION", "CODES", "MEANS")] == [9, 10, 11, 12, 13, 19]
    assert [positions[f"_F_{name}"] for name in ("CHANGES", "DEVIATIONS", "CYCLES", "RTT_RATIO")] == [31, 35, 39, 43]


def test_the_order_of_the_features_belongs_to_a_version() -> None:
    """Names or an order that change need a new definition.VERSION, and a line here: a trained model must not be given other features."""
    assert FEATURES_OF_VERSION[VERSION] == hashlib.sha256(",".join(FEATURES).encode()).hexdigest()[:16]


def test_the_record_that_is_decoded_has_the_columns_of_the_table() -> None:
    """msgspec expects keys in the order of the fields; a text that is missing is None, a number NaN."""
    assert Record.__struct_fields__ == COLUMNS
    empty = Record()
    assert [name for name in COLUMNS if getattr(empty, name) is None] == [
        "region",
        "az",
        "link_type",
        "node_id",
        "peer_id",
        *CATEGORIES[3:],
    ]


def test_ranges_are_of_numeric_columns_and_fit_into_float32() -> None:
    assert tuple(RANGES) == NUMERIC
    assert [name for name in NUMERIC if RANGES[name][1] < LARGEST] == ["packet_loss", *CALENDAR]
    assert all(0.0 == low < high <= np.finfo(np.float32).max for low, high in RANGES.values())


CHANGED_TABLE = """
import importlib, json, sys
import numpy as np
from features import columns
if len(sys.argv) > 1:
    a, b = sys.argv[1:]
    positions = {a: columns.COLUMN[b].position, b: columns.COLUMN[a].position}
    from dataclasses import replace
    columns.TABLE = tuple(replace(c, position=positions.get(c.name, c.position)) for c in columns.TABLE)
from features.definition import FEATURES
from features.kernels import feature_row
from features.telemetry import CATEGORIES, NUMERIC
numeric = np.array([[{"queue_depth": 7.0, "retransmits": 9.0}.get(name, 1.0) for name in NUMERIC]], np.float32)
out = np.empty(len(FEATURES), np.float32)
no_codes, encoding = np.full((1, len(CATEGORIES)), -1, np.int16), np.zeros((len(CATEGORIES), 1), np.float32)
feature_row(numeric, no_codes, encoding, 0, 0, out)
found = {name: float(out[FEATURES.index(name)]) for name in ("queue_depth", "retransmits", "rtt_ms", "rtt_mean_3")}
print(json.dumps([found, sum(feature_row.stats.cache_hits.values())]))
"""


def test_compiled_code_of_another_table_is_not_loaded(tmp_path: Path) -> None:
    """Two columns change places in the table: the kernels, whose file is the same, are compiled anew and compute the same features."""

    def started(*exchanged: str) -> str:
        command = [sys.executable, "-c", CHANGED_TABLE, *exchanged]
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        return subprocess.run(command, cwd=Path(kernels.__file__).parents[1], env=env, capture_output=True, text=True, check=True).stdout

    expected = '{"queue_depth": 7.0, "retransmits": 9.0, "rtt_ms": 1.0, "rtt_mean_3": 1.0}'
    assert started() == f"[{expected}, 0]\n"
    assert started() == f"[{expected}, 1]\n"
    assert started("queue_depth", "retransmits") == f"[{expected}, 0]\n"
