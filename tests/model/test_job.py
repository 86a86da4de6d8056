"""The training job: from a snapshot and a job file to a whole candidate, or to a result that says why not."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace as resized

from features.definition import FEATURES
from features.offline import RawTable, compute
from features.telemetry import CATEGORIES, NUMERIC, Doubles, Floats, Partition
from features.vocabulary import Interner, Vocabulary
from model.buffer.rows import BufferRows, BufferWriter, read_segments
from model.job import Job, main
from model.spec.architecture import Lstm, forecasting
from model.spec.job import JobResult, JobSpec
from model.spec.settings import TrainingSettings
from model.spec.verdict import GatePolicy
from model.training import dataset
from model.training.dataset import Dataset, NewestJudge, TooLittleDataError, prepare
from model.training.fit.start import LINEAR
from model.training.graph.core import load_weights
from model.version.manifest import read_manifest, verify
from model.version.metadata import Metadata, core_name
from model.version.predictor import Predictor, core_session, read_graph, run_core
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import cut
from model.windows.index import build_windows, gather
from testkit.paths import ROOT
from testkit.waiting import wait_for

SMALL = Lstm(
    lstm_units=(8,),
    lstm_dropout=(0.2,),
    recurrent_dropout=0.2,  # so that the export has something to take out
    dense_units=(8,),
    dense_dropout=(0.2,),
    head_units=8,
    head_dropout=0.2,
)
SETTINGS = TrainingSettings(epochs=2, batch_size=32, windows_min=64, replay_windows=64, nice=0)
FIRST, SECOND = "v20260101_000000", "v20260102_000000"
LINKS = 3
JITTER, QUEUE = NUMERIC.index("jitter_ms"), NUMERIC.index("queue_depth")


def telemetry(rows: int, region: str = "eu-1", jitter_from: int | None = None) -> tuple[Floats, list[list[str | None]]]:
    """rows of each of LINKS links, one a minute, links interleaved: waves with noise and holes; jitter is measured from the row given."""
    random = np.random.default_rng(8)
    step = np.repeat(np.arange(rows), LINKS)
    numeric = np.full((rows * LINKS, len(NUMERIC)), np.nan, np.float32)
    for column, (level, swing, noise) in enumerate([(400, 80, 5), (30, 6, 1), (0.02, 0.005, 0.001), (4, 1, 0.2)]):
        numeric[:, column] = level + swing * np.sin(2 * np.pi * step / 60) + noise * random.normal(size=len(step))
    numeric[::5, 1] = np.nan
    numeric[:, QUEUE] = 7.0
    if jitter_from is not None:
        numeric[step < jitter_from, JITTER] = np.nan
    values: dict[str, list[str | None]] = {name: [None] * len(step) for name in CATEGORIES}
    values["region"] = [region if at < 200 else "us-1" for at in step]
    return numeric, [values[name] for name in CATEGORIES]


def snapshot_of(folder: Path, numeric: Floats, categories: list[list[str | None]]) -> Path:
    """The rows as two sealed segments."""
    folder.mkdir(parents=True)
    writer = BufferWriter(folder, Partition("telemetry", 0))
    interner = Interner()
    codes = interner.codes(categories)
    offsets = np.arange(len(numeric))
    time_s: Doubles = 1_760_000_000.0 + 60.0 * (offsets // LINKS).astype(np.float64)
    for part in np.array_split(offsets, 2):
        slots = (part % LINKS).astype(np.int32)
        writer.append(BufferRows(part, time_s[part], numeric[part], codes[part], slots))
        taken = writer.detach([f"link-{at}" for at in range(LINKS)], interner.values)
        assert taken is not None
        writer.seal(taken)
    return folder


def job_in(folder: Path, snapshot: Path, version: str = FIRST, parent: Path | None = None, **settings: Any) -> JobSpec:
    folder.mkdir(parents=True, exist_ok=True)
    return JobSpec(
        job_id=f"job-{version}",
        version=version,
        created_at_s=1_767_225_600.0,
        reason="test",
        snapshot=str(snapshot),
        candidate=str(folder / f".candidate-job-{version}"),
        parent=None if parent is None else str(parent),
        settings=msgspec.structs.replace(SETTINGS, **settings),
        gate=GatePolicy(min_windows=20),
        architecture=SMALL,
    )


def started(spec: JobSpec, folder: Path, popen: Callable[..., subprocess.Popen[str]] = subprocess.Popen) -> subprocess.Popen[str]:
    """The job as the daemon starts it."""
    path = folder / "job.json"
    path.write_bytes(spec.to_json())
    command = [sys.executable, "-m", "model.job", str(path)]
    return popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def run_here(spec: JobSpec) -> JobResult:
    """The job in this process, which has TensorFlow already."""
    return Job(spec, lambda _: None).run()


@pytest.fixture(scope="module")
def long_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot_of(tmp_path_factory.mktemp("long") / "snapshot", *telemetry(400, jitter_from=220))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JobResult, list[dict[str, Any]]]:
    """A first version by a real child: its folder, its result and its lines of progress. It has never seen jitter, nor region us-1."""
    folder = tmp_path_factory.mktemp("first")
    spec = job_in(folder, snapshot_of(folder / "snapshot", *telemetry(200, jitter_from=200)))
    process = started(spec, folder)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    result = JobResult.from_json((folder / "result.json").read_bytes())
    return Path(spec.candidate), result, [json.loads(line) for line in output.splitlines()]


def unscaled_windows(snapshot: Path, vocabulary: Vocabulary) -> Floats:
    table = read_segments(sorted(snapshot.iterdir()))
    features = compute(table, vocabulary)
    return gather(features.features, build_windows(features, table).end[::20])


def test_a_job_leaves_a_whole_candidate(first: tuple[Path, JobResult, list[dict[str, Any]]]) -> None:
    """The folder passes every check of publication, its files are the published ones, and the result says how it was made."""
    folder, result, _ = first
    assert result.status == "candidate"
    assert verify(folder) == []
    assert {path.name for path in folder.iterdir()} == {
        "MANIFEST.json", "TRAINING_REPORT.json", "best_model.keras", "golden.json", "training_log.csv", "report.html", "tensorboard",
        f"bandwidth_lstm_{FIRST}.onnx", f"bandwidth_lstm_{FIRST}.raw.onnx", f"bandwidth_lstm_{FIRST}.int8.onnx",
        f"model_metadata_{FIRST}.json", f"training_history_{FIRST}.json",
    }  # fmt: skip
    assert list(result.stage_s) == ["read", "features", "import", "build", "train", "export", "gate"]
    assert (result.rows, result.windows["replay"]) == (600, 0)
    assert result.verdict is not None
    assert result.verdict.accepted
    assert result.metrics["candidate"]["unmeasured"] == ["jitter_ms"]
    manifest = read_manifest(folder)
    assert (manifest.version, manifest.parent, manifest.reason) == (FIRST, None, "test")
    assert {"keras", "tf2onnx", "onnx", "numpy"} <= manifest.libraries.keys()


def test_three_graphs_of_a_trained_version_agree(first: tuple[Path, JobResult, list[dict[str, Any]]]) -> None:
    """From raw rows of its snapshot: the raw graph forecasts what the daemon's predictor does, and the quantised one is as accurate,
    100 (1 - MAE / mean), to .1 percentage points on each measured target."""
    folder, _, _ = first
    table = read_segments(sorted((folder.parent / "snapshot").iterdir()))
    predictor = Predictor.load(folder)
    features = compute(table, predictor.vocabulary)
    index = build_windows(features, table).select(np.arange(300))
    windows, actual = cut(table, features.run, index.end), table.numeric[index.target_row, :4]
    float_forecasts = predictor.predict(gather(features.features, index.end))
    scale = predictor.metadata.outputs.scale
    raw_forecasts = RawPredictor.load(folder).predict_windows(windows)
    assert np.array_equal(np.isnan(raw_forecasts), np.isnan(float_forecasts))
    assert np.nanmax(np.abs((raw_forecasts - float_forecasts) / scale)) <= 1e-4
    int8_forecasts = RawPredictor.load(folder, int8=True).predict_windows(windows)
    assert np.isnan(int8_forecasts[:, 3]).all()
    for target in range(3):  # jitter was never measured
        mean = np.nanmean(actual[:, target])
        accuracy = [100 * (1 - np.nanmean(np.abs(made - actual)[:, target]) / mean) for made in (float_forecasts, int8_forecasts)]
        assert accuracy[1] == pytest.approx(accuracy[0], abs=0.1)


def test_progress_is_one_json_line_per_event(first: tuple[Path, JobResult, list[dict[str, Any]]]) -> None:
    """Standard output holds nothing but events, one at the start of every stage, and steps and losses while it trains."""
    _, _, events = first
    assert {event["event"] for event in events} == {"training_progress"}
    stages = [event["stage"] for event in events]
    assert list(dict.fromkeys(stages)) == ["read", "features", "import", "build", "train", "export", "gate"]
    last = [event for event in events if event["stage"] == "train"][-1]
    assert last["step"] == last["steps"]
    assert last["validation_loss"] > 0


def test_metadata_tell_everything_about_the_version(first: tuple[Path, JobResult, list[dict[str, Any]]]) -> None:
    """Whoever has only the metadata can scale, code and forecast, and knows how the version was made."""
    folder, result, _ = first
    document = json.loads((folder / f"model_metadata_{FIRST}.json").read_text())
    assert document["created_at"] == "2026-01-01T00:00:00+00:00"
    assert document["opset"] == 13
    assert document["model_architecture"]["total_parameters"] > 0
    assert document["performance_metrics"]["targets"]["throughput_mbps"]["mae"] == result.metrics["candidate"]["targets"][0]["mae"]
    assert document["training_config"]["epochs"] == 2
    assert document["vocabularies"]["region"] == ["eu-1"]
    assert document["trained_until_s"] == result.trained_until_s
    assert 0 < document["model_size_mb"] == document["graph_size_mb"]["core"] < 1
    assert set(document["graph_size_mb"]) == {"core", "raw", "int8"}
    assert document["keras_onnx_difference"] <= 1e-5
    assert document["keras_raw_difference"] <= 1e-4
    assert document["keras_int8_difference_mean"] <= 0.02
    history = json.loads((folder / f"training_history_{FIRST}.json").read_text())
    assert history["started_from"] == LINEAR
    assert len(history["epochs"]) == 2


def test_the_gate_and_validation_are_newer_than_what_was_trained_on(first: tuple[Path, JobResult, list[dict[str, Any]]]) -> None:
    """With 200 minutes the last 25 % are held out: nothing after trained_until_s has shaped weights or scalers."""
    folder, result, _ = first
    assert result.trained_until_s is not None
    trained_minutes = (result.trained_until_s - 1_760_000_000.0) / 60.0
    assert 150 <= trained_minutes <= 160
    table = read_segments(sorted((folder.parent / "snapshot").iterdir()))
    seen = table.numeric[table.time_s <= result.trained_until_s, 0]
    assert Metadata.read(folder).outputs.mean[0] == pytest.approx(seen.mean(), rel=1e-5)


def prepared_for(spec: JobSpec, table: RawTable, parent: Metadata | None = None) -> Dataset:
    return prepare(table, NewestJudge(spec, parent), spec.gap_multiple, parent)


def test_a_large_buffer_holds_out_its_newest_windows_and_not_hours(
    long_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shares bound what is held out from a small buffer, a number of windows what is held out from a large one."""
    monkeypatch.setattr(dataset, "VALIDATION_WINDOWS_MAX", 30)
    monkeypatch.setattr(dataset, "GATE_WINDOWS_MAX", 60)
    table = read_segments(sorted(long_snapshot.iterdir()))
    prepared = prepared_for(job_in(tmp_path, long_snapshot), table)
    gate, validation = prepared.judged, prepared.data.validation
    # 400 minutes of 3 links: the gate has the last 20 minutes, validation the 10 before, cut at a whole minute.
    assert len(gate) == pytest.approx(60, abs=3)
    assert len(validation) == pytest.approx(30, abs=3)
    assert (prepared.trained_until_s - 1_760_000_000.0) / 60.0 == pytest.approx(369, abs=2)
    assert table.time_s[gate.target_row].min() > table.time_s[validation.target_row].max() > prepared.trained_until_s


