"""Versions of several horizons, whole: an offline run, trainings of the daemon one after the other, and what each leaves behind."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as resized

from features.definition import SHORT_ROWS, WINDOW_ROWS
from features.offline import RawTable, compute, empty_row
from features.telemetry import NUMERIC, TARGETS, Floats
from model.job import Job
from model.run import run
from model.spec.architecture import DEFAULT_HORIZONS, Architecture, forecasting
from model.spec.job import JobResult, JobSpec
from model.spec.run import FINISHED, RunSpec
from model.spec.verdict import GatePolicy
from model.training.files import REPORT_NAME
from model.training.fit.start import LINEAR
from model.training.graph.core import load_weights
from model.training.graph.prove import keras_forecasts
from model.training.network.relative import COLUMNS
from model.version.contract import LOWER, MEAN
from model.version.golden import check_golden, read_golden
from model.version.manifest import read_manifest, verify
from model.version.metadata import Metadata, RawMetadata, metadata_name
from model.version.possible import highest, unscaled_ahead
from model.version.predictor import Predictor, PredictorError, core_session, read_graph, run_outputs
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows, cut, features_of
from model.windows.index import build_windows, gather
from testkit.ahead import HORIZONS, LEVELS, QUICK, TINY, Telemetry, prepared, snapshot_of
from testkit.paths import STATES
from testkit.versions import make_version

FIRST, SECOND = "v20260101_000000", "v20260102_000000"
FAR = (1, 3, 9_000)
"""The last of these lies behind the end of every recording here."""
RECORDED = Telemetry(rows=400, short_run=12)
JITTER = TARGETS.index("jitter_ms")
QUALITY = {"rows": 800, "links": 2, "from_s": 0.0, "until_s": 1.0, "gaps": 0, "missing_ratio": {}, "windows": {}, "findings": []}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an offline run on a link without a gap and one whose runs are 12 rows long."""
    work = tmp_path_factory.mktemp("recorded")
    spec = RunSpec(
        version=FIRST, created_at_s=1.79e9, source="recording", snapshot=str(snapshot_of(RECORDED.table(), work / "snapshot")),
        folder=str(work / FIRST), data_quality=QUALITY, settings=QUICK, architecture=forecasting(TINY, FAR),
    )  # fmt: skip
    assert run(spec, lambda _event: None, lambda: False) == FINISHED
    return Path(spec.folder)


def job(folder: Path, table: RawTable, version: str, parent: Path | None = None, architecture: Architecture = TINY) -> JobSpec:
    return JobSpec(
        job_id=f"job-{version}", version=version, created_at_s=1.79e9, reason="test", snapshot=str(snapshot_of(table, folder / "snapshot")),
        candidate=str(folder / version), parent=None if parent is None else str(parent), settings=QUICK, gate=GatePolicy(min_windows=20),
        architecture=architecture,
    )  # fmt: skip


def done(spec: JobSpec) -> JobResult:
    """The result of a job in this process, which has TensorFlow already."""
    return Job(spec, lambda _: None).run()


def report_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / REPORT_NAME).read_text()))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JobResult]:
    """A first version of the daemon."""
    spec = job(tmp_path_factory.mktemp("first"), Telemetry().table(), FIRST)
    return Path(spec.candidate), done(spec)


# An offline run


def test_a_version_of_several_horizons_verifies(recorded: Path) -> None:
    """Every file is there and agrees with every other, golden samples included."""
    assert verify(recorded) == []
    metadata = Metadata.read(recorded)
    assert check_golden(recorded, metadata) == []
    assert (metadata.horizons, metadata.coverage, metadata.encoder) == (FAR, 0.9, "relative")
    assert RawMetadata.read(recorded).horizons == Predictor.load(recorded).horizons == FAR
    assert not metadata.measured[JITTER]


