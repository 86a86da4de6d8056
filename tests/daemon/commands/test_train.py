"""`dwcp-learner train` from a recording to its files, as a person runs it, with a small network."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from model.version.manifest import verify
from model.version.predictor import Predictor
from streams.simulator.dataset import write_dataset
from streams.simulator.fleet import FleetSpec, Region
from testkit.paths import ROOT
from testkit.waiting import wait_for

Spawn = Callable[..., subprocess.Popen[str]]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight hours of four links, a row a minute."""
    spec = FleetSpec(seed=5, regions=(Region("eu", 0.0),), links_per_region=4)
    return write_dataset(spec, tmp_path_factory.mktemp("recording"), "csv", 8 * 3600.0)


def command(recording: Path, output: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "daemon.cli", "train", "--data-path", str(recording), "--output-dir", str(output)]
    return [*start, "--architecture", "small", "--batch-size", "32", *more]


def train(recording: Path, output: Path, *more: str) -> dict[str, Any]:
    """The report that the command prints."""
    done = subprocess.run(command(recording, output, "--json", *more), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def trained(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the report of two epochs."""
    output = tmp_path_factory.mktemp("trained") / "out"
    return output, train(recording, output, "--epochs", "2")


def test_the_files_are_exactly_those(trained: tuple[Path, dict[str, Any]]) -> None:
    """Nothing is missing, nothing is left over, and the folder verifies as a version does."""
    output, report = trained
    version = report["version"]
    graphs = {f"bandwidth_lstm_{version}{kind}.onnx" for kind in ("", ".raw", ".int8")}
    assert {path.name for path in output.iterdir()} == graphs | {
        "best_model.keras", f"model_metadata_{version}.json", f"training_history_{version}.json", "TRAINING_REPORT.json",
        "training_log.csv", "tensorboard", "golden.json", "report.html", "MANIFEST.json",
    }  # fmt: skip
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert verify(output) == []
    assert Predictor.load(output).version == version
    assert json.loads((output / "TRAINING_REPORT.json").read_text()) == report


def test_the_command_verifies_an_output_folder(trained: tuple[Path, dict[str, Any]], tmp_path: Path, cli: Callable[..., Any]) -> None:
    """A person checks it like this: it is sound as written, and a file that was altered is named."""
    copy = shutil.copytree(trained[0], tmp_path / "copy")
    assert cli("models", "verify", "--models", copy)[0] == 0
    (copy / "training_log.csv").write_text("altered")
    code, said, _ = cli("models", "verify", "--models", copy)
    assert code == 1
    assert "training_log.csv" in said


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ("model_metadata", "model_metadata_*.json"),
        ("training_history", "training_history_*.json"),
        ("training_report", "TRAINING_REPORT.json"),
    ],
)
def test_documents_are_as_their_schema_says(trained: tuple[Path, dict[str, Any]], schema: str, document: str) -> None:
    """The JSON Schemas in docs describe what is written."""
    (path,) = trained[0].glob(document)
    checked = json.loads((DOCS / f"{schema}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(checked)
    jsonschema.validate(json.loads(path.read_text()), checked, jsonschema.Draft202012Validator)


def test_the_report_is_honest(trained: tuple[Path, dict[str, Any]]) -> None:
    """The baselines stand beside the network on the same rows, and success is what the figures say."""
    _, report = trained
    figures = report["performance"]
    assert set(figures["baselines"]) == {"persistence", "ewma", "ridge"}
    for target, own in figures["targets"].items():
        assert {entry["targets"][target]["windows"] for entry in figures["baselines"].values()} == {own["windows"]}
    assert report["target_achieved"] == any(report["criteria_met"].values())
    assert figures["averages"]["correlation"] < 0.999, "a forecast of noise that is this good has seen it"
    assert len(report["notes"]) >= 1


class Page(HTMLParser):
    """The resources that a page loads from elsewhere, and its charts."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.charts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.charts += tag == "svg"
        for name, value in attrs:
            if tag in ("script", "link", "iframe", "object") or (
                name in ("src", "href", "xlink:href") and not (value or "").startswith(("#", "data:"))
            ):
                self.outside.append(f"{tag} {name}={value}")


def test_the_page_is_self_contained(trained: tuple[Path, dict[str, Any]]) -> None:
    """No script, nothing from the network, and a chart for each part of the story."""
    page = Page()
    page.feed((trained[0] / "report.html").read_text())
    assert page.outside == []
    assert page.charts == 11, "among them the forecasts further ahead, and learning curves of both networks"


def test_the_course_of_both_trainings_is_written(trained: tuple[Path, dict[str, Any]]) -> None:
    """That of the next row's network, and that of the network of several horizons: in the history, in the report and in the log."""
    output, report = trained
    (path,) = output.glob("training_history_*.json")
    history = json.loads(path.read_text())
    for course, short in ((history, report["training"]), (history["ahead"], report["training"]["ahead"])):
        assert len(course["epochs"]) == short["epochs"] == 2
        assert short["stopped"] == course["stopped"] == "epochs"
        assert short["start_validation_loss"] == course["start_validation_loss"] > 0
    losses = [float(line.split(",")[1]) for line in (output / "training_log.csv").read_text().splitlines()[1:]]
    assert losses == pytest.approx([epoch["loss"] for epoch in (*history["epochs"], *history["ahead"]["epochs"])], rel=1e-6)
    (events,) = (output / "tensorboard").iterdir()
    assert b"ahead_validation_loss" in events.read_bytes()


def test_the_same_seed_gives_the_same_weights(trained: tuple[Path, dict[str, Any]], recording: Path, tmp_path: Path) -> None:
    """Two runs agree in every forecast; an earlier run in the folder is replaced by the later one."""
    output = shutil.copytree(trained[0], tmp_path / "out")
    again = train(recording, output, "--epochs", "2")
    assert again["version"] != trained[1]["version"]
    assert {match[0] for path in output.iterdir() if (match := re.search(r"v\d{8}_\d{6}", path.name))} == {again["version"]}
    windows = np.random.default_rng(0).normal(size=(4, 30, 44)).astype(np.float32)
    assert np.array_equal(Predictor.load(trained[0]).predict(windows), Predictor.load(output).predict(windows))


def test_ctrl_c_keeps_the_best_weights(spawn: Spawn, recording: Path, tmp_path: Path) -> None:
    """The report is written and says that it was interrupted; the exit code says so too."""
    output = tmp_path / "out"
    process = spawn(
        command(recording, output, "--epochs", "100000", "--patience", "100000"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("epoch 2/"):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to the command and its child
            break
    said += process.stdout.readlines()
    assert process.wait() == 130, "".join(said)
    report = json.loads((output / "TRAINING_REPORT.json").read_text())
    assert (report["status"], report["training"]["stopped"]) == ("interrupted", "interrupted")
    assert "interrupted" in report["notes"][0]
    assert verify(output) == []


def child_of(process: subprocess.Popen[str]) -> int:
    """The training that a command has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(wait_for(lambda: children.read_text().split(), "the training", alive=lambda: process.poll() is None)[0])


def test_a_child_that_dies_leaves_nothing(spawn: Spawn, recording: Path, tmp_path: Path) -> None:
    """An earlier run stays as it was, and no half-written folder remains."""
    output = tmp_path / "out"
    process = spawn(command(recording, output, "--epochs", "100000"), stderr=subprocess.PIPE)
    os.kill(child_of(process), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "killed by signal 9" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_training_dies_with_its_command(spawn: Spawn, recording: Path, tmp_path: Path) -> None:
    """Killed, as by a closed container: nobody would take its result, for an hour."""
    process = spawn(command(recording, tmp_path / "out", "--epochs", "100000"), stderr=subprocess.PIPE)
    child = Path(f"/proc/{child_of(process)}")
    wait_for(lambda: "epoch" in os.read(process.stderr.fileno(), 1 << 16).decode(errors="replace"), "the first epoch")
    process.kill()
    process.wait()
    wait_for(lambda: not child.exists() or (child / "stat").read_text().rpartition(")")[2].split()[0] == "Z", "the end of the training")