@pytest.mark.parametrize(("ahead_s", "new"), [(0.0, False), (365 * 86_400.0, True)])
def test_a_version_that_has_learnt_from_the_future_stops_no_training(
    long_snapshot: Path, tmp_path: Path, ahead_s: float, new: bool
) -> None:
    """A parent says that it has learnt rows of next year, which a clock that was wrong let in: what is there counts as new. One that has
    learnt all there is has nothing new to learn from."""
    table = read_segments(sorted(long_snapshot.iterdir()))
    newest_s = float(table.time_s.max())
    spec = msgspec.structs.replace(job_in(tmp_path, long_snapshot), latest_row_s=newest_s + 360.0)
    first = prepared_for(spec, table)
    parent = Metadata(FIRST, first.inputs, first.outputs, first.vocabulary, newest_s + ahead_s)
    if not new:
        with pytest.raises(TooLittleDataError):
            prepared_for(spec, table, parent)
        return
    prepared = prepared_for(spec, table, parent)
    assert prepared.trained_until_s < newest_s
    assert len(prepared.judged) > 20


def test_columns_without_variation_do_not_break_a_version(first: tuple[Path, JobResult, list[dict[str, Any]]]) -> None:
    """An empty target, empty features and a constant one are marked as not fitted, and forecasts of the others are finite with them."""
    folder, result, _ = first
    metadata = Metadata.read(folder)
    assert metadata.outputs.fitted.tolist() == [True, True, True, False]
    assert not metadata.inputs.fitted[[6, 7, 8, 9]].any()
    table = read_segments(sorted((folder.parent / "snapshot").iterdir()))
    windows = gather(compute(table, metadata.vocabulary).features, np.array([40, 80]))
    assert np.isfinite(Predictor.load(folder).predict(windows)).tolist() == [[True, True, True, False]] * 2
    assert result.verdict is not None
    assert result.verdict.per_target[3].windows == 0


