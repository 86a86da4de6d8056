"""The Go client against real versions: they are trained, exported, signed and published here, and `go test` does the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from features.definition import RING_ROWS, WINDOW_ROWS
from features.store import FeatureStore
from features.telemetry import CATEGORIES, NUMERIC, Floats, Partition
from model.registry.versions import Registry
from model.spec.architecture import Ahead, Lstm, forecasting
from model.version.documents import write_document
from model.version.golden_raw import nested_nulls, with_nulls
from model.version.manifest import write_manifest
from model.version.metadata import raw_name
from model.version.predictor import Predictor
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows
from model.version.signing import VERIFY_KEY_NAME, SigningKey, generate
from streams.records.decode import decode
from streams.source import RawBatch
from testkit.go_client import CLIENT, LEVELS, START_S, TEXTS, go_command, go_environment, publish, snapshot_of
from testkit.paths import STATES

FIRST, SECOND, NEXT_ROW = "v20260101_000000", "v20260102_000000", "v20260103_000000"
STREAMS, PARTIAL_STREAMS = 200, 80
OLDER = STATES / "unbounded-model.tar.xz"
DISTURBED: tuple[dict[str, float], ...] = (
    {"throughput_mbps": 0.0}, {"packet_loss": 1.0, "throughput_mbps": 0.0, "bytes_tx": 1_200.0}, {"queue_depth": 1e12}, {"rtt_ms": 1e4},
    {"jitter_ms": 3e38, "throughput_mbps": 3e38}, {"retransmits": 1e15, "congestion_window": 1e20},
)  # fmt: skip
SMALL = Lstm(
    lstm_units=(8,), lstm_dropout=(0.2,), dense_units=(8,), dense_dropout=(0.2,), head_units=8, head_dropout=0.2,
    ahead=Ahead(horizons=(1, 5, 15), units=(8,), members=2),
)  # fmt: skip
OLDER_NAMES = {"throughput_mbps": "bandwidth_mbps", "rtt_ms": "latency_ms"}


def random_stream(random: np.random.Generator) -> list[dict[str, Any]]:
    """Return the records of one link as producers write them.

    They have holes, older names, times in both forms, pauses, repeats and late records, and in some streams a disturbed span of rows.
    """
    records, time_s = [], START_S + float(random.integers(0, 10**8))
    texts = {name: [*values, "unseen", "", None][random.integers(0, len(values) + 3)] for name, values in TEXTS.items()}
    holes = random.choice([0.0, 0.1, 0.5])
    disturbed = DISTURBED[random.integers(0, len(DISTURBED))]
    first = random.integers(0, 60) if random.random() < 0.4 else 100
    burst = int(random.choice([0, 0, 0, 10, 17]))
    for row in range(random.integers(25, 75)):
        time_s += 60.0 * random.choice([1.0, 1.0, float(random.uniform(0.5, 1.5))]) + (
            900.0 if random.random() < 0.015 or (burst and row and row % burst == 0) else 0.0
        )
        shown_s = time_s if random.random() > 0.05 else time_s - float(random.choice([0.0, 120.0]))  # the others come late or twice
        values = {name: level * float(random.uniform(0.7, 1.3)) for name, level in LEVELS.items()}
        if random.random() < 0.3:
            values |= {"time_of_day": float(random.uniform(0, 24)), "day_of_week": float(random.integers(0, 7))}
        record: dict[str, Any] = {name: value for name, value in values.items() if name == "jitter_ms" or random.random() >= holes}
        if first <= row < first + 8:
            record |= disturbed
        if random.random() < 0.1:
            record = {OLDER_NAMES.get(name, name): value for name, value in record.items()}
        record |= {"node_id": "n", "peer_id": "p", **(texts if random.random() > 0.1 else {})}
        at = datetime.fromtimestamp(round(shown_s, 3), UTC)
        record["timestamp"] = at.isoformat() if random.random() < 0.5 else shown_s
        records.append(record)
    return records


def python_forecasts(
    predictor: Predictor, records: list[dict[str, Any]], int8: RawPredictor, random: np.random.Generator
) -> dict[str, Any] | None:
    """Return the forecasts of the daemon's own path after the last record, and those of the quantised graph.

    The path is decoding, rings, features and core graph. A number is null if a target has no forecast.

    Returns:
        None if the newest run is too short. Otherwise the forecasts without a context, and those with one as `known`. The context is what
        the store remembers of the link. In half of the streams a profile is made up, which no stream is long enough for.
    """
    decoded = decode(RawBatch(Partition("t", 0), range(len(records)), [json.dumps(record).encode() for record in records]), None)
    assert not decoded.rejected
    store, batch = FeatureStore(gap_multiple=predictor.metadata.extra["gap_multiple"], key=()), decoded.batch
    slots = store.resolve(batch)
    rows = store.update(batch, slots, np.ones(1, np.bool_), predictor.vocabulary, predictor.horizons)
    if not rows.ready[-1]:
        return None
    assert rows.windows is not None
    run = rows.accepted[np.flatnonzero(rows.restarted)[-1] if rows.restarted.any() else 0 :][-RING_ROWS:]
    telemetry = np.full((1, RING_ROWS, len(NUMERIC)), np.nan, np.float32)
    telemetry[0, RING_ROWS - len(run) :] = batch.numeric[run]
    window = run[-WINDOW_ROWS:]
    time_s, categories = np.full((1, WINDOW_ROWS), np.nan), np.full((1, WINDOW_ROWS, len(CATEGORIES)), "", object)
    time_s[0, WINDOW_ROWS - len(window) :] = batch.time_s[window]
    for place, row in enumerate(window, start=WINDOW_ROWS - len(window)):
        categories[0, place] = [batch.categories[at][row] or "" for at in range(len(CATEGORIES))]
    raw, windows = RawWindows(time_s, telemetry, categories), rows.windows[-1:]

    def forecasts(context: Floats | None = None) -> dict[str, Any]:
        known = replace(raw, context=None if context is None else context.reshape(1, -1))
        found = {"forecast": with_nulls(predictor.predict(windows, context)[0]), "int8": with_nulls(int8.predict_windows(known)[0])}
        if not predictor.horizons:
            return found
        ahead, quantised = predictor.predict_ahead(windows, context)[0], int8.predict_ahead(known)[0]
        return {**found, "ahead": nested_nulls(ahead), "int8_ahead": nested_nulls(quantised)}

    if not predictor.horizons:
        return forecasts()
    context = rows.context[-1:].copy()
    if random.random() < 0.5:
        context[:, 2:] = context[:, :1] * random.uniform(0.7, 1.3, context[:, 2:].shape)
    return {**forecasts(), "known": {"context": [with_nulls(row) for row in context[0]], **forecasts(context)}}


def expected_document(folder: Path, streams: int) -> dict[str, Any]:
    """Return random streams with Python's forecasts. The tolerance is that of the golden samples."""
    random, contexts = np.random.default_rng(5), np.random.default_rng(6)
    predictor, int8 = Predictor.load(folder), RawPredictor.load(folder, int8=True)
    cases = []
    for number in range(streams):
        records = random_stream(random)
        if number == 0:  # the one that the other tests use: long enough, without a gap
            records = [record | {"timestamp": START_S + 60.0 * at} for at, record in enumerate(records * 2)]
        disturbed = any(record.items() >= part.items() for record in records for part in DISTURBED)
        forecasts = python_forecasts(predictor, records, int8, contexts) or {"forecast": None}
        cases.append({"name": f"stream {number}", "rows": records, "disturbed": disturbed, **forecasts})
    tolerance = json.loads((folder / "golden.json").read_text())["raw"]["tolerance"]
    named = {"first": FIRST, "second": SECOND, "next_row": NEXT_ROW}
    return {**named, "horizons": list(predictor.horizons), "tolerance": tolerance, "cases": cases}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the Go tests read.

    models/ has two signed versions of three horizons, the first one live. next_row/ has a signed version that forecasts only the next row,
    full/ one of the published size, partial/ one that has never seen an RTT, older/ one of a release whose graphs have no bounds. Beside
    them are keys/, expected.json, partial.json and next_row.json.
    """
    go_command()  # before anything is trained
    folder = tmp_path_factory.mktemp("go")
    private, _ = generate(folder / "keys")
    snapshot = snapshot_of(folder / "snapshot")
    registry = Registry(folder / "models", SigningKey.read(private))
    for seed, version in enumerate((FIRST, SECOND)):
        publish(registry, snapshot, version, SMALL, seed)
    (registry.root / "CURRENT").write_text(f"{FIRST}\n")
    publish(Registry(folder / "next_row", SigningKey.read(private)), snapshot, NEXT_ROW, forecasting(SMALL, ()), 2)
    publish(Registry(folder / "full"), snapshot, FIRST, Lstm(), 0)
    write_document(folder / "expected.json", expected_document(folder / "models" / FIRST, STREAMS))
    publish(Registry(folder / "partial"), snapshot_of(folder / "without_rtt", "rtt_ms"), FIRST, SMALL, 0)
    write_document(folder / "partial.json", expected_document(folder / "partial" / FIRST, PARTIAL_STREAMS))
    write_document(folder / "next_row.json", expected_document(folder / "next_row" / NEXT_ROW, PARTIAL_STREAMS))
    shutil.unpack_archive(OLDER, folder / "older")
    (folder / "older" / "CURRENT").write_text(FIRST)
    return folder


def run_go(arguments: list[str], models: Path) -> str:
    command = [*go_command(), *arguments]
    done = subprocess.run(command, cwd=CLIENT, env=go_environment(CLIENT_TEST_FOLDER=models), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_the_client_with_real_models(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All its tests pass, none is skipped, and its figures are shown."""
    output = run_go(["test", "-count=1", "-v", "./..."], models)
    assert "--- SKIP" not in output
    figures = [line.partition("figure: ")[2] for line in output.splitlines() if "figure: " in line]
    assert len(figures) >= 4
    with capsys.disabled():
        print("\n" + "\n".join(f"go client: {figure}" for figure in figures))


