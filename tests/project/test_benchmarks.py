"""The benchmarks at tiny sizes: they measure what they promise, and their last line has the agreed form. No time is asserted."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alerts
import drift_to_live
import harness
import inference
import ingest
import memory
import never_silent
import tables
import training
from model.spec.architecture import Ahead, Linear, Lstm
from model.spec.job import plain
from model.version.manifest import verify
from parts import (
    alerts_labelled,
    alerts_plan,
    alerts_run,
    alerts_score,
    bare_poll,
    daemon_memory,
    daemon_run,
    detector_memory,
    drift_rivals,
    drift_run,
    first_version,
    matrix_rate,
    proof,
    stream,
    training_step,
    version,
)
from parts import inference as inference_run
from testkit.paths import ROOT
from testkit.versions import make_version

ROWS = 35
OWN_STAGES = {"open", "poll", "decode", "features", "drift", "forecast", "buffer", "regions", "checkpoint", "rest_of_the_loop"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with one small live version."""
    from model.registry.versions import Registry

    root = tmp_path_factory.mktemp("registry") / "models"
    registry = Registry(root)
    registry.recover()
    make_version(registry.candidate_folder("first"), "v20260101_000000")
    registry.publish(registry.candidate_folder("first"), "v20260101_000000")
    return str(root)


def test_the_last_line_is_one_json_object_of_the_agreed_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """Machine, versions, figures and bars. A bar that does not hold is printed on standard error, and the exit code is 0."""
    bars = [harness.Bar("fast", 3.14159265, ">=", 2.0), harness.Bar("small", 700.0, "<=", 400), harness.Bar("unknown", None, "<=", 1)]
    assert harness.report("example", {"a": 1.23456789, "by": {"x": 123456.7}}, bars, {"rival": "1.0"}) == 0
    out, err = capsys.readouterr()
    document = json.loads(out.strip().splitlines()[-1])
    assert set(document) == {"benchmark", "machine", "versions", "figures", "bars"}
    assert document["figures"] == {"a": 1.235, "by": {"x": 123_500}}
    assert document["bars"][0] == {"name": "fast", "value": 3.142, "op": ">=", "limit": 2.0, "holds": True}
    assert [bar["holds"] for bar in document["bars"]] == [True, False, False]
    assert "small" in err
    assert "unknown" in err
    assert "fast" not in err
    assert {"python", "rival", "kafka-python"} <= set(document["versions"])


def test_the_machine_is_described_without_its_name_or_a_path() -> None:
    """Results are published: CPU, cores and memory, and nothing that identifies the machine."""
    import socket

    machine = harness.machine()
    text = json.dumps(machine)
    assert machine["cores"] >= 1
    assert machine["memory_gb"] > 0
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text


@pytest.mark.parametrize(
    ("value", "op", "limit", "holds"),
    [(2.0, ">=", 2.0, True), (1.9, ">=", 2.0, False), (400, "<=", 400, True), (401, "<=", 400, False), (None, ">=", 0, False)],
)
def test_a_bar_holds_at_its_limit(value: float | None, op: str, limit: float, holds: bool) -> None:
    """A value that could not be measured does not hold."""
    assert harness.Bar("bar", value, op, limit).holds is holds


def test_records_of_the_measured_stream_have_461_bytes_and_every_column(tmp_path: Path) -> None:
    """The size is the average over the fleet, so that rates are comparable from one release to the next."""
    written = stream.write_file(stream.fleet(10_000), 2, tmp_path / "stream.ndjson")
    assert written.records == 20_000
    assert written.record_bytes == pytest.approx(461, abs=1)
    record = json.loads((tmp_path / "stream.ndjson").open().readline())
    assert len(record) == 22
    assert None not in record.values()


@pytest.mark.parametrize("with_model", [True, False])
def test_the_daemon_takes_every_record_to_its_checkpoint_and_says_where_the_time_went(
    models: str, tmp_path: Path, with_model: bool
) -> None:
    """The stages add up to the CPU time of the whole process, and only a daemon with a model forecasts."""
    written = stream.write_file(stream.fleet(8), ROWS, tmp_path / "stream.ndjson")
    job = {"file": str(tmp_path / "stream.ndjson"), "records": written.records, "models": models if with_model else None}
    ran = daemon_run.ingest(job)
    assert ran["records"] == ran["accepted"] == 8 * ROWS
    assert (ran["links"], ran["watched_links"]) == (8, 8)
    assert ran["forecasts"] == (8 * (ROWS - 29) if with_model else 0)
    assert set(ran["stage_s"]) == OWN_STAGES
    assert sum(ran["stage_s"].values()) == pytest.approx(ran["cpu_s"], rel=0.05, abs=0.05)