def test_a_target_that_was_never_measured_is_missing_everywhere(first: tuple[Path, JobResult, list[dict[str, Any]]]) -> None:
    """NaN in the three graphs, null in the golden samples, not in the metadata's list, said in the report, and in no metric."""
    folder, result, _ = first
    metadata = Metadata.read(folder)
    assert metadata.forecast_targets == ("throughput_mbps", "rtt_ms", "packet_loss")
    golden = json.loads((folder / "golden.json").read_text())
    rows = [sample["output"] for sample in golden["samples"]] + [sample["forecast"] for sample in golden["raw"]["samples"]]
    assert {tuple(value is None for value in row) for row in rows} == {(False, False, False, True)}
    core = core_session(read_graph(folder / core_name(FIRST)))
    scaled = np.random.default_rng(1).normal(size=(5, 30, 44)).astype(np.float32)
    assert np.isnan(run_core(core, scaled)).tolist() == [[False, False, False, True]] * 5
    report = json.loads((folder / "TRAINING_REPORT.json").read_text())
    assert report["forecast_targets"] == list(metadata.forecast_targets)
    assert "Never measured in training, so missing in every forecast: jitter_ms." in report["notes"]
    assert report["performance"]["targets"]["jitter_ms"]["windows"] == 0
    assert result.metrics["candidate"]["targets"][3]["mae"] is None


