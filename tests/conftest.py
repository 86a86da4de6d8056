"""Fixtures that several test files share."""

from __future__ import annotations

import functools
import importlib
import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import settings
from kafka.admin import KafkaAdminClient

from testkit.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # at the end: an installed package of the same name comes first

# No deadline for an example: the first one compiles kernels, and the machine may be busy.
settings.register_profile("dwcp", deadline=None)
settings.load_profile("dwcp")


@pytest.fixture(scope="session")
def kafka_module() -> ModuleType:
    """tests/testkit/kafka/broker.py, for tests that start and stop brokers of their own. Skips where there is no Java or Maven."""
    module = importlib.import_module("testkit.kafka.broker")
    try:
        module.resolve_jars()
    except module.UnavailableError as reason:
        if os.environ.get("CI") == "true":  # there, a test that silently does not run is a defect
            raise
        pytest.skip(str(reason))
    return module


@pytest.fixture(scope="module")
def kafka_cluster(kafka_module: ModuleType) -> Iterator[Any]:  # noqa: ARG001 - skips where there is no Java
    """Three brokers (tests/testkit/kafka/cluster.py) that the tests of a file share: each leaves them running."""
    with importlib.import_module("testkit.kafka.cluster").Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_broker(kafka_module: ModuleType) -> Iterator[Any]:
    """One Apache Kafka broker that all tests of a run share."""
    with kafka_module.Broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_broker(shared_broker: Any) -> str:
    """The address of the shared broker: take a topic and a group of your own."""
    return str(shared_broker.bootstrap)


@pytest.fixture(autouse=True)
def _broker_that_runs(request: pytest.FixtureRequest) -> None:
    """A shared broker that has died, for want of memory say, costs the test in which it did and no other."""
    if "kafka_broker" in request.fixturenames and not (broker := request.getfixturevalue("shared_broker")).running:
        broker.start()


