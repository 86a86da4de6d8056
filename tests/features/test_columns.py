"""The table of columns: what derives from it, and that a column in the wrong place is an error and not a wrong number."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
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
    """In today's order they are the numbers that were written out before."""
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


WINDOW = """
import json
import numpy as np
from features.kernels import update_rings
from features.store import FeatureStore
from features.telemetry import NUMERIC, Partition
from features.vocabulary import Vocabulary
from streams.records.decode import decode
from streams.source import RawBatch
values = [json.dumps({
    "timestamp": 1767571200 + 60 * row, "node_id": "a", "peer_id": "b", "link_type": "metro", "queue_depth": row, "retransmits": 50 - row,
    "throughput_mbps": 100 + row % 7, "rtt_ms": 20 + row % 5, "hops": 3,
}).encode() for row in range(40)]
batch = decode(RawBatch(Partition("t", 0), range(len(values)), values), None).batch
store = FeatureStore()
rows = store.update(batch, store.resolve(batch), np.ones(1, np.bool_), Vocabulary.empty())
hits = sum(update_rings.stats.cache_hits.values())
print(json.dumps([len(NUMERIC), hits, np.nan_to_num(rows.windows[-1], nan=-1.0).tolist()]))
"""
MORE = 'Column("hops", "counter", "Hops on the way.", 11),'


def test_a_changed_table_gives_the_same_features(tmp_path: Path) -> None:
    """Two columns change places, then one is added by one row: the same records have the same features, to the bit.

    The file of the kernels stays as it is, and so would their compiled code, if it were not for the constants in it.
    """
    root = Path(kernels.__file__).parents[1]
    for package in ("features", "streams"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    table = tmp_path / "features" / "columns.py"
    as_it_is = table.read_text()
    exchanged = as_it_is.replace('interval.", 6)', 'interval.", 5)').replace('queued.", 5)', 'queued.", 6)')
    longer = as_it_is.replace('    Column("bandwidth_mbps"', f'    {MORE}\n    Column("bandwidth_mbps"')
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tmp_path)}
    found = []
    for text in (as_it_is, as_it_is, exchanged, longer):
        table.write_text(text)
        command = [sys.executable, "-c", WINDOW]
        found.append(json.loads(subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout))
    assert [(columns, hits) for columns, hits, _ in found] == [(11, 0), (11, 1), (11, 0), (12, 0)]
    first = np.array(found[0][2])
    assert (first[:, FEATURES.index("queue_depth")].tolist(), first.shape) == (list(range(10, 40)), (30, len(FEATURES)))
    assert all(window == found[0][2] for _, _, window in found)