def test_rounds_are_compared_with_each_other() -> None:
    """A machine that slows down between rounds changes no ratio."""
    assert harness.median_of_ratios([10.0, 20.0, 90.0], [5.0, 10.0, 30.0]) == 2.0


def test_ingest_bars_come_from_the_run_with_a_live_model() -> None:
    """Computed by hand: poll 4 s, ours 8 s of which 3 s are decode, features, drift and buffer, Quix 24 s."""
    stages = dict.fromkeys(OWN_STAGES, 1.0) | {"decode": 1.5, "features": 1.0, "drift": 0.25, "buffer": 0.25}
    run = {"records": 100, "cpu_s": 8.0, "wall_s": 9.0, "shed": 7, "forecasts": 3, "watched_links": 5, "stage_s": stages}
    other = run | {"cpu_s": 1.0}
    found = {
        "bare_poll": [{"records": 100, "cpu_s": 4.0, "wall_s": 5.0}],
        "quix_streams": [{"records": 100, "cpu_s": 24.0, "wall_s": 30.0}],
        "kafka_live_model": [run],
        "kafka_no_model": [other],
        "file_live_model": [other],
        "file_no_model": [other],
    }
    bars = {bar.name: (bar.value, bar.holds) for bar in ingest.bars(found)}
    assert bars == {"kafka_vs_poll": (0.5, True), "kafka_vs_quix": (3.0, True), "own_vs_poll": (0.75, True)}
    cost = {"forecast_ms": {"in_batches_of_1": 0.7}, "watched_row": {"cpu_ms": 0.6}}
    figures = ingest.figures(stream.Written(100, 46_100), 10, found, cost)
    assert figures["records_per_cpu_s"]["kafka_live_model"] == 12.5
    assert figures["record_bytes"] == 461
    assert figures["caught_up"]["watched_links_per_core_at_one_row_a_minute"] == 100_000


def test_the_bare_poll_takes_every_record_of_the_topic(kafka_broker: str, kafka_topic: Callable[..., str]) -> None:
    """It has the consumer settings of our own source."""
    name = kafka_topic(partitions=4)
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for number in range(50):
        producer.send(name, value=b"{}", partition=number % 4)
    producer.close()
    assert bare_poll.poll_all(kafka_broker, name, "bench", 50)["records"] == 50


def test_a_version_of_any_size_is_built_and_published(tmp_path: Path) -> None:
    """Its network is untrained, and as whole as a trained one."""
    small = Lstm(lstm_units=(8,), lstm_dropout=(0.2,), dense_units=(8,), dense_dropout=(0.2,), head_units=8)
    name = version.publish(tmp_path / "models", small)
    assert verify(tmp_path / "models" / name) == []


def test_memory_is_counted_per_link_above_one_link() -> None:
    """Computed by hand: 50 MB more for 10,000 links are 5,000 bytes a link."""
    run = {"peak_bytes": 9e8, "peak_before_checkpoint_bytes": 8e8, "watched_links": 1, "forecasts": 2}
    found = {1: run | {"resident_bytes": 300_000_000}, 10_000: run | {"resident_bytes": 350_000_000}}
    assert memory.bytes_per_link(found, 1, 10_000) == 5_000
    figures = memory.figures(found, {"bytes_per_watched_link": 10_000.0})
    assert figures["resident_mb"] == {"1": 300.0, "10000": 350.0}
    assert figures["bytes_per_link"] == {"10000": 5_000}


def test_memory_is_read_after_the_open_rows_were_sealed(models: str, tmp_path: Path) -> None:
    """A daemon in this process: what is counted is the state, not rows that wait for the next checkpoint."""
    written = stream.write_file(stream.fleet(8), ROWS, tmp_path / "stream.ndjson")
    job = {"file": str(tmp_path / "stream.ndjson"), "records": written.records, "models": models}
    found = daemon_memory.run(job)
    assert (found["links"], found["open_rows"]) == (8, 0)
    assert 0 < found["resident_bytes"] <= found["peak_bytes"]
    assert detector_memory.run(2000, 70)["bytes_per_watched_link"] > 2000


