"""A command that did not reach its purpose prints what did not happen and why, and has its own exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.commands.score import Found, why_nothing
from daemon.errors import EXIT_CODES, EXIT_NOTHING

Cli = Callable[..., tuple[int, str, str]]
START_S = 1_767_571_200
FOUND = Found(
    consumed=900, accepted=900, links=3, longest_run=39, merged=False, trains=True, rows=900, rows_min=360, version=None, published=(),
    failed=(), refused=(), unusable=None,
)  # fmt: skip


def recording(path: Path, rows: int, links: int) -> Path:
    """Write rows of links in turn, a minute between two of one link."""
    values = {"peer_id": "p", "rtt_ms": 10.0, "throughput_mbps": 50.0}
    records = ({"timestamp": START_S + 60 * (row // links), "node_id": f"n{row % links}", **values} for row in range(rows))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"accepted": 0}, ["none of the 900 records was accepted"]),
        (
            {"longest_run": 1, "links": 14_959, "rows_min": 10**6},
            ["14,959 links has at most 1 row without", "1,000,000 rows (training.rows"],
        ),
        (
            {"longest_run": 3, "links": 1, "version": "v1"},
            ["the one link has at most 3 rows without", "no forecast of version v1 met a row"],
        ),
        ({"longest_run": 2, "merged": True, "refused": ("few",)}, ["the one series has at most 2 rows", "its training gave none: few"]),
        ({"trains": False}, ["--no-train trains none: leave it out, or --keep a folder with a version"]),
        ({"failed": ("killed", "killed")}, ["its training gave none: killed"]),
        ({"rows": 100}, ["the first is trained on 360 rows (training.rows_min), and there were 100"]),
        ({}, ["the recording ended before a training could start"]),
        ({"version": "v1", "published": ("v1",)}, ["v1 was live only after the last rows"]),
        ({"version": "v1", "unusable": "v1 cannot be loaded"}, ["v1 cannot be loaded"]),
    ],
)
def test_why_nothing_was_judged(changed: dict[str, Any], said: list[str]) -> None:
    """Each reason once, with what is there and what is needed, and no wrong one."""
    reasons = why_nothing(replace(FOUND, **changed))
    assert len(reasons) == len(said)
    for reason, words in zip(reasons, said, strict=True):
        assert words in reason


@pytest.mark.parametrize(("rows", "links", "said"), [(2, 1, "the one link has at most 2 rows"), (400, 400, "each of the 400 links has at")])
def test_a_replay_that_judged_nothing(cli: Cli, tmp_path: Path, rows: int, links: int, said: str) -> None:
    """A short file, and links of one row each: reasons instead of dashes, and an exit code that the help explains."""
    path = recording(tmp_path / "telemetry.ndjson", rows, links)
    code, out, _ = cli("replay", path)
    assert code == EXIT_NOTHING
    assert f"{EXIT_NOTHING} a replay in which nothing was judged" in EXIT_CODES
    assert f"nothing was judged: {said}" in out
    assert "Mean absolute error" not in out
    code, out, _ = cli("replay", path, "--json", "--no-train")
    assert code == 0, "where nothing was to be trained, nothing can be judged"
    report = json.loads(out)
    assert len(report["nothing_judged"]) == 2
    assert "--no-train" in report["nothing_judged"][1]


def test_of_a_short_recording_something_is_judged(cli: Cli, tmp_path: Path) -> None:
    """It is not read in one poll, after which its first version would have nothing left to be judged on."""
    code, out, _ = cli("replay", recording(tmp_path / "telemetry.ndjson", 900, 2), "--json")
    report = json.loads(out)
    assert (code, report["nothing_judged"], len(report["versions"])) == (0, [], 1)
    assert sum(row["forecasts"] for row in report["errors"]) > 0


def test_an_empty_models_folder(cli: Cli, tmp_path: Path) -> None:
    """The message names that it is empty, beside a valid answer for programs."""
    code, out, err = cli("models", "list", "--models", tmp_path, "--json")
    assert (code, json.loads(out)) == (0, [])
    assert "there is no version yet" in err
    assert "there is no version yet" in cli("models", "list", "--models", tmp_path)[2]


def test_a_file_without_alerts(cli: Cli, tmp_path: Path) -> None:
    """The message names the file. An incident cannot be explained then, and that is reported too."""
    (tmp_path / "drift.ndjson").write_text("")
    code, out, err = cli("alerts", "follow", "--once", "--file", tmp_path / "drift.ndjson")
    assert (code, out) == (0, "")
    assert f"there is no alert in {tmp_path / 'drift.ndjson'}" in err
    code, _, err = cli("alerts", "explain", "x", "--file", tmp_path / "drift.ndjson")
    assert code == 1
    assert "no alert was sent yet" in err