@pytest.fixture(scope="session")
def lstm_graph() -> Callable[..., bytes]:
    """A maker of core graphs, written by hand: lstm_graph(hidden=(64, 48), seed=0) gives the bytes of an ONNX model of opset 13 with
    one LSTM operator for each entry of hidden, dense layers, and a linear path from the last row; random weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def make(hidden: tuple[int, ...] = (64, 48), seed: int = 0) -> bytes:
        rng, weights, nodes, width = np.random.default_rng(seed), {}, [], 44

        def weight(name: str, *shape: int) -> str:
            weights[name] = (rng.normal(0, 1, shape) / np.sqrt(shape[-1])).astype(np.float32)
            return name

        nodes.append(helper.make_node("Transpose", ["input"], ["steps0"], perm=[1, 0, 2]))  # (T, B, F), as LSTM takes it
        for at, units in enumerate(hidden):
            inputs = [
                f"steps{at}",
                weight(f"W{at}", 1, 4 * units, width),
                weight(f"R{at}", 1, 4 * units, units),
                weight(f"B{at}", 1, 8 * units),
            ]
            nodes.append(helper.make_node("LSTM", inputs, [f"all{at}", f"last{at}"], hidden_size=units))
            nodes.append(helper.make_node("Squeeze", [f"all{at}", "one"], [f"steps{at + 1}"]))  # (T, 1, B, H) -> (T, B, H)
            width = units
        weights["one"], weights["zero"] = np.array([1]), np.array([0])
        weights["newest"] = np.array(29)
        nodes.append(helper.make_node("Squeeze", [f"last{len(hidden) - 1}", "zero"], ["state"]))
        nodes.append(helper.make_node("MatMul", ["state", weight("D", width, 32)], ["dense"]))
        nodes.append(helper.make_node("Relu", ["dense"], ["relu"]))
        nodes.append(helper.make_node("Gemm", ["relu", weight("E", 32, 4), weight("e", 4)], ["deep"]))
        nodes.append(helper.make_node("Gather", ["input", "newest"], ["row"], axis=1))
        nodes.append(helper.make_node("MatMul", ["row", weight("L", 44, 4)], ["linear"]))
        nodes.append(helper.make_node("Add", ["deep", "linear"], ["output"]))
        graph = helper.make_graph(
            nodes,
            "core",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 30, 44])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 4])],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    return make


@pytest.fixture(scope="session")
def made_up_windows() -> Callable[..., Any]:
    """A maker of raw windows: made_up_windows(count, seed=0) gives RawWindows of ordinary telemetry with some holes."""
    from features.telemetry import CATEGORIES, NUMERIC
    from model.version.raw_windows import RawWindows

    def make(count: int, seed: int = 0) -> RawWindows:
        rng = np.random.default_rng(seed)
        telemetry = rng.normal(50, 10, (count, 39, len(NUMERIC))).astype(np.float32)
        telemetry[:, :, 2] = rng.uniform(0, 0.05, (count, 39))
        telemetry[:, :, 9] = rng.uniform(0, 24, (count, 39))
        telemetry[:, :, 10] = rng.integers(0, 7, (count, 39))
        telemetry[rng.random(telemetry.shape) < 0.05] = np.nan
        time_s = 1_795_000_000.0 + 60.0 * np.arange(30) + rng.integers(0, 10**6, (count, 1))
        texts = np.array(["", "eu-1", "us-1", "metro", "né"], object)
        return RawWindows(time_s, telemetry, texts[rng.integers(0, len(texts), (count, 30, len(CATEGORIES)))])

    return make


@pytest.fixture(scope="session")
def make_version(lstm_graph: Callable[..., bytes], made_up_windows: Callable[..., Any]) -> Callable[..., Path]:
    """A maker of whole versions: make_version(folder, "v20261123_101500", seed=0, parent=None) fills the new folder as an export does
    (three graphs, metadata, golden samples, manifest) and gives it back. What depends on the seed alone is made once."""
    import onnx

    from features.vocabulary import Vocabulary
    from model.training.graph.all_three import raw_graphs
    from model.version.golden import GOLDEN_NAME, write_golden
    from model.version.golden_raw import raw_samples
    from model.version.manifest import write_manifest
    from model.version.metadata import Metadata, core_name, int8_name, raw_name
    from model.version.predictor import core_session, run_core
    from model.version.raw_predictor import RawPredictor
    from model.version.raw_windows import features_of
    from model.windows.scaler import Scaler

    def metadata_of(version: str, seed: int) -> Metadata:
        rng = np.random.default_rng(seed)
        inputs = Scaler(rng.normal(50, 20, 44).astype(np.float32), rng.uniform(1, 9, 44).astype(np.float32), np.ones(44, np.bool_))
        outputs = Scaler(np.array([80, 20, 0.01, 2], np.float32), np.array([9, 3, 0.01, 1], np.float32), np.ones(4, np.bool_))
        return Metadata(version, inputs, outputs, Vocabulary.empty(), trained_until_s=1_795_000_000.0)

    @functools.cache
    def graphs_and_golden(seed: int) -> tuple[bytes, bytes, bytes, bytes]:
        metadata, core = metadata_of("v20260101_000000", seed), lstm_graph(seed=seed)
        graphs, session = raw_graphs(core, metadata), core_session(core)

        def forecast(windows: Any) -> Any:
            scaled = metadata.inputs.transform(features_of(windows, metadata.vocabulary))
            return metadata.outputs.inverse(run_core(session, scaled))

        raw, int8 = RawPredictor.of(graphs.raw), RawPredictor.of(graphs.int8, int8=True)
        samples = np.random.default_rng(seed).normal(0, 1, (8, 30, 44)).astype(np.float32)
        with tempfile.TemporaryDirectory() as name:
            raw_part = raw_samples(made_up_windows(16, seed), forecast, raw, int8, metadata.outputs)
            golden = write_golden(Path(name), samples, run_core(session, samples), raw_part).read_bytes()
        return core, graphs.raw, graphs.int8, golden

    def make(folder: Path, version: str, seed: int = 0, parent: str | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        *graphs, golden = graphs_and_golden(seed)
        for name, content in zip((core_name(version), raw_name(version), int8_name(version)), graphs, strict=True):
            graph = onnx.load_from_string(content)
            onnx.helper.set_model_props(graph, {"version": version})
            (folder / name).write_bytes(graph.SerializeToString())
        (folder / GOLDEN_NAME).write_bytes(golden)
        metadata_of(version, seed).write(folder)
        write_manifest(folder, version=version, parent=parent, reason="test", created_at_s=1.0, verdict=None, libraries={})
        return folder

    return make


@pytest.fixture(scope="session")
def kafka_admin(kafka_broker: str) -> Iterator[KafkaAdminClient]:
    """An admin client of the shared broker."""
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker)
    yield admin
    admin.close()


@pytest.fixture
def kafka_topic(kafka_admin: KafkaAdminClient) -> Callable[..., str]:
    """Creates topics of the shared broker: kafka_topic(partitions=4, configs={...}) -> its name, which no other test has."""

    def create(partitions: int = 1, configs: dict[str, str] | None = None) -> str:
        name = f"test.{uuid.uuid4().hex[:12]}"
        kafka_admin.create_topics({name: {"num_partitions": partitions, "configs": configs or {}}}, wait_for_metadata=True)
        return name

    return create


@pytest.fixture(scope="session")
def load() -> Callable[[str], ModuleType]:
    """load("kill"), load("parts.stream"): a module of benchmarks/, which is no package of ours."""
    return importlib.import_module


@pytest.fixture(scope="session")
def rig() -> ModuleType:
    """tests/testkit/recovery_rig.py: a daemon of real parts in a process that can be killed at any point."""
    return importlib.import_module("testkit.recovery_rig")


@pytest.fixture(scope="session")
def storms() -> ModuleType:
    """tests/testkit/storm.py: a disk that refuses, and a power cut."""
    return importlib.import_module("testkit.storm")


@pytest.fixture(scope="session")
def scenes() -> ModuleType:
    """tests/testkit/scene.py: a daemon, a producer that writes on, and what the buffer holds in the end."""
    return importlib.import_module("testkit.scene")


@pytest.fixture(scope="session")
def syscalls() -> ModuleType:
    """tests/testkit/syscalls.py: work that can be killed at any system call."""
    return importlib.import_module("testkit.syscalls")


@pytest.fixture(scope="session")
def hostile() -> ModuleType:
    """tests/testkit/hostile.py: damaged messages, and what has to be true of them."""
    return importlib.import_module("testkit.hostile")


@pytest.fixture(scope="session")
def hostile_documents() -> ModuleType:
    """tests/testkit/hostile_documents.py: every reader of a document, with good content to damage."""
    return importlib.import_module("testkit.hostile_documents")


@pytest.fixture(scope="session")
def waiting() -> ModuleType:
    """tests/testkit/waiting.py: waits for states, and the one limit of all waits."""
    return importlib.import_module("testkit.waiting")


@pytest.fixture(scope="session")
def wait_for(waiting: ModuleType) -> Callable[..., Any]:
    """wait_for(condition, "what it is", alive=...) gives the condition's value once it is true."""
    waited: Callable[..., Any] = waiting.wait_for
    return waited