def test_golden_samples_show_contexts_and_short_runs(recorded: Path) -> None:
    """Some windows with what the link remembers and some without, some of runs that have just begun, and bounds for each horizon."""
    core, raw = read_golden(recorded, horizons=len(FAR))
    assert core.context is not None
    assert core.ahead is not None
    assert raw.windows.context is not None
    assert raw.ahead is not None
    unknown = np.isnan(core.context).all(axis=1)
    assert 0 < unknown.sum() < len(unknown)
    assert core.ahead.shape[1:] == raw.ahead.shape[1:] == (len(FAR), 4, 4)
    rows = (~np.isnan(raw.windows.time_s)).sum(axis=1)
    assert {SHORT_ROWS, WINDOW_ROWS} <= set(rows.tolist())
    assert np.isnan(raw.ahead[:, :, JITTER]).all()
    assert np.isfinite(raw.ahead[:, :, :JITTER]).all()


def test_golden_samples_that_are_altered_are_found(recorded: Path, tmp_path: Path) -> None:
    """A bound that is moved by a tenth, a context that is another: each graph that then differs is named."""
    for change in ("ahead", "context"):
        folder = tmp_path / change
        folder.mkdir()
        for path in recorded.iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        document = json.loads((folder / "golden.json").read_text())
        core, raw = document["samples"][0], document["raw"]["samples"][0]
        if change == "ahead":
            core["ahead"][1][0][2] += 0.1
            raw["ahead"][1][0][2] *= 1.1
        else:
            core["context"][:4], raw["context"][:4] = [5_000.0] * 4, [5_000.0] * 4
        (folder / "golden.json").write_text(json.dumps(document))
        problems = check_golden(folder, Metadata.read(folder))
        assert any(problem.startswith(f"bandwidth_relative_{FIRST}.raw.onnx differs from golden.json") for problem in problems), problems
        assert any(problem.startswith(f"bandwidth_relative_{FIRST}.onnx differs from golden.json") for problem in problems), problems


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sample: sample.pop("ahead"),
        lambda sample: sample.pop("context"),
        lambda sample: sample["context"].pop(),
        lambda sample: sample["ahead"].pop(),
        lambda sample: sample["ahead"][0][0].pop(),
        lambda sample: sample["ahead"][0].__setitem__(0, [None] * 3),
        lambda sample: sample["ahead"][0][0].__setitem__(1, 1e300),
        lambda sample: sample["context"].__setitem__(0, "5"),
    ],
)
@pytest.mark.parametrize("part", ["samples", "raw"])
def test_hostile_golden_samples_are_refused(recorded: Path, tmp_path: Path, spoil: Callable[[Any], Any], part: str) -> None:
    """A part that is missing, too short, or not a number is one problem of the file, and no crash."""
    document = json.loads((recorded / "golden.json").read_text())
    spoil((document["samples"] if part == "samples" else document["raw"]["samples"])[0])
    (tmp_path / "golden.json").write_text(json.dumps(document))
    problems = check_golden(tmp_path, Metadata.read(recorded))
    assert len(problems) == 1
    assert problems[0].startswith("golden.json")


def test_the_report_has_every_horizon(recorded: Path) -> None:
    """Errors, coverage and scores of each pair, what is taken of the network, and no figures where no window was long enough."""
    report = report_of(recorded)
    horizons = report["performance"]["horizons"]
    assert [entry["rows"] for entry in horizons] == list(FAR)
    for entry in horizons[:2]:
        figures = entry["targets"]["throughput_mbps"]
        assert figures["windows"] >= 50
        assert 0 < figures["mae"] < 100
        assert 0.5 < figures["coverage"] <= 1
        assert set(figures["simple"]) == {"persistence", "ewma"}
        assert entry["targets"]["jitter_ms"]["windows"] == 0
    assert [horizons[2]["targets"][name]["windows"] for name in TARGETS] == [0] * 4
    assert horizons[2]["targets"]["throughput_mbps"]["mae"] is None
    network = report["network"]
    assert [entry["rows"] for entry in network["horizons"]] == list(FAR)
    assert all(0 <= entry["share"][name] <= 1 for entry in network["horizons"] for name in TARGETS)
    assert network["horizons"][0]["gain"]["throughput_mbps"] is not None
    assert network["horizons"][2]["gain"]["throughput_mbps"] is None
    assert "<svg" in (recorded / "report.html").read_text()


