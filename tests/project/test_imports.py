"""The modules that a fresh interpreter loads, and the owner of the five top-level names."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

TRAINING = (
    "tensorflow",
    "keras",
    "tf2onnx",
    "onnx",
    "model.training.network.assembly",
    "model.training.fit.loop",
    "model.training.graph.core",
    "model.job",
)
SHOW = "import sys; print('\\n'.join(sys.modules))"


@pytest.mark.parametrize("module", ["daemon.loop", "daemon.wiring", "daemon.cli", "daemon.commands.replay", "daemon.commands.demo.command"])
def test_the_daemon_never_loads_tensorflow(module: str) -> None:
    """Neither directly nor indirectly: it costs 690 MB and 6 to 14 s, and only the training child needs it."""
    shown = subprocess.run([sys.executable, "-c", f"import {module}; {SHOW}"], capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert module in loaded
    assert loaded.isdisjoint(TRAINING)


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("features.store", ("drift", "model", "streams", "daemon", "kafka", "river", "pandas")),
        ("drift.region.stage", ("model", "streams", "daemon", "kafka", "pyarrow", "pandas")),
        ("streams.files.source", ("model", "drift", "daemon", "river", "onnxruntime")),
        ("model.version.predictor", ("streams", "daemon", "drift", "kafka", "river")),
    ],
)
def test_a_package_loads_only_what_it_may(package: str, others: tuple[str, ...]) -> None:
    """The table of the architecture, as a fresh interpreter sees it."""
    shown = subprocess.run([sys.executable, "-c", f"import {package}; {SHOW}"], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in shown.stdout.split()}.isdisjoint(others)


@pytest.mark.parametrize("name", ["daemon", "drift", "features", "model", "streams"])
def test_no_other_distribution_has_our_names(name: str) -> None:
    """Packages are installed flat, so no other distribution in the daemon's environment may provide them (tf2onnx installs `tests`)."""
    assert importlib.metadata.packages_distributions()[name] == ["dwcp-learner"]


def test_importing_does_nothing() -> None:
    """No output, thread, file or environment variable: all of that begins in main."""
    check = "import threading, daemon.wiring, daemon.commands.replay; assert threading.active_count() == 1, threading.enumerate()"
    shown = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, env={"DWCP_NO_SUCH": "x"})
    assert (shown.stdout, shown.stderr) == ("", "")
