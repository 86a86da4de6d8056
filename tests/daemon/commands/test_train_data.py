"""Findings of `dwcp-learner train` in a recording before it trains, and the cases in which it refuses to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from daemon.commands.train import _spec, examined
from daemon.commands.train_options import CHOICES, OptionError, TrainOptions, options_of
from daemon.config.sections import TrainingSection
from model.spec.architecture import ARCHITECTURES, DEFAULT_HORIZONS, forecasting
from model.spec.run import RunSpec
from streams.source import SourceError

HEADER = "timestamp,node_id,peer_id,link_type,rtt_ms,throughput_mbps,packet_loss\n"
START_S = 1_700_000_000


def options(data_path: Path, output_dir: Path, **changes: object) -> TrainOptions:
    given: dict[str, object] = {
        "epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "window_size": 30, "validation_split": 0.15, "test_split": 0.15, "seed": 1,
        "horizon": 1, "link_key": None, "architecture": "small", "patience": 1, "time_limit_s": 60.0,
    }  # fmt: skip
    return options_of(data_path, output_dir, **(given | changes))  # type: ignore[arg-type]


def csv(folder: Path, rows: list[str]) -> Path:
    path = folder / "telemetry.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def series(rows: int, node: Callable[[int], str] = lambda _row: "a", rtt: Callable[[int], object] = lambda row: 20 + row % 7) -> list[str]:
    """One row a minute; throughput is 100, and loss is never measured."""
    return [f"{START_S + 60 * row},{node(row)},p,metro,{rtt(row)},100," for row in range(rows)]


def found(path: Path, tmp_path: Path, **changes: object) -> dict[str, str]:
    """level and text of the findings."""
    _, quality = examined(options(path, tmp_path / "out", **changes))
    return {finding.what: finding.level for finding in quality.findings}


def test_a_good_recording(tmp_path: Path) -> None:
    """Columns that are constant or empty are reported; nothing is refused."""
    _, quality = examined(options(csv(tmp_path, series(1000)), tmp_path / "out"))
    assert (quality.rows, quality.links, quality.gaps, quality.interval_s) == (1000, 1, 0, 60.0)
    assert quality.windows == {"train": 670, "validation": 120, "test": 120}
    assert quality.missing_ratio["packet_loss"] == 1.0
    assert set(quality.unmeasured) == {"packet_loss", "jitter_ms"}
    assert "throughput_mbps" in quality.constant
    assert quality.errors == []


def test_random_links_are_one_series(tmp_path: Path) -> None:
    """If nearly every row has a link of its own, the file is one series, with a warning; a key that was given is not changed."""
    path = csv(tmp_path, series(1000, node=lambda row: f"n{row}"))
    recording, quality = examined(options(path, tmp_path / "out"))
    assert len(recording.table.links) == 1
    assert quality.errors == []
    assert any("less than the 4 rows" in finding.what and finding.level == "warning" for finding in quality.findings)
    _, kept = examined(options(path, tmp_path / "out", link_key="node_id"))
    assert kept.links == 1000
    assert [error.what for error in kept.errors] == ["too few windows (0 train, 0 validation, 0 test; 64 to train on are needed)"]


@pytest.mark.parametrize(
    ("rows", "level", "reported"),
    [
        pytest.param(series(20), "error", "too few windows", id="one link with 20 rows"),
        pytest.param(series(500, rtt=lambda _row: 5), "error", "never change", id="all-constant columns"),
        pytest.param(series(400)[::-1], "note", "come after a later one", id="non-monotonic time"),
        pytest.param(series(400) + series(10), "warning", "10 rows repeat a time of their link", id="duplicates"),
        pytest.param(series(400, rtt=lambda row: "1e39" if row == 7 else row), "warning", "1 out_of_range", id="over float32"),
        pytest.param(series(400, rtt=lambda row: "1e30" if row == 7 else row), "note", "are never measured", id="1e30 is a number"),
        pytest.param(series(300) + [row.replace(str(START_S)[:4], "1800") for row in series(300)], "note", "1 gaps", id="a gap"),
    ],
)
def test_findings(tmp_path: Path, rows: list[str], level: str, reported: str) -> None:
    """Each kind of defect is reported, with the weight that it has."""
    assert any(reported in what and each == level for what, each in found(csv(tmp_path, rows), tmp_path).items())


def test_nothing_valid(tmp_path: Path) -> None:
    """NaN in every row is refused record by record, and the message says why."""
    rows = [f"{START_S + 60 * row},a,p,metro,nan,nan,nan" for row in range(50)]
    with pytest.raises(SourceError, match="none of its 50 records is valid telemetry"):
        examined(options(csv(tmp_path, rows), tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"window_size": 1}, "--window-size 1"),
        ({"window_size": 241}, "--window-size 241"),
        ({"link_key": "node_id,colour"}, "--link-key node_id,colour: unknown column colour; use some of"),
        ({"architecture": "huge"}, "--architecture huge"),
        ({"validation_split": 0.6, "test_split": 0.5}, "--validation-split"),
        ({"test_split": 0.0}, "--test-split"),
        ({"test_split": float("nan")}, "--test-split"),
        ({"time_zone": "Berlin"}, r"--time-zone 'Berlin' is not a time zone; did you mean Europe/Berlin\?"),
        ({"holidays": "de"}, r"--holidays 'de' is not a country with known holidays; did you mean DE\?"),
        ({"holidays": "missing.ics"}, "--holidays missing.ics: cannot be read"),
    ],
)
def test_wrong_flags(tmp_path: Path, changes: dict[str, object], flag: str) -> None:
    """A flag that makes no sense is named."""
    with pytest.raises(OptionError, match=flag) as refused:
        options(tmp_path / "x.csv", tmp_path / "out", **changes)
    assert refused.value.exit_code == 2


def test_the_time_zone_reaches_the_training(tmp_path: Path) -> None:
    """The run file of the child has the zone, and the days of the holidays."""
    chosen = options(csv(tmp_path, series(200)), tmp_path / "out", time_zone="Europe/Berlin", holidays="DE")
    recording, quality = examined(chosen)
    spec = _spec(chosen, recording.table, quality, tmp_path)
    assert RunSpec.from_json((tmp_path / "run.json").read_bytes()).local_time == spec.local_time
    assert spec.local_time.zone == "Europe/Berlin"
    assert date(2026, 10, 3) in spec.local_time.calendars["DE"]


@pytest.mark.parametrize("name", [*ARCHITECTURES, "full", "small"])
def test_every_architecture_can_be_chosen_and_is_described(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its tag on the command line and in the configuration; the two other names are those of the command line alone."""
    monkeypatch.setenv("COLUMNS", "200")
    assert options(tmp_path / "x.csv", tmp_path / "out", architecture=name).architecture == forecasting(CHOICES[name], DEFAULT_HORIZONS)
    assert f"{name}: " in " ".join(cli("train", "--help")[1].split())
    if name in ARCHITECTURES:
        assert TrainingSection(architecture=name).architecture == name
        assert f"{name}: {ARCHITECTURES[name].SUMMARY}" in str(TrainingSection.model_fields["architecture"].description)
        assert ARCHITECTURES[name].SUMMARY
    else:
        with pytest.raises(ValueError, match="'lstm', 'linear'"):
            TrainingSection(architecture=name)