def test_metadata_declare_what_is_new(recorded: Path) -> None:
    """Each graph says that it has a context and forecasts ahead; what was declared before stays as it was."""
    document = json.loads((recorded / metadata_name(FIRST)).read_text())
    assert document["forecast"] == {"horizons_rows": list(FAR), "coverage": 0.9}
    for graph in document["graphs"].values():
        assert [port["name"] for port in graph["inputs"]] == ["context"]
        assert [port["name"] for port in graph["outputs"]] == ["ahead"]


# Its graphs


def windows_of(folder: Path) -> tuple[Floats, Floats, RawWindows]:
    """Unscaled windows and contexts (B, 3 + H, 4) of the recording, short ones among them, and the same for the raw graphs."""
    metadata, table = Metadata.read(folder), RECORDED.table()
    features = compute(table, metadata.vocabulary, horizons=metadata.horizons)
    index = build_windows(features, table, horizons=metadata.horizons)
    index = index.select(np.arange(0, len(index), 9))
    context = features.context.reshape(len(table), -1)
    windows = gather(features.features, index.end, begin=index.begin, empty=empty_row())
    assert (index.begin > index.end - 29).sum() > 10
    return windows, features.context[index.end], cut(table, features.run, index.end, context=context, short=True)


@pytest.mark.parametrize("knows", [True, False])
def test_three_graphs_and_keras_agree(recorded: Path, knows: bool) -> None:
    """At every horizon, for whole windows and short ones, with the context and without feeding it at all."""
    windows, context, raw = windows_of(recorded)
    metadata, model = Metadata.read(recorded), load_weights(recorded)
    raw = raw if knows else RawWindows(raw.time_s, raw.telemetry, raw.categories)
    np.testing.assert_array_equal(features_of(raw, metadata.vocabulary), windows)
    next_row, ahead = keras_forecasts(model, metadata, raw)
    assert ahead is not None
    predictor = Predictor.load(recorded)
    given = context if knows else None
    scale = metadata.outputs.scale[:JITTER]

    def apart(found: Floats, wanted: Floats) -> Floats:
        assert np.isnan(found[..., JITTER]).all()
        return np.abs(found - wanted)[..., :JITTER] / scale

    assert apart(predictor.predict(windows, given), next_row).max() < 1e-4
    assert apart(np.moveaxis(predictor.predict_ahead(windows, given), 2, -1), np.moveaxis(ahead, 2, -1)).max() < 1e-4
    for int8, most in ((False, 1e-4), (True, 0.1)):
        graph = RawPredictor.load(recorded, int8=int8)
        assert graph.is_ahead
        assert apart(graph.predict_windows(raw), next_row).mean() < most
        assert apart(np.moveaxis(graph.predict_ahead(raw), 2, -1), np.moveaxis(ahead, 2, -1)).mean() < most


def test_a_forecast_does_not_depend_on_the_others_of_its_batch(recorded: Path) -> None:
    """One window alone and among many have the same bits, in the core and in the raw graph; and no window has no forecast."""
    windows, context, raw = windows_of(recorded)
    predictor, graph = Predictor.load(recorded), RawPredictor.load(recorded)
    together, raw_together = predictor.predict_ahead(windows, context), graph.predict_ahead(raw)
    for window in (0, 3, len(windows) - 1):
        one = slice(window, window + 1)
        np.testing.assert_array_equal(predictor.predict_ahead(windows[one], context[one])[0], together[window])
        np.testing.assert_array_equal(predictor.predict_ahead(windows[one])[0], predictor.predict_ahead(windows)[window])
        np.testing.assert_array_equal(graph.predict_ahead(raw.take(one))[0], raw_together[window])
    np.testing.assert_array_equal(predictor.predict(windows, context), together[:, 0, :, 1])