def test_no_data_races(models: Path) -> None:
    """Swaps under load, following and closing pass Go's race detector, which finds what a lucky run does not."""
    output = run_go(["test", "-count=1", "-race", "-v", "-run", "Swaps|Follow|Close|TestContext", "."], models)
    assert output.count("--- PASS") == 4


@pytest.fixture
def binary(dwcp_predict: Path) -> Path:
    return dwcp_predict


def test_the_command(models: Path, tmp_path: Path, binary: Path) -> None:
    """dwcp-predict as a person runs it: a file of two links has a line for each, and -verify reports on the folder."""
    cases = json.loads((models / "expected.json").read_text())["cases"]
    case = next(case for case in cases if case["forecast"] is not None)
    partial = subprocess.run(
        [binary, "-models", models / "partial"], input="".join(json.dumps(row) + "\n" for row in case["rows"]), env=go_environment(),
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    line = json.loads(partial)
    assert line["rtt_ms"] is None, "a target that was never measured is not 0"
    assert [(ahead["rows"], ahead["rtt_ms"]) for ahead in line["ahead"]] == [(1, None), (5, None), (15, None)]
    source = tmp_path / "rows.ndjson"
    source.write_text("".join(json.dumps({**row, "node_id": node}) + "\n" for row in case["rows"] for node in ("one", "two")))
    folder, key = str(models / "models"), str(models / "keys" / VERIFY_KEY_NAME)

    def predict(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, *arguments], env=go_environment(), capture_output=True, text=True, check=False)

    done = predict("-models", folder, "-public-key", key, "-link-key", "node_id,peer_id", str(source))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["node_id"] for line in lines] == ["one", "two"]
    for line in lines:
        assert line["version"] == FIRST
        assert line["rtt_ms"] == pytest.approx(case["forecast"][1], rel=1e-4)
        assert line["coverage"] == 0.9
        for ahead, expected in zip(line["ahead"], case["ahead"], strict=True):
            assert [ahead["rtt_ms"][name] for name in ("lower", "median", "upper", "mean")] == pytest.approx(expected[1], rel=1e-4)
    done = predict("-models", folder, "-public-key", key, "-verify")
    assert (done.returncode, done.stdout) == (0, f"{FIRST}: sound and signed\n")
    done = predict("-models", folder, "-library", str(tmp_path / "none.so"), "-verify")
    assert done.returncode == 1
    assert "name its shared library by Options.Library or ONNXRUNTIME_LIBRARY" in done.stderr


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin"])
def test_weights_outside_the_graph_are_not_read(models: Path, tmp_path: Path, binary: Path, location: str) -> None:
    """A graph that names a file for its weights is refused, even if that file is in the working directory and correct."""
    root, work = tmp_path / "models", tmp_path / "parent" / "work"
    shutil.copytree(models / "models", root)
    work.mkdir(parents=True)
    graph = root / FIRST / raw_name(FIRST)
    model = onnx.load(graph)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (work / location).write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    graph.write_bytes(model.SerializeToString())
    write_manifest(root / FIRST, version=FIRST, parent=None, reason="test", created_at_s=1.0, verdict=None, libraries={})
    command = [binary, "-models", root, "-verify"]
    done = subprocess.run(command, cwd=work, env=go_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, "the graph cannot be loaded" in done.stderr) == (1, True), done


def test_go_code_is_formatted() -> None:
    """gofmt changes nothing, and go vet reports nothing."""
    go = go_command()[0]
    listed = subprocess.run([Path(go).with_name("gofmt"), "-l", "."], cwd=CLIENT, capture_output=True, text=True, check=True).stdout
    assert listed == ""
    subprocess.run([go, "vet", "./..."], cwd=CLIENT, env=go_environment(), check=True)