def test_inference_is_compared_within_each_round() -> None:
    """Computed by hand: two rounds, of which the second ran on a machine of half the speed. Ratios are the same."""
    names = ("core", "raw", "int8", "direct_export", "keras_call", "keras_predict", "default_raw", "default_raw_next_row")
    cost = dict(zip(names, (1.0, 1.2, 0.48, 4.8, 24.0, 60.0, 0.3, 0.25), strict=True))
    runs = {
        name: {"p50_ms": [ms, 2 * ms], "p99_ms": [2 * ms, 6 * ms], "windows_per_cpu_s": [64 / ms] * 2, "cpu_ms_at_64": [ms, 2 * ms]}
        for name, ms in cost.items()
    }
    sizes = {"core": 1_000_000, "raw": 1_010_000, "int8": 260_000}
    found = {"runs": runs, "sizes": sizes, "parity": {"core_largest": 1e-7}, "windows_from": "simulated"}
    bars = {bar.name: (bar.value, bar.holds) for bar in inference.bars(found)}
    assert bars["raw_vs_core"] == (pytest.approx(1.2), True)
    assert bars["int8_vs_raw"] == (pytest.approx(0.4), True)
    assert bars["p99_ms_worst"] == (pytest.approx(4.8), True)  # of the published graphs: the rivals are slower
    assert bars["horizons_vs_next_row"] == (pytest.approx(1.2), True)
    assert bars["default_vs_published_cpu_at_64"] == (pytest.approx(0.25), True)
    assert bars["int8_saving"] == (pytest.approx(0.74), True)
    figures = inference.figures(found)
    assert figures["raw_vs_rival"]["direct_export"] == pytest.approx(0.25)
    assert figures["p50_ms"]["keras_predict"] == pytest.approx(90.0)


def test_inference_times_every_graph_and_rival() -> None:
    """A small network in this process: each of the eight forecasts one by one and in batches, and the graphs agree with Keras."""

    small = Lstm(lstm_units=(8,), lstm_dropout=(0.2,), dense_units=(8,), dense_dropout=(0.2,), head_units=8)
    with tempfile.TemporaryDirectory() as name:
        built = inference_run.build_all(Path(name), small)
        found = inference_run.measure(built, rounds=1, calls=4, batches=1)
    assert set(found["runs"]) == {
        "core", "raw", "int8", "direct_export", "keras_call", "keras_predict", "default_raw", "default_raw_next_row",
    }  # fmt: skip
    for values in found["runs"].values():
        assert all(len(value) == 1 and value[0] > 0 for value in values.values())
    assert found["parity"]["raw_largest"] <= 1e-4
    assert found["sizes"]["core"] > 0
    (alone,), (together,) = built.one["raw"](3), built.many["raw"](0)
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-4)


def test_drift_to_live_is_the_sum_of_its_parts() -> None:
    """Computed by hand, from the moments of a made-up story."""
    story = drift_to_live.Story(drift_s=1000.0)
    story.tell("model_live", {"version": "v1"})
    story.tell("drift_opened", {"scope": "region", "region": "eu-1", "event_time_s": 900.0, "summary": "too early"})
    assert story.early_alerts == 1
    assert story.seconds == {}
    story.tell("drift_opened", {"scope": "link", "region": "eu-1", "event_time_s": 1550.0, "summary": "one link"})
    story.tell("drift_updated", {"scope": "region", "region": "eu-1", "event_time_s": 1600.0, "summary": "the planted one"})
    moments = ("training_due", "training_started", "training_finished", "model_published", "model_live")
    for at, event in enumerate(moments, start=1):
        story.tell(event, {"version": "v2", "stage_s": {"read": 0.5, "train": 2.0}})
        story.seconds[event] = story.seconds["drift_opened"] + 10.0 * at
    story.seconds["forecasting"] = story.seconds["drift_opened"] + 52.0
    parts = drift_to_live.parts(story)
    assert sum(parts.values()) == pytest.approx(52.0)
    assert (parts["training_epochs"], parts["child_start_and_end"], parts["swap"]) == pytest.approx((2.0, 7.5, 12.0))
    assert drift_to_live.figures(story, {})["drift_to_live_s"] == pytest.approx(52.0)
    assert drift_to_live.figures(story, {"epochs": 2})["settings"]["epochs"] == 2