def test_a_target_that_is_measured_only_after_the_training_refuses_no_first_version(tmp_path: Path) -> None:
    """Jitter comes in the gate's windows alone: the candidate does not forecast it, and is judged on the others."""
    result = run_here(job_in(tmp_path, snapshot_of(tmp_path / "snapshot", *telemetry(200, jitter_from=190))))
    assert result.verdict is not None
    assert (result.status, result.verdict.per_target[3].windows) == ("candidate", 0)
    assert Metadata.read(Path(result.candidate or "")).forecast_targets == ("throughput_mbps", "rtt_ms", "packet_loss")


def test_a_column_that_was_constant_in_training_cannot_throw_a_forecast_off(first: tuple[Path, JobResult, list[dict[str, Any]]]) -> None:
    """Bytes were never measured when the version was trained; when they come, at 1e10, its forecasts stay what they were."""
    folder, _, _ = first
    predictor = Predictor.load(folder)
    windows = unscaled_windows(folder.parent / "snapshot", predictor.vocabulary)
    before = predictor.predict(windows)
    windows[:, :, FEATURES.index("bytes_total")] = 1e10
    windows[:, :, FEATURES.index("queue_depth")] = 50.0
    np.testing.assert_array_equal(predictor.predict(windows), before)


def test_a_fine_tuning_goes_on_from_its_parent(
    first: tuple[Path, JobResult, list[dict[str, Any]]], long_snapshot: Path, tmp_path: Path
) -> None:
    """If training only does harm, the candidate has its parent's weights but for the linear path, though a region and jitter are new."""
    parent_folder, parent_result, _ = first
    spec = job_in(tmp_path, long_snapshot, SECOND, parent_folder, fine_tune_learning_rate=10.0)
    result = run_here(spec)
    assert result.status == "candidate"  # for jitter alone, which its parent could not forecast
    assert result.verdict is not None
    assert result.verdict.reasons[0] == "it forecasts jitter_ms, which the live version does not"
    assert result.verdict.per_target[3].current_mae is None
    assert result.verdict.per_target[3].candidate_mae is not None
    assert verify(Path(spec.candidate)) == []
    assert read_manifest(Path(spec.candidate)).parent == FIRST
    assert result.windows["replay"] == 64
    assert parent_result.trained_until_s is not None
    assert result.trained_until_s is not None
    assert result.trained_until_s > parent_result.trained_until_s
    for old, new in zip(load_weights(parent_folder).layers, load_weights(Path(spec.candidate)).layers, strict=True):
        for before, after in zip(old.get_weights(), new.get_weights(), strict=True):
            assert old.name in ("linear_path", "nonlinear_output", "calendar", "input_bounds", "output") or np.array_equal(before, after)
    candidate = Predictor.load(Path(spec.candidate))
    assert candidate.vocabulary.values[0] == ("eu-1", "us-1")
    assert candidate.metadata.inputs.mean[0] == Metadata.read(parent_folder).inputs.mean[0]
    # Jitter is new: its scaler is fitted now, and its forecast starts at a line instead of nothing.
    assert candidate.metadata.outputs.fitted[3]
    forecasts = candidate.predict(unscaled_windows(long_snapshot, candidate.vocabulary))
    assert forecasts[:, 3].mean() == pytest.approx(4.0, abs=1.0)


