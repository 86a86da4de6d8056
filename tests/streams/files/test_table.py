"""A recording as one table: the rows that the stream would accept, and what became of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.telemetry import NUMERIC
from streams.files.recording import read_recording
from streams.source import SourceError

HEADER = "timestamp,node_id,peer_id,link_type,region,rtt_ms,throughput_mbps"


def recording(folder: Path, *lines: str) -> Path:
    path = folder / "telemetry.csv"
    path.write_text("\n".join((HEADER, *lines)) + "\n")
    return path


def test_rows_come_by_link_and_time(tmp_path: Path) -> None:
    """Rows of a link are together and ascend, for any order of the file. Equal times are duplicates, and refused records are counted."""
    path = recording(
        tmp_path,
        "1700000060,b,p,metro,eu,2,",
        "1700000000,a,p,metro,us,1,10",
        "1700000000,b,p,metro,eu,3,",
        "1700000000,b,p,metro,eu,4,",
        "1700000120,a,p,metro,us,-5,10",
        "nonsense,a,p,metro,us,5,10",
        "1700000060,a,p,metro,,7,",
    )
    read = read_recording(path)
    table = read.table
    assert [table.links[link] for link in table.link] == ["a|p|metro", "a|p|metro", "b|p|metro", "b|p|metro"]
    assert table.time_s.tolist() == [1.7e9, 1.7e9 + 60, 1.7e9, 1.7e9 + 60]
    assert table.numeric[:, NUMERIC.index("rtt_ms")].tolist() == [1, 7, 3, 2]
    region = [table.values[0][code] if code >= 0 else None for code in table.codes[:, 0]]
    assert region == ["us", None, "eu", "eu"]
    assert (read.records, read.duplicates, sum(read.rejected.values())) == (7, 1, 2)
    assert {record.line for record in read.examples} == {("telemetry.csv", 6), ("telemetry.csv", 7)}
    assert read.backwards == 1, "the row of b at 0 s stands behind that at 60 s"
    assert read.columns == ("timestamp", "region", "link_type", "node_id", "peer_id", "rtt_ms", "throughput_mbps")


def test_without_a_key_all_rows_are_one_series(tmp_path: Path) -> None:
    """Node and peer may be random in every row: then the file is one series."""
    path = recording(tmp_path, *(f"{1_700_000_000 + 60 * row},n{row},p,metro,eu,{row},1" for row in range(5)))
    table = read_recording(path, ()).table
    assert len(table.links) == 1
    assert np.all(np.diff(table.time_s) == 60)


def test_nothing_to_read(tmp_path: Path) -> None:
    """A file of which nothing is accepted gives an empty table, as does a header alone; no file at all is an error."""
    assert len(read_recording(recording(tmp_path, "nonsense,a,p,metro,us,5,10")).table) == 0
    assert len(read_recording(recording(tmp_path)).table) == 0
    with pytest.raises(SourceError):
        read_recording(tmp_path / "absent.csv")