@pytest.fixture(scope="session")
def running() -> ModuleType:
    """tests/testkit/running.py: the daemon as a process."""
    return importlib.import_module("testkit.running")


@pytest.fixture
def run(tmp_path: Path, running: ModuleType) -> Iterator[Callable[..., Any]]:
    """run(kafka, topic=..., more=..., faults=...) starts a daemon (testkit.running), which is killed at the end if it still runs."""
    started = []

    def start(kafka: str, **changed: Any) -> Any:
        started.append(running.Running(tmp_path, kafka, **changed))
        return started[-1]

    yield start
    for one in started:
        one.kill()


LONGEST_FIRST: Final = (
    "test_broker_faults", "test_go_client", "test_train", "test_job", "test_never_silent", "test_recovery", "test_disk_faults",
    "test_systemd", "test_export", "test_end_to_end", "test_overload", "test_trainer", "test_kafka", "test_rebalance", "test_soak",
    "test_kafka_sink",
)  # fmt: skip
"""Files that take half a minute and more: where one comes last, a core waits for it that has nothing else to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of their length; the tests of a file stay as they are."""
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


FAILED: Final = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fixtures can see whether their test has failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def spawn(running: ModuleType) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """spawn(command, ...) is a subprocess.Popen that is killed at the end, if it still runs, and its training with it."""
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command, preexec_fn=running.die_with_parent, **{"text": True, **options}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class Renewed:
    """What the tests of a file share, as long as all is well with it."""

    def __init__(self, start: Callable[[], AbstractContextManager[Any]]) -> None:
        self._start, self._stack, self._made = start, ExitStack(), None

    @contextmanager
    def of(self, test: pytest.Item, usable: Callable[[Any], bool]) -> Iterator[Any]:
        """For one test: what the test before it had, or a new one, where that has failed or has left what is not usable any more."""
        if self._made is None or not usable(self._made):
            self.close()
            self._made = self._stack.enter_context(self._start())
        yield self._made
        if test.stash.get(FAILED, False):
            self.close()

    def close(self) -> None:
        self._made = None
        self._stack.close()