@pytest.mark.parametrize("value", [0.0, 1e9, 1e30, -1e30, 3.4e38, np.nan])
@pytest.mark.parametrize("where", ["a row", "all rows", "the context"])
def test_graphs_forecast_only_what_is_possible(recorded: Path, value: float, where: str) -> None:
    """As they are, without what a reader limits behind them: finite, in order, not negative, no loss over 1, and no jitter."""
    windows, context, raw = windows_of(recorded)
    metadata = Metadata.read(recorded)
    if where == "the context":
        context[:] = value
        assert raw.context is not None
        raw.context[:] = value
    else:
        rows = slice(-4, -3) if where == "a row" else slice(None)
        windows[:, rows, : len(TARGETS)] = value
        raw.telemetry[:, rows, : len(TARGETS)] = value
    files = {kind: (read_graph(recorded / metadata.graph(kind).file), metadata.graph(kind)) for kind in ("core", "raw", "int8")}
    session = core_session(files["core"][0], declared=files["core"][1])
    flat = context[:64].reshape(min(64, len(context)), -1)
    (scaled,) = run_outputs(session, metadata.inputs.transform(windows[:64]), flat, ("ahead",))
    graphs = [RawPredictor.of(files[kind][0], int8=kind == "int8", declared=files[kind][1]) for kind in ("raw", "int8")]
    for found in (unscaled_ahead(scaled, metadata.outputs), *(graph.predict_ahead(raw) for graph in graphs)):
        assert np.isnan(found[:, :, JITTER]).all()
        known = found[:, :, :JITTER]
        assert np.isfinite(known).all()
        assert (np.diff(known[..., :MEAN], axis=-1) >= 0).all()
        assert (known >= 0).all()
        assert (known <= highest()[:JITTER, None]).all()


def test_no_windows_have_no_forecasts(recorded: Path) -> None:
    """An empty batch is answered with an empty one, whether it comes with contexts or not."""
    predictor = Predictor.load(recorded)
    nothing = np.empty((0, 30, 44), np.float32)
    for context in (None, np.empty((0, 3 + len(FAR), 4), np.float32)):
        assert predictor.predict(nothing, context).shape == (0, 4)
        assert predictor.predict_ahead(nothing, context).shape == (0, len(FAR), 4, 4)


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 24), (3, 6, 4), (2, 6, 3), (2, 0, 4), (6, 4), (1, 6, 4)])
def test_contexts_of_another_shape_are_refused(recorded: Path, shape: tuple[int, ...]) -> None:
    """With both shapes in the message, for the next row and for all horizons."""
    predictor = Predictor.load(recorded)
    windows, context = np.zeros((2, 30, 44), np.float32), np.zeros(shape, np.float32)
    for method in (predictor.predict, predictor.predict_ahead):
        with pytest.raises(ValueError, match=r"context must be \(2, 6, 4\), not"):
            method(windows, context)


@pytest.mark.parametrize("width", [23, 25, 0])
def test_the_raw_graph_refuses_contexts_of_another_width(recorded: Path, width: int) -> None:
    """As it refuses telemetry of another shape."""
    raw = windows_of(recorded)[2].take(slice(0, 2))
    graph = RawPredictor.load(recorded)
    with pytest.raises(ValueError, match="context must be"):
        graph.predict(raw.time_s, raw.telemetry, raw.categories, np.zeros((2, width), np.float32))
    with pytest.raises(ValueError, match="context must be"):
        graph.predict_ahead(RawWindows(raw.time_s, raw.telemetry, raw.categories, np.zeros((2, width), np.float32)))


def test_a_version_of_the_next_row_needs_no_context(tmp_path: Path) -> None:
    """It ignores one, as the daemon passes what it has, and says that it forecasts nothing further."""
    folder = make_version(tmp_path / FIRST, FIRST)
    predictor, windows = Predictor.load(folder), np.zeros((2, 30, 44), np.float32)
    context = np.ones((2, 0, 4), np.float32)
    np.testing.assert_array_equal(predictor.predict(windows, context), predictor.predict(windows))
    assert (predictor.horizons, predictor.metadata.coverage) == ((), None)
    with pytest.raises(ValueError, match=f"{FIRST} forecasts only the next row"):
        predictor.predict_ahead(windows)