@pytest.mark.parametrize("kind", ["a file", "somebody's folder", "in a file"])
def test_the_output_folder(tmp_path: Path, cli: Callable[..., tuple[int, str, str]], kind: str) -> None:
    """Nothing that no training wrote is ever replaced, and nothing is read before that is clear."""
    output = tmp_path / "out"
    if kind == "a file":
        output.write_text("mine")
    elif kind == "in a file":
        output.write_text("mine")
        output = output / "sub"
    else:
        output.mkdir()
        (output / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    code, _, errors = cli("train", "--data-path", csv(tmp_path, series(400)), "--output-dir", output)
    assert code == 1
    assert "--output-dir" in errors
    assert set(before) | {tmp_path / "telemetry.csv"} == set(tmp_path.rglob("*"))


def test_a_folder_that_cannot_be_made(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    """Nobody, root neither, makes a folder in /proc: that is reported before anything is trained."""
    code, _, errors = cli("train", "--data-path", csv(tmp_path, series(400)), "--output-dir", "/proc/dwcp/out")
    assert code == 1
    assert "--output-dir" in errors


def test_a_file_that_is_not_there(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    """The exit code is that of a source, and the message names the file."""
    code, _, errors = cli("train", "--data-path", tmp_path / "absent.csv", "--output-dir", tmp_path / "out")
    assert code == 5
    assert "absent.csv" in errors


@pytest.mark.parametrize(
    ("changes", "horizons", "coverage"),
    [
        ({}, DEFAULT_HORIZONS, 0.9),
        ({"horizons": "1"}, (1,), 0.9),
        ({"horizons": "1, 5,24", "coverage": 0.8}, (1, 5, 24), 0.8),
        ({"horizon": 5}, (), 0.9),
    ],
)
def test_horizons_of_the_command_line(tmp_path: Path, changes: dict[str, object], horizons: tuple[int, ...], coverage: float) -> None:
    """Those of the daemon by default; --horizon forecasts one row alone, and without an interval."""
    found = options(tmp_path, tmp_path / "out", **changes)
    assert (found.architecture.ahead.horizons, found.architecture.ahead.coverage) == (horizons, coverage)
    assert found.horizon_rows == changes.get("horizon", 1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"horizons": "1,5,3"}, "--horizons 1,5,3: horizons are rows ahead that ascend from 1"),
        ({"horizons": "5,15"}, "--horizons 5,15: horizons are rows ahead that ascend from 1"),
        ({"horizons": "0,1"}, "ascend from 1"),
        ({"horizons": ""}, "--horizons : use whole numbers of rows"),
        ({"horizons": ","}, "use whole numbers of rows"),
        ({"horizons": "1;5"}, "--horizons 1;5: use whole numbers of rows, such as 1,5,15,30,60"),
        ({"horizons": "1,2.5"}, "use whole numbers of rows"),
        ({"horizons": "1,,5"}, "use whole numbers of rows"),
        ({"horizons": "one"}, "use whole numbers of rows"),
        ({"horizons": "1," + "9" * 5_000}, "--horizons"),
        ({"horizons": "1,20000"}, "none over 10,000 rows"),
        ({"coverage": 0.3}, "--coverage 0.3: coverage is 0.3; use 0.5 to 0.99"),
        ({"horizon": 5, "horizons": "1,5"}, "--horizon 5 --horizons 1,5: use one of them"),
    ],
)
def test_impossible_horizons_are_refused_by_their_flag(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    """Only the flags that were given are named, and what to write instead."""
    with pytest.raises(OptionError) as refused:
        options(tmp_path, tmp_path / "out", **changes)
    assert problem in str(refused.value)
    assert "None" not in str(refused.value)
    assert "invalid literal" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_short_runs_are_windows_if_horizons_are_forecast(tmp_path: Path) -> None:
    """A recording whose runs are 12 rows long has windows then, and none for the next row alone; its links stay apart either way."""
    pause_s = [86_400 * (row // 12) + 172_800 * (row // 24) for row in range(240)]  # one and three days, alternating: not a rhythm
    rows = [f"{START_S + 60 * row + pause_s[row]},{node},p,metro,{20 + row % 7},100," for node in "ab" for row in range(240)]
    path = csv(tmp_path, rows)
    _, several = examined(options(path, tmp_path / "out", horizons="1,3"))
    assert several.links == 2
    assert several.windows["train"] > 200
    assert several.windows["test"] > 20
    _, alone = examined(options(path, tmp_path / "out", horizon=2))
    assert alone.windows == {"train": 0, "validation": 0, "test": 0}
