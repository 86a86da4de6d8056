"""The examples do what their texts promise: against Apache Kafka, a published version, and the daemon's own readers."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer

from daemon.config.load import load
from features.telemetry import CATEGORIES, NUMERIC, TARGETS, Partition
from model.version.metadata import metadata_name, raw_name
from model.version.raw_predictor import RawPredictor
from model.version.raw_windows import RawWindows
from streams.events import Event
from streams.records.decode import decode
from streams.simulator.dataset import write_dataset
from streams.simulator.fleet import FleetSpec, Region
from streams.source import RawBatch
from testkit.versions import publish

ROOT: Final = Path(__file__).resolve().parents[2]
FIRST, SECOND = "v20261123_101500", "v20261123_101600"


def example(name: str) -> ModuleType:
    """examples/NAME.py as a module; a script like any other."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(count: int = 45) -> list[dict[str, Any]]:
    """Records of one link, oldest first, some of them with holes: a field that is null or left out."""
    produce = example("produce_telemetry")
    made = [produce.record(produce.LINKS[0], 1_795_000_000.0 + 60 * number) for number in range(count)]
    del made[-3]["rtt_ms"], made[-5]["region"]
    made[-4] |= {"jitter_ms": None, "link_type": None}
    return made


def consumed(broker: str, topic: str) -> Iterator[Any]:
    consumer = KafkaConsumer(topic, bootstrap_servers=broker, auto_offset_reset="earliest")
    yield from consumer
    consumer.close()


def test_the_producer_writes_what_the_daemon_accepts(kafka_broker: str, kafka_topic: Callable[..., str]) -> None:
    """Every record is valid telemetry, and all records of a link have one key and lie in one partition."""
    produce, topic = example("produce_telemetry"), kafka_topic(partitions=3)
    assert produce.main(kafka_broker, topic, 10) == 30
    found = list(itertools.islice(consumed(kafka_broker, topic), 30))
    decoded = decode(RawBatch(Partition(topic, 0), range(30), [message.value for message in found]), time.time())
    assert decoded.rejected == []
    names = ["|".join(key) for key in zip(decoded.batch.node_id, decoded.batch.peer_id, decoded.batch.column("link_type"), strict=True)]
    assert [message.key.decode() for message in found] == names
    assert len({(message.key, message.partition) for message in found}) == 3


def test_the_subscriber_reads_each_alert_once(kafka_broker: str, kafka_topic: Callable[..., str]) -> None:
    """A repeat has the same id; what became of a training is not an alert."""
    follow, topic = example("follow_alerts"), kafka_topic()
    data = {"change": "opened", "severity": "warning", "summary": "eu-west-1: rtt +20 ms on 5 of 20 links"}
    opened = Event("id-1", "dwcp.drift.opened", "test", "eu-west-1", 1_795_000_000.0, data)
    retraining = Event("id-2", "dwcp.drift.retraining", "test", "eu-west-1", 1_795_000_060.0, {})
    closed = Event("id-3", "dwcp.drift.closed", "test", "eu-west-1", 1_795_000_120.0, data | {"change": "closed"})
    producer = KafkaProducer(bootstrap_servers=kafka_broker)
    for event in (opened, opened, retraining, closed, opened):
        producer.send(topic, event.encode())
    producer.close()
    values = (message.value for message in itertools.islice(consumed(kafka_broker, topic), 5))
    found = [follow.line(event) for event in follow.alerts(values)]
    assert [line.split()[1] for line in found] == ["opened", "closed"]
    assert found[0] == "2026-11-18T11:06:40Z opened   warning  eu-west-1: rtt +20 ms on 5 of 20 links"