# Metadata

Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda entry: entry.update(horizons_rows=[1, 5, 3]), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=[1, 3, 3]), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=[2, 3, 4]), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=[0, 1, 3]), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=[]), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=list(range(1, 18))), "at most 16"),
        (lambda entry: entry.update(horizons_rows=list(range(1, 100_000))), "at most 16"),
        (lambda entry: entry.update(horizons_rows=[True, 3, 9]), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=[1.0, 3, 9]), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=[1, 3, 2**31]), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows={"1": 1}), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows="1,3"), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=None), "ascend from 1"),
        (lambda entry: entry.pop("horizons_rows"), "ascend from 1"),
        (lambda entry: entry.update(horizons_rows=[1, 3]), "does not declare the input"),
        (lambda entry: entry.update(horizons_rows=[1, 3, 9, 27]), "does not declare the input"),
        (lambda entry: entry.update(coverage=1), "not a share between 0 and 1"),
        (lambda entry: entry.update(coverage=True), "not a share between 0 and 1"),
        (lambda entry: entry.update(coverage=1.0), "not a share between 0 and 1"),
        (lambda entry: entry.update(coverage=0.0), "not a share between 0 and 1"),
        (lambda entry: entry.update(coverage=-0.5), "not a share between 0 and 1"),
        (lambda entry: entry.update(coverage="x" * 100_000), "not a share between 0 and 1"),
        (lambda entry: entry.pop("coverage"), "not a share between 0 and 1"),
    ],
)
def test_hostile_horizons_are_refused(recorded: Path, tmp_path: Path, change: Change, problem: str) -> None:
    """By both readers, with the entry's name and a message of one line."""
    document = json.loads((recorded / metadata_name(FIRST)).read_text())
    change(document["forecast"])
    require_refused(document, tmp_path, problem)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda document: document.update(forecast=[1, 3]), "ascend from 1"),
        (lambda document: document.update(forecast="1"), "ascend from 1"),
        (lambda document: document.update(forecast=True), "ascend from 1"),
        (lambda document: document.pop("graphs"), "declares no graphs"),
        (lambda document: document["graphs"]["int8"].update(inputs=[]), "graphs.int8 does not declare the input"),
        (lambda document: document["graphs"]["core"].update(outputs=[]), "graphs.core does not declare the input"),
        (lambda document: document["graphs"]["raw"]["outputs"][0].update(dtype="float64"), "graphs.raw does not declare"),
    ],
)
def test_horizons_without_the_graphs_for_them_are_refused(recorded: Path, tmp_path: Path, change: Change, problem: str) -> None:
    """A version that could not forecast what it says is not read."""
    document = json.loads((recorded / metadata_name(FIRST)).read_text())
    change(document)
    require_refused(document, tmp_path, problem)


def require_refused(document: dict[str, Any], folder: Path, problem: str) -> None:
    (folder / metadata_name(FIRST)).write_text(json.dumps(document))
    for reader in (Metadata.read, RawMetadata.read):
        with pytest.raises(ValueError, match=problem) as refused:
            reader(folder)
        assert len(str(refused.value)) < 1_000


def test_a_graph_that_lacks_what_its_version_declares_is_refused(recorded: Path, tmp_path: Path) -> None:
    """The core graph of a version of the next row in a folder whose metadata promise more."""
    other = make_version(tmp_path / "other", FIRST)
    folder = tmp_path / "mixed"
    folder.mkdir()
    document = json.loads((recorded / metadata_name(FIRST)).read_text())
    (folder / metadata_name(FIRST)).write_text(json.dumps(document))
    (folder / document["graphs"]["core"]["file"]).write_bytes((other / f"bandwidth_lstm_{FIRST}.onnx").read_bytes())
    with pytest.raises(PredictorError, match="context"):
        Predictor.load(folder)