RESULT = {
    "benchmark": "ingest",
    "machine": {"cpu": "A CPU", "cores": 2, "memory_gb": 8.0},
    "versions": {"python": "3.11.7"},
    "figures": {"records": 1_000_000, "records_per_cpu_s": {"own": 123_456.0}, "share": 0.25, "reason": None},
    "bars": [{"name": "own_vs_poll", "value": 0.8, "op": "<=", "limit": 1.0, "holds": True}],
}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A repository with one result and a README that asks for it."""
    (tmp_path / "docs" / "benchmarks").mkdir(parents=True)
    (tmp_path / "docs" / "benchmarks" / "ingest.json").write_text(json.dumps(RESULT))
    (tmp_path / "README.md").write_text(
        "before\n<!-- figures:ingest -->\nwhat stood here\n<!-- /figures -->\nafter\n<!-- figures:bars -->\n<!-- /figures -->\n"
    )
    return tmp_path


def test_tables_are_written_between_their_markers(documents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written tables are up to date. A changed result makes them stale, and --check reports it without a change."""

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["tables.py", "--root", str(documents), *options])
        return int(tables.main())

    assert run("--check") == 1
    assert run() == 0
    text = (documents / "README.md").read_text()
    assert "| ingest | `own_vs_poll` | 0.8 | ≤ 1 | yes |" in text
    assert "| records per cpu s: own | 123,456 |" in text
    assert "A CPU" in text
    assert "what stood here" not in text
    assert text.startswith("before\n")
    assert "\nafter\n" in text
    assert run("--check") == 0
    changed = RESULT | {"figures": {"records": 2}}
    (documents / "docs" / "benchmarks" / "ingest.json").write_text(json.dumps(changed))
    assert run("--check") == 1
    assert (documents / "README.md").read_text() == text


def test_a_list_of_rows_is_a_table_of_its_own() -> None:
    """It is written at its marker, and is not a figure among the others."""
    rows = [{"target": "rtt_ms", "network": 1.5, "skill": "+3 %"}, {"target": "jitter_ms", "network": 0.25, "skill": "-1 %"}]
    found = {"ingest": RESULT | {"figures": {"pairs": rows, "records": 2}}}
    written = tables.filled("<!-- figures:ingest.pairs -->\n<!-- /figures -->\n<!-- figures:ingest -->\n<!-- /figures -->", found, "x")
    assert "| target | network | skill |\n|---|---:|---|\n| rtt_ms | 1.5 | +3 % |\n| jitter_ms | 0.25 | -1 % |\n" in written
    assert "| figure | value |\n|---|---:|\n| records | 2 |\n" in written