def test_forecasts_are_those_of_the_daemon_and_follow_the_live_version(tmp_path: Path) -> None:
    """ONNX Runtime alone makes them, with holes and with short histories; a damaged version is refused and the loaded one stays."""
    forecast = example("forecast")
    assert (forecast.NUMERIC, forecast.CATEGORIES, forecast.TARGETS) == (NUMERIC, CATEGORIES, TARGETS)
    publish(tmp_path, FIRST)
    models = tmp_path / "models"
    live = forecast.LiveModel(models)
    for given in (rows(), rows(33)):
        assert list(live.forecast(given).values()) == pytest.approx(ours(models / FIRST, given), rel=1e-5)
    with pytest.raises(ValueError, match="29 rows"):
        live.forecast(rows()[:29])
    assert not live.refresh()
    publish(tmp_path, SECOND, seed=1)
    assert live.refresh()
    assert live.version == SECOND
    given = rows()
    assert list(live.forecast(given).values()) == pytest.approx(ours(models / SECOND, given), rel=1e-5)
    publish(tmp_path, "v20261123_101700", seed=2)
    graph = next((models / "v20261123_101700").glob("*.raw.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        live.refresh()
    assert live.version == SECOND


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A models folder with a version that forecasts 1 and 3 rows ahead, and the version's name."""
    folder = tmp_path_factory.mktemp("several")
    spec = FleetSpec(seed=5, regions=(Region("eu", 0.0),), links_per_region=2)
    recording = write_dataset(spec, folder / "recording", "csv", 4 * 3600.0)
    train = [sys.executable, "-m", "daemon.cli", "train", "--data-path", str(recording), "--output-dir", str(folder / "out")]
    options = ["--architecture", "linear", "--horizons", "1,3", "--epochs", "1", "--json"]
    done = subprocess.run([*train, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version = json.loads(done.stdout)["version"]
    (folder / "models").mkdir()
    (folder / "out").rename(folder / "models" / version)
    (folder / "models" / "CURRENT").write_text(version)
    return folder / "models", version


@pytest.mark.parametrize("count", [45, 33, 12, 3])
def test_forecasts_further_ahead_are_those_of_the_project(several: tuple[Path, str], count: int) -> None:
    """With their bounds, of short runs too; without a context, which the graph has a default for."""
    models, version = several
    live = example("forecast").LiveModel(models)
    given = rows()[-count:]
    found = live.forecast_ahead(given)
    assert list(found) == [1, 3]
    predictor = RawPredictor.load(models / version)
    expected = predictor.predict_ahead(raw_windows(given))[0]  # (H, 4, 4)
    assert [list(each.values()) for each in found.values()] == [pytest.approx(horizon, rel=1e-4) for horizon in expected]
    assert all(lower <= median <= upper for each in found.values() for lower, median, upper, _ in each.values())
    assert list(live.forecast(given).values()) == pytest.approx([median for _, median, _, _ in found[1].values()], rel=1e-6)
    with pytest.raises(ValueError, match="2 rows: a forecast needs 3"):
        live.forecast_ahead(rows()[:2])


def test_horizons_that_the_graph_does_not_have_are_refused(several: tuple[Path, str], tmp_path: Path) -> None:
    """The version that is loaded stays."""
    models = Path(shutil.copytree(several[0], tmp_path / "models"))
    live = example("forecast").LiveModel(models)
    other = "v20261123_101500"
    shutil.copytree(models / several[1], models / other)
    document = json.loads((models / several[1] / metadata_name(several[1])).read_text())
    document["forecast"]["horizons_rows"] = [1, 3, 9]
    (models / other / metadata_name(other)).write_text(json.dumps(document))
    (models / "CURRENT").write_text(other)
    with pytest.raises(ValueError, match="does not forecast the 3 horizons"):
        live.refresh()
    assert live.version == several[1]
    assert list(live.forecast_ahead(rows())) == [1, 3]


@pytest.mark.parametrize(
    ("graphs", "problem"),
    [
        (None, "is not a published version"), ([], "is not a published version"), ({}, "is not a published version"),
        ({"raw": 7}, "is not a published version"), ({"raw": {"file": None}}, "is not a published version"),
        ({"raw": {"file": "none.onnx"}}, "is not a published version"), ({"raw": {"file": "../CURRENT"}}, "is not a file name"),
        ({"raw": {"file": "/etc/passwd"}}, "is not a file name"), ({"raw": {"file": ""}}, "is not a published version"),
        ({"raw": {"file": "MANIFEST.json"}}, "is not a published version"), ({"raw": {"file": "golden.json"}}, "cannot be loaded"),
    ],
)  # fmt: skip
def test_a_version_that_is_odd_is_refused_and_the_loaded_one_stays(tmp_path: Path, graphs: object, problem: str) -> None:
    """Whatever its metadata declare: a ValueError, which --follow prints before it goes on."""
    forecast, models = example("forecast"), tmp_path / "models"
    publish(tmp_path, FIRST)
    live = forecast.LiveModel(models)
    publish(tmp_path, SECOND, seed=1)
    path = models / SECOND / metadata_name(SECOND)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"graphs": graphs}))
    with pytest.raises(ValueError, match=problem):
        live.refresh()
    assert live.version == FIRST
    assert len(live.forecast(rows())) == len(TARGETS)


def test_a_version_of_an_older_release_is_found_by_its_name(tmp_path: Path) -> None:
    """It declares no files; without its raw graph it is refused as others are."""
    forecast, models = example("forecast"), tmp_path / "models"
    publish(tmp_path, FIRST)
    path = models / FIRST / metadata_name(FIRST)
    document = json.loads(path.read_text())
    document.pop("graphs", None)
    path.write_text(json.dumps(document))
    live = forecast.LiveModel(models)
    (models / FIRST / raw_name(FIRST)).unlink()
    with pytest.raises(OSError, match="No such file"):
        live._load(FIRST)
    assert live.version == FIRST


def ours(folder: Path, given: list[dict[str, Any]]) -> list[float]:
    """Return the forecasts of the project's own reader of the raw graph from the same rows."""
    graph = next(folder.glob("*.raw.onnx")).read_bytes()  # as it is: these random weights have no bounds, and `load` would add some
    return [float(value) for value in RawPredictor.of(graph).predict_windows(raw_windows(given))[0]]


def raw_windows(given: list[dict[str, Any]]) -> RawWindows:
    """Return the window of the newest rows, empty where there are none."""
    held, empty = given[-39:], 30 - len(given)
    telemetry = np.full((1, 39, len(NUMERIC)), np.nan, np.float32)
    telemetry[0, 39 - len(held) :] = [[given_or(row, name, np.nan) for name in NUMERIC] for row in held]
    window = [{"timestamp": np.nan}] * empty + held[-30:]
    categories = np.array([[[given_or(row, name, "") for name in CATEGORIES] for row in window]], object)
    return RawWindows(np.array([[row["timestamp"] for row in window]]), telemetry, categories)


def given_or(row: dict[str, Any], name: str, missing: Any) -> Any:
    value = row.get(name)
    return missing if value is None else value


def test_the_forecast_runs_without_this_project(tmp_path: Path) -> None:
    """It runs as a script in another folder, in which none of the packages can be imported."""
    publish(tmp_path, FIRST)
    (tmp_path / "telemetry.ndjson").write_text("\n".join(map(json.dumps, rows())))
    (tmp_path / "forecast.py").write_bytes((ROOT / "examples" / "forecast.py").read_bytes())
    hidden = "import runpy, sys; sys.modules.update(dict.fromkeys(('daemon', 'drift', 'features', 'model', 'streams')))"
    script = f"{hidden}; sys.argv = ['forecast.py', 'models', 'telemetry.ndjson']; runpy.run_path('forecast.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version, _, forecast = done.stdout.strip().partition(" ")
    assert version == FIRST
    assert set(json.loads(forecast)) == set(TARGETS)


def test_the_configuration_is_valid_and_what_it_says_of_defaults_is_true() -> None:
    """Every key is known; the topic is that of the producer's text."""
    config = load(ROOT / "examples" / "dwcp-learner.toml", {})
    assert (config.kafka.topic, config.events.to, config.http.port) == ("dwcp.telemetry", "file", 9108)
    assert config.models.directory == Path("var/models")