# Trainings of the daemon


def test_a_job_leaves_a_whole_candidate(first: tuple[Path, JobResult]) -> None:
    """A first version that verifies and is accepted, whose report has the horizons too."""
    folder, result = first
    assert result.status == "candidate"
    assert verify(folder) == []
    report = report_of(folder)
    assert report["training"]["started_from"] == LINEAR
    assert [entry["rows"] for entry in report["performance"]["horizons"]] == list(HORIZONS)
    assert report["performance"]["horizons"][1]["targets"]["rtt_ms"]["windows"] > 20


def test_a_second_job_continues_the_first(first: tuple[Path, JobResult], tmp_path: Path) -> None:
    """Its weights, units and codes are the parent's to start with; jitter is new; the gate looks at all horizons of both."""
    spec = job(tmp_path, Telemetry(rows=500, jitter=True, seed=9).table(), SECOND, first[0])
    result = done(spec)
    folder = Path(spec.candidate)
    assert result.status in ("candidate", "refused")
    assert result.verdict is not None
    assert {sentence.partition(":")[0] for sentence in result.verdict.reasons} <= {"the next row", "all horizons"}
    assert verify(folder) == []
    assert report_of(folder)["training"]["started_from"] == FIRST
    assert read_manifest(folder).parent == FIRST
    assert result.windows["replay"] == 64
    (before,), (after,) = (load_weights(each).get_layer(COLUMNS).get_weights() for each in (first[0], folder))
    known = before[1] != 0
    np.testing.assert_array_equal(after[:, known], before[:, known])
    assert Metadata.read(folder).measured.all()
    ahead = Predictor.load(folder).predict_ahead(np.full((2, 30, 44), np.nan, np.float32))
    assert np.isfinite(ahead).all()
    assert ahead[0, 1, JITTER, 1] == pytest.approx(LEVELS[JITTER] * 2, rel=0.6)


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(forecasting(TINY, (1, 5)), id="other horizons"),
        pytest.param(forecasting(TINY, HORIZONS, 0.8), id="another coverage"),
        pytest.param(forecasting(TINY, ()), id="no horizons any more"),
    ],
)
def test_a_parent_with_other_horizons_is_judged_against_and_not_continued(
    first: tuple[Path, JobResult], tmp_path: Path, architecture: Architecture
) -> None:
    """The candidate starts as a first version does; the live one goes on forecasting what it forecasts."""
    spec = job(tmp_path, Telemetry(rows=450, seed=9).table(), SECOND, first[0], architecture)
    result = done(spec)
    folder = Path(spec.candidate)
    assert report_of(folder)["training"]["started_from"] == LINEAR
    assert "parent" in result.metrics
    assert verify(folder) == []
    assert Predictor.load(folder).horizons == architecture.ahead.horizons
    assert Predictor.load(first[0]).horizons == HORIZONS


def test_a_parent_of_an_earlier_release_is_judged_against_and_not_continued(tmp_path: Path) -> None:
    """It does not say of which architecture it is, and forecasts only the next row."""
    parent, table = make_version(tmp_path / "parent", FIRST), Telemetry(rows=400).table()
    dataset = prepared(table)
    replace(Metadata.read(parent), inputs=dataset.inputs, outputs=dataset.outputs).write(parent)
    shifted = RawTable(table.links, table.link, table.time_s + 1e8, table.numeric, table.codes, table.values)
    spec = job(tmp_path / "job", shifted, SECOND, parent)
    result = done(spec)
    assert report_of(Path(spec.candidate))["training"]["started_from"] == LINEAR
    assert result.verdict is not None
    assert result.verdict.accepted, "random weights forecast worse than any training"
    assert verify(Path(spec.candidate)) == []