def test_headlines_show_bars_and_figures_with_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars by name, figures within figures by a path, shares in percent; a figure that no result has is an error."""
    found = {"ingest": RESULT}
    text = "<!-- figures:headlines -->\n<!-- /figures -->"
    line = tables.Headline("ingest", "{own_vs_poll} of {records}", "{records_per_cpu_s/own} a second, {share/percent}")
    monkeypatch.setattr(tables, "HEADLINES", (line,))
    assert "| **0.8 of 1,000,000** | 123,456 a second, 25 % | `make bench-ingest` |" in tables.filled(text, found, "x")
    monkeypatch.setattr(tables, "HEADLINES", (tables.Headline("ingest", "{reason}", ""),))
    with pytest.raises(tables.TableError, match="make bench-ingest"):
        tables.filled(text, found, "x")


def test_a_marker_without_figures_is_an_error(documents: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """It names the file, the benchmark, and what to run."""
    (documents / "README.md").write_text("<!-- figures:memory -->\n<!-- /figures -->\n")
    monkeypatch.setattr(sys, "argv", ["tables.py", "--root", str(documents)])
    assert tables.main() == 1
    assert "make bench-memory" in capsys.readouterr().err


def test_a_training_step_is_measured_on_the_network_that_is_asked_for() -> None:
    """Plain and ours at a tiny size: each returns times and the cost of its first step."""
    part = training_step
    small = Lstm(lstm_units=(4,), lstm_dropout=(0.2,), dense_units=(4,), dense_dropout=(0.2,), head_units=4)
    for contender in ("plain", "ours"):
        found = part.step_ms(contender, small, batch=8, steps=2)
        assert set(found) == {"ms", "cpu_ms", "first_s"}
        assert min(found.values()) > 0
    assert matrix_rate.gflops((64, 64, 64), 1) > 0


def test_a_first_version_is_timed_as_a_whole() -> None:
    """A job as the daemon runs it, whose rows, windows and encoder are those that were asked for."""
    settings = {"epochs": 1, "epoch_windows_max": 64, "batch_size": 32, "windows_min": 64}
    linear = plain(Linear(ahead=Ahead(horizons=(1, 2), units=(), members=1)))
    found = first_version.main({"architecture": linear, "rows": 1_600, "settings": settings})
    assert found["encoder"] == "linear"
    assert 1_400 <= found["rows"] <= 1_600, "a fleet has holes"
    assert min(found["wall_s"], found["cpu_s"], found["windows"]["recent"]) > 0


def test_training_bars_are_ratios_within_a_round() -> None:
    """Computed by hand: 100 ms of plain Keras, 50 of ours, 40 of PyTorch, and a second round on a machine twice as slow."""
    assert training.step_gflop(Lstm(), 64) == pytest.approx(9.4, abs=0.1)

    def runs(ms: float) -> list[dict[str, Any]]:
        return [{str(batch): {"ms": ms * slow, "cpu_ms": ms, "first_s": 5.0} for batch in (64, 256)} for slow in (1.0, 2.0)]

    found = {"rate": [{"square": 188.0}] * 2, "plain": runs(100.0), "ours": runs(50.0), "pytorch": runs(40.0)}
    reported = training.figures(found, Lstm(), "ms")
    reported |= {"first_version": {"default": {"wall_s": 200.0}}, "first_version_to_published": 0.3}
    assert {bar.name: (bar.value, bar.holds) for bar in training.bars(reported)} == {
        "speedup_64": (2.0, True),
        "speedup_256": (2.0, True),
        "vs_pytorch_64": (1.25, True),
        "vs_pytorch_256": (1.25, True),
        "first_version_s": (200.0, False),
        "first_version_to_published": (0.3, True),
    }
    assert reported["batch_64"]["share_of_matrix_rate"]["plain"] == pytest.approx(9.4 / 0.15 / 188, rel=0.01)


def test_drift_is_told_from_noise_in_little() -> None:
    """A quiet day and each planted change once, through the stages of the daemon: no incident, and every change has its name."""
    run, sensitivity = drift_run, {"quorum": 14.0, "alone": 24.0, "quorum_spread": 24.0, "alone_spread": 34.0}
    chosen = run.Sensitivity(**sensitivity)
    assert run.quiet("shared", 0, 30, 1, chosen)["opened"] == []
    found = {one["name"]: one for one in run.detect("independent", 1, 30, run.WARM_UP, chosen)}
    assert [name for name, one in found.items() if one["delay"] is None] in ([], ["1s_5"])  # two links of 30 are no quorum
    assert {name: one["called"] for name, one in found.items() if name not in ("1s_5", "burst_20")} == {
        "1s_20": "shift", "1s_80": "shift", "2s_20": "shift", "variance_80": "spread", "ramp_80": "ramp", "model_80": "model error",
        "one_link": "one link: shift", "missing_80": "missing", "constant_80": "constant", "unit_80": "unit", "category_80": "category",
        "clock_80": "clock",
    }  # fmt: skip
    assert all(one.get("precision", 1.0) == 1.0 for one in found.values())
    assert {name for name, one in found.items() if one["group"] == "data" and one["network_incidents"]} == set()
    rivals = drift_rivals.run("season", 2, 1, 0)
    assert rivals["adwin_raw"]["alerts_per_week"] > 1000.0


def test_a_proof_counts_what_held_what_broke_and_what_did_not_run(tmp_path: Path) -> None:
    """A skipped case proves nothing, and a file that cannot be read is not a proof either."""
    (tmp_path / "test_promise.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('fault', [1, 2, 3])\ndef test_the_disk_refuses(fault): assert fault < 3\n"
        "def test_no_disk(): pytest.skip('none here')\n"
    )
    assert proof.cases([str(tmp_path / "test_promise.py")]) == [
        {"what": "the disk refuses", "held": 2, "broken": 1, "unproven": 0},
        {"what": "no disk", "held": 0, "broken": 0, "unproven": 1},
    ]
    (tmp_path / "test_promise.py").write_text("import nothing_of_this_name\n")
    assert [one["broken"] for one in proof.cases([str(tmp_path / "test_promise.py")])] == [1]


@pytest.mark.parametrize(("test", "code"), [("pass", 0), ("assert False", 1)])
def test_a_proof_that_is_broken_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], test: str, code: int
) -> None:
    """Its exit code shows it, and its line is printed all the same."""
    (tmp_path / "test_promise.py").write_text(f"def test_it(): {test}\n")
    monkeypatch.setattr("sys.argv", ["promise"])
    assert proof.prove("promise", "A promise.", [str(tmp_path / "test_promise.py")], 1) == code
    document = json.loads(capsys.readouterr().out)
    assert [bar["holds"] for bar in document["bars"]] == [code == 0, code == 0, True]


def test_never_silent_is_proven_with_the_service_manager() -> None:
    """The tests that it names exist, and the one that --quick runs alone is last."""
    module, root = never_silent, ROOT
    for file, _, test in (one.partition("::") for one in module.FILES):
        assert f"def {test}" in (root / file).read_text()
    assert module.FILES[-1] == "tests/daemon/operator/test_notify.py"
    assert sum("watchdog" in one for one in module.FILES) == 2


def test_alerts_are_scored_on_the_whole_chain() -> None:
    """A small fleet for a day: telemetry, a real training, the daemon's loop, and a step on most links that it reports."""
    step = next(index for index, change in enumerate(alerts_plan.CHANGES) if change.name == "4s_80")
    fleet = alerts_plan.Fleet(seed=1, links=8, regions=1, first_h=10.0, hours=20.0, changes=step)
    found = alerts_run.run({"fleet": asdict(fleet), "budget": 1.0})
    first = next(one for one in found["truth"] if one["first_day"])
    assert first["name"] == "4s_80"
    scored = alerts_score.detection(found["alerts"], first)
    assert scored["delay"] is not None
    assert scored["recall"] > 0.3
    assert scored["named_right"] is True
    assert alerts.together([(fleet, found | {"truth": [first]})])["missed"] == 0.0
    assert found["rows"] > 9_000