def test_the_gate_compares_with_the_parent(first: tuple[Path, JobResult, list[dict[str, Any]]], tmp_path: Path) -> None:
    """After a change of the stream, the candidate that learnt it replaces the parent that did not, and the verdict has both errors."""
    numeric, categories = telemetry(500, jitter_from=500)
    numeric[600:, 0] = 900.0 - numeric[600:, 0] * 0.5
    parent_folder, _, _ = first
    spec = job_in(
        tmp_path, snapshot_of(tmp_path / "snapshot", numeric, categories), SECOND, parent_folder, epochs=10, fine_tune_learning_rate=0.01
    )
    result = run_here(spec)
    assert result.status == "candidate"
    assert result.verdict is not None
    throughput = result.verdict.per_target[0]
    assert throughput.candidate_mae is not None
    assert throughput.current_mae is not None
    assert throughput.candidate_mae < 0.7 * throughput.current_mae
    assert set(result.metrics) == {"candidate", "parent", "persistence"}


def test_a_parent_of_another_architecture_is_judged_against_but_not_continued(
    first: tuple[Path, JobResult, list[dict[str, Any]]], long_snapshot: Path, tmp_path: Path
) -> None:
    """Its weights do not fit: the candidate starts at Ridge, and still has to beat it."""
    spec = job_in(tmp_path, long_snapshot, SECOND, first[0], epochs=1)
    spec = msgspec.structs.replace(spec, architecture=resized(SMALL, lstm_units=(6,)))
    result = run_here(spec)
    assert json.loads((Path(spec.candidate) / "TRAINING_REPORT.json").read_text())["training"]["started_from"] == LINEAR
    assert "parent" in result.metrics


def test_a_parent_of_other_horizons_is_not_continued(
    first: tuple[Path, JobResult, list[dict[str, Any]]], long_snapshot: Path, tmp_path: Path
) -> None:
    """As after an upgrade, or a change of the configuration: it starts as a first version, and that it forecasts more is a gain."""
    spec = job_in(tmp_path, long_snapshot, SECOND, first[0], epochs=1)
    result = run_here(msgspec.structs.replace(spec, architecture=forecasting(SMALL, (1, 3))))
    report = json.loads((Path(spec.candidate) / "TRAINING_REPORT.json").read_text())
    assert report["training"]["started_from"] == LINEAR
    assert [entry["rows"] for entry in report["network"]["horizons"]] == [1, 3]
    assert result.verdict is not None
    assert result.verdict.accepted
    assert result.verdict.reasons[0] == "it forecasts 1, 3 rows ahead, as configured, and the live version 1"