@pytest.fixture(scope="session")
def renewed() -> Callable[..., AbstractContextManager[Renewed]]:
    """renewed(start) for fixtures of a file: start() is a context manager of what its tests share."""
    return lambda start: closing(Renewed(start))


@pytest.fixture
def no_broker() -> Iterator[str]:
    """An address at which every connection is refused: bound and not listening, so that nobody else takes the port."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


@pytest.fixture(scope="session")
def publish(make_version: Callable[..., Path]) -> Callable[..., None]:
    """publish(folder, version, seed=0) makes a version in folder/models, and CURRENT names it."""
    from model.registry.versions import Registry

    def make(folder: Path, version: str, seed: int = 0) -> None:
        registry = Registry(folder / "models")
        registry.root.mkdir(exist_ok=True)
        registry.publish(make_version(registry.candidate_folder(version), version, seed=seed), version)

    return make


@pytest.fixture
def home(tmp_path: Path, rig: ModuleType, publish: Callable[..., None], uninterrupted: Any) -> Path:  # noqa: ARG001 - warms up
    """A folder for runs of the rig, with a live version."""
    publish(tmp_path, rig.FIRST)
    return tmp_path


@pytest.fixture(scope="session")
def uninterrupted(rig: ModuleType, publish: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one run of the rig leaves that nothing disturbs. It runs in this process: those that are forked from it find every import
    done and every kernel loaded, which is half of their time."""
    home = tmp_path_factory.mktemp("uninterrupted")
    publish(home, rig.FIRST)
    rig.daemon_over(rig.ScriptedSource(seed=1, batch_max=100), rig.config(home)).run()
    left = rig.outcome(home)
    assert any("drift.opened" in line for line in left.alerts.values()), "the planted drift was not told: nothing would be tested"
    return left


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """cli("models", "list", ...) runs `dwcp-learner models list ...` in this process, in an empty folder, and gives exit code, standard
    output and standard error. What the command changes for its process, logging and signals, is put back."""
    import logging
    import signal

    import structlog

    from daemon.cli import main

    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("COLUMNS", "140")
    for name in [name for name in os.environ if name.upper().startswith("DWCP_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dwcp-learner", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            root.handlers[:] = handlers
        return code, *capsys.readouterr()

    yield run
    root.setLevel(level)
    structlog.reset_defaults()
    for number, handler in signals.items():
        signal.signal(number, handler)