def test_a_version_that_an_earlier_release_has_left_is_no_obstacle(tmp_path: Path) -> None:
    """One with weights: they are of another network, and are not used."""
    with tarfile.open(STATES / "unbounded-model.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    parent = next(path.parent for path in tmp_path.rglob("MANIFEST.json"))
    since_s = Metadata.read(parent).trained_until_s
    table = Telemetry(rows=400).table()
    moved_s = table.time_s - table.time_s.min() + 86_400.0 * np.ceil((since_s or 0.0) / 86_400.0)
    table = RawTable(table.links, table.link, moved_s, table.numeric, table.codes, table.values)
    spec = job(tmp_path / "job", table, "v20270101_000000", parent)
    result = done(spec)
    assert result.status in ("candidate", "refused")
    assert report_of(Path(spec.candidate))["training"]["started_from"] == LINEAR
    assert verify(Path(spec.candidate)) == []


# Odd recordings


def test_a_recording_of_odd_links_trains(tmp_path: Path) -> None:
    """A link that reports once a day, one whose clock jumps forth for days and one with holes of days: all are used, and the graphs are
    whole."""
    table = Telemetry(rows=400, size=(1.0, 2.0, 3.0, 4.0)).table()
    time_s = table.time_s.copy()
    row = np.arange(400)
    time_s[table.link == 0] = time_s[0] + 86_400.0 * row
    time_s[table.link == 1] += np.where(row >= 370, 20 * 86_400.0, 0.0)
    time_s[table.link == 2] += 3 * 86_400.0 * (row // 40)
    table.numeric[:, NUMERIC.index("time_of_day")] = time_s % 86_400.0 / 3_600.0
    odd = RawTable(table.links, table.link, time_s, table.numeric, table.codes, table.values)
    spec = RunSpec(
        version=FIRST, created_at_s=1.79e9, source="recording", snapshot=str(snapshot_of(odd, tmp_path / "snapshot")),
        folder=str(tmp_path / FIRST), data_quality=QUALITY, settings=QUICK,
        architecture=resized(TINY, ahead=resized(TINY.ahead, horizons=DEFAULT_HORIZONS)),
    )  # fmt: skip
    assert run(spec, lambda _event: None, lambda: False) == FINISHED
    assert verify(tmp_path / FIRST) == []
    horizons = report_of(tmp_path / FIRST)["performance"]["horizons"]
    windows = [entry["targets"]["throughput_mbps"]["windows"] for entry in horizons]
    assert windows[0] > 30
    assert windows == sorted(windows, reverse=True)


@pytest.mark.parametrize("levels", ["rare bursts", "links of all sizes"])
def test_targets_that_leave_no_digits_are_exported(tmp_path: Path, levels: str) -> None:
    """Loss that is 0 but for a burst in 500 rows, and links a million times as large as others: runtimes must not see rounding as news.

    A window of nothing but 0 is forecast as 0, not as the rounding of 0.
    """
    table = Telemetry(rows=1_500, size=(1.0, 1.0), jitter=True).table()
    numeric, row = table.numeric.copy(), np.arange(len(table))
    if levels == "rare bursts":
        numeric[:, 2] = np.where(row % 500 == 77, 0.05, 0.0)
    else:
        numeric[table.link == 1, 0] *= 1e6
        numeric[table.link == 1, 1] *= 1e5
    spec = RunSpec(
        version=FIRST, created_at_s=1.79e9, source="recording", folder=str(tmp_path / FIRST), data_quality=QUALITY, settings=QUICK,
        snapshot=str(snapshot_of(replace(table, numeric=numeric), tmp_path / "snapshot")), architecture=TINY,
    )  # fmt: skip
    assert run(spec, lambda _event: None, lambda: False) == FINISHED
    if levels == "rare bursts":
        predictor = Predictor.load(tmp_path / FIRST)
        features = compute(replace(table, numeric=numeric), predictor.vocabulary, horizons=predictor.horizons)
        quiet = gather(features.features, np.arange(100, 400))
        lower = predictor.predict_ahead(quiet, features.context[100:400])[:, :, 2, LOWER]
        assert (lower == 0.0).all()