def test_a_job_is_repeatable(first: tuple[Path, JobResult, list[dict[str, Any]]], tmp_path: Path) -> None:
    """The same snapshot and seed give the same losses and the same forecasts, in another process too."""
    folder, _, _ = first
    spec = job_in(tmp_path, folder.parent / "snapshot")
    run_here(spec)
    logs = [[line.split(",")[:3] for line in (at / "training_log.csv").read_text().splitlines()] for at in (folder, Path(spec.candidate))]
    assert logs[0] == logs[1]
    windows = unscaled_windows(folder.parent / "snapshot", Metadata.read(folder).vocabulary)
    np.testing.assert_array_equal(Predictor.load(folder).predict(windows), Predictor.load(Path(spec.candidate)).predict(windows))


def read_until_training(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("step", 0) >= 1:
            return
    raise AssertionError(f"the job ended before it trained: {process.stderr and process.stderr.read()}")


def test_a_terminated_job_leaves_no_version(long_snapshot: Path, tmp_path: Path, spawn: Callable[..., Any]) -> None:
    """SIGTERM in the middle of a training ends it at once, with neither a manifest nor a result."""
    spec = job_in(tmp_path, long_snapshot, epochs=100_000, patience=100_000)
    process = started(spec, tmp_path, spawn)
    read_until_training(process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert Path(spec.candidate).is_dir()
    assert not (Path(spec.candidate) / "MANIFEST.json").exists()
    assert not (tmp_path / "result.json").exists()


def test_a_job_dies_with_its_daemon(long_snapshot: Path, tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    """When the process that started it is killed, the job ends by itself and publishes nothing."""
    spec = job_in(tmp_path, long_snapshot, epochs=100_000, patience=100_000)
    path = tmp_path / "job.json"
    path.write_bytes(spec.to_json())
    daemon = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-m', 'model.job', {str(path)!r}], stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, flush=True)\n"
        "for line in child.stdout: print(line, end='', flush=True)\n"
    )
    process = spawn([sys.executable, "-c", daemon], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    while "step" not in json.loads(process.stdout.readline()):
        pass
    process.kill()
    process.wait()
    while process.stdout.read(4096):  # ends when the child, who holds no other end of it, and the daemon are both gone
        pass
    wait_for(lambda: not _alive(child), "the end of the child")
    assert not (Path(spec.candidate) / "MANIFEST.json").exists()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


Spoil = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda _: "not json", "malformed"),
        (lambda job: job | {"epochs": 3}, "unknown field `epochs`"),
        (lambda job: job | {"settings": job["settings"] | {"epoch": 3}}, "unknown field `epoch` - at `$.settings`"),
        (lambda job: job | {"settings": job["settings"] | {"epochs": "3"}}, "$.settings.epochs"),
        (lambda job: job | {"settings": job["settings"] | {"epochs": 0}}, "epochs must be over 0"),
        (lambda job: job | {"settings": job["settings"] | {"gate_share": 0.95}}, "leave something to train on"),
        (lambda job: job | {"version": "v1"}, "vYYYYMMDD_HHMMSS"),
        (lambda job: {key: value for key, value in job.items() if key != "snapshot"}, "snapshot"),
        (lambda job: job | {"snapshot": "/nowhere"}, "snapshot /nowhere is not a folder"),
        (lambda job: job | {"parent": "/nowhere"}, "parent /nowhere is not a folder"),
        (lambda job: job | {"candidate": job["snapshot"]}, "already exists"),
    ],
)  # fmt: skip
def test_a_bad_job_file_is_refused_at_once(
    spoil: Spoil, problem: str, long_snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a message that names the fault; nothing is read, built or written."""
    document = spoil(json.loads(job_in(tmp_path, long_snapshot).to_json()))
    path = tmp_path / "job.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    assert main([str(path)]) == 2
    assert problem in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["job.json"]


def test_a_missing_job_file_is_refused(tmp_path: Path) -> None:
    """The process ends with exit code 2, the message on standard error, and an empty standard output."""
    command = [sys.executable, "-m", "model.job", str(tmp_path / "none.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.json" in done.stderr


def finished(spec: JobSpec, folder: Path) -> tuple[int, JobResult, str]:
    process = started(spec, folder)
    _, errors = process.communicate()
    return process.returncode, JobResult.from_json((folder / "result.json").read_bytes()), errors


def test_a_torn_segment_is_left_out_by_name(tmp_path: Path) -> None:
    """The job has the rows of all others, none of the torn one, and its result names the file and what is wrong."""
    snapshot = snapshot_of(tmp_path / "snapshot", *telemetry(20))
    everything = sorted(snapshot.iterdir())
    torn, others = everything[1], [path for path in everything if path != everything[1]]
    torn.write_bytes(torn.read_bytes()[:-100])
    code, result, _ = finished(job_in(tmp_path, snapshot), tmp_path)
    assert (code, result.status) == (0, "too_little_data")
    assert result.rows == len(read_segments(others)) > 0
    assert list(result.unsound) == [torn.name]
    assert "is not a complete Parquet file" in result.unsound[torn.name]


@pytest.mark.parametrize(("rows", "problem"), [(0, "0 recent windows"), (20, "0 recent windows"), (50, "of at least 64")])
def test_too_few_rows_are_no_failure(rows: int, problem: str, tmp_path: Path) -> None:
    """Exit code 0, status too_little_data with the counts, and TensorFlow was never imported."""
    if rows:
        snapshot = snapshot_of(tmp_path / "snapshot", *telemetry(rows))
    else:
        snapshot = tmp_path / "snapshot"
        snapshot.mkdir()
    code, result, _ = finished(job_in(tmp_path, snapshot), tmp_path)
    assert (code, result.status, result.rows) == (0, "too_little_data", rows * LINKS)
    assert result.error is not None
    assert problem in result.error
    assert "import" not in result.stage_s


def test_too_little_that_is_new_since_the_parent(first: tuple[Path, JobResult, list[dict[str, Any]]], tmp_path: Path) -> None:
    """A fine-tuning on the very rows of its parent has only what that one held out, and says after which version."""
    folder, _, _ = first
    result = run_here(job_in(tmp_path, folder.parent / "snapshot", SECOND, folder, windows_min=150))
    assert result.status == "too_little_data"
    assert result.error is not None
    assert f"after what {FIRST} was trained on" in result.error


def test_results_survive_json() -> None:
    """The daemon reads the result as the child writes it, None included."""
    result = JobResult("job", FIRST, "failed", error="read: no", stage_s={"read": 0.5})
    assert JobResult.from_json(result.to_json()) == result
    with pytest.raises(ValueError, match="status"):
        JobResult.from_json(b'{"job_id": "a", "version": "v", "status": "?"}')


def test_a_compiled_file_that_is_found_damaged_when_files_are_written(long_snapshot: Path, tmp_path: Path) -> None:
    """The job begins anew in the same process and in its candidate, which it empties first; its reader notices only the stages."""
    for package in ("model", "features"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "model/training/run.py").open("a") as source:
        source.write("\n_whole = _describe\ndef _describe(*made):\n    from model import late\n    _whole(*made)\n")
    (tmp_path / "model/late.py").touch()
    os.truncate(py_compile.compile(str(tmp_path / "model/late.py"), doraise=True), 20)
    spec = job_in(tmp_path, long_snapshot)
    (tmp_path / "job.json").write_bytes(spec.to_json())
    Path(spec.candidate).mkdir()
    reserved = Path(spec.candidate).stat().st_ino
    command = [sys.executable, "-P", "-m", "model.start", "model.job", str(tmp_path / "job.json")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert JobResult.from_json((tmp_path / "result.json").read_bytes()).status == "candidate"
    stages = [event["stage"] for event in map(json.loads, done.stdout.splitlines())]
    assert (stages.count("read"), stages.count("gate")) == (2, 2)
    assert verify(Path(spec.candidate)) == []
    assert Path(spec.candidate).stat().st_ino == reserved