def test_an_alert_of_another_region_or_time_detects_nothing() -> None:
    planted = {
        "name": "2s_20", "kind": "step", "region": "eu", "start_s": 1e6, "end_s": 1e6 + 36_000, "signals": ["rtt_ms"],
        "sizes": {"rtt_ms": 10.0}, "first_day": True, "links": ["a", "b"],
    }  # fmt: skip
    signal = {"signal": "rtt_ms", "change": "shift", "size": 9.0, "before": 40.0, "after": 49.0}
    alert = {
        "incident": "1", "outcome": None, "region": "eu", "scope": "region", "group": "network", "since_s": 1e6 + 60, "opened_s": 1e6 + 600,
        "time_s": 1e6 + 600, "links": ["a"], "signals": [signal], "change": "opened",
    }  # fmt: skip
    right = alerts_score.detection([alert], planted)
    assert right == {
        "name": "2s_20", "first_day": True, "delay": 10.0, "recall": 0.5, "size_right": True, "named_right": True,
    }  # fmt: skip
    assert alerts_score.false_incidents([alert], [planted]) == []
    for change in ({"region": "us"}, {"since_s": 9e5}, {"opened_s": 1e6 + 90_000}, {"links": ["c"]}):
        assert alerts_score.detection([alert | change], planted)["delay"] is None
    absorbed = alert | {"outcome": "fleet"}
    assert alerts_score.detection([absorbed], planted)["delay"] == 10.0, "a person was told, whatever became of it"
    assert alerts_score.false_incidents([absorbed | {"region": "us"}], [planted]) == []
    assert len(alerts_score.false_incidents([alert | {"region": "us"}], [planted])) == 1


def test_labels_are_found_once_and_within_the_tolerance() -> None:
    truth = {"a": [0.0, 100_000.0], "b": [50_000.0]}
    found = {"a": [600.0, 700.0, 104_000.0]}
    figures = alerts_labelled.score(found, truth, -1.0)
    assert (figures["matched"], figures["found"], figures["labels"]) == (1, 3, 3)
    assert figures["f1"] == pytest.approx(1 / 3)
