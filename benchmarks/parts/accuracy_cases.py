"""The recordings of the accuracy benchmark, and the processes of its rivals. What they have made is kept under build/accuracy."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Final

import numpy as np

from features.telemetry import DEFAULT_LINK_KEY
from harness import FOLDER, environment, in_process, say
from parts.accuracy_score import NEURAL, TREES

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT.parent / "shared" / "data"
CACHE: Final = ROOT / "build" / "accuracy"
HORIZONS: Final = (1, 3, 6, 12, 24)
LIMIT_S: Final = 6 * 3600.0
"""Most seconds of a training, or of a rival on one recording."""
MERGED: Final = "dwcp_training"
ISP: Final = "isp_backbone_5min"
SETS: Final[dict[str, tuple[str, ...]]] = {
    MERGED: (),  # node and peer are random in every row: one merged series
    ISP: DEFAULT_LINK_KEY,
    "telstra_cable_30min": DEFAULT_LINK_KEY,
    "netrics_chicago": DEFAULT_LINK_KEY,
    "starlink_road_1s": DEFAULT_LINK_KEY,
    "abilene_5min": DEFAULT_LINK_KEY,
    "ripe_atlas_4min": DEFAULT_LINK_KEY,
}


@dataclass(frozen=True, slots=True)
class Rival:
    """A process that forecasts with one or several rivals.

    Args:
        module: in parts.
        venv: its environment; None: the project's own.
        job: its sizes.
        quick: its sizes for --quick; None: left out.
    """

    module: str
    venv: str | None
    job: Mapping[str, Any]
    quick: Mapping[str, Any] | None


THREADS: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PROCESSES: Final[dict[str, Rival]] = {
    "simple": Rival("rivals_simple", None, {}, {}),
    TREES: Rival("rivals_trees", "rivals", {"threads": 1, "rounds": 600}, {"threads": 1, "rounds": 20}),
    "statistical": Rival("rivals_statistical", "rivals", {"origins": 60}, {"origins": 5}),
    NEURAL: Rival("rivals_neural", "neural", {"threads": THREADS, "steps": 500}, None),
}
"""Trees get one thread: two of them wait for each other actively, which on a busy machine takes five times the CPU time.
The two environments are made of benchmarks/rivals.lock and benchmarks/neural.lock. The second takes gigabytes: --without nhits."""


@dataclass(frozen=True, slots=True)
class Case:
    """A recording as it is forecast. cut: in runs of 12 rows."""

    name: str
    cut: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}-cut" if self.cut else self.name

    def data(self) -> Path:
        """Write the arrays of its windows, unless they are kept, and return their file."""
        recording = DATA / f"{self.name}.csv"
        job = {"path": str(recording), "key": SETS[self.name], "horizons": HORIZONS, "cut": self.cut}
        code = [*sorted((ROOT / "features").glob("*.py")), ROOT / "model/windows/index.py", *own("horizon_data", "horizon_context")]
        name = f"{self.name}{'-cut' if self.cut else ''}-data-{digest(json.dumps(job | {'path': self.name}), [recording, *code])}.npz"
        if not (CACHE / name).exists():
            found = in_process("parts.horizon_data", job | {"out": str(CACHE / name)})
            say(f"{name}: windows to train, validate and test {found['windows']}, links {found['links']}")
        return CACHE / name


def own(*names: str) -> list[Path]:
    return [FOLDER / "parts" / f"{name}.py" for name in names]


def digest(settings: str, files: Sequence[Path]) -> str:
    """Return a digest of settings and of the contents of files; of an .npz, whose bytes have a time in them, of its arrays."""
    found = hashlib.sha256(settings.encode())
    for path in files:
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                for name in sorted(arrays.files):
                    found.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
                    found.update(np.ascontiguousarray(arrays[name]).tobytes())
        else:
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def interpreter(name: str) -> str:
    """Return the Python of a rival, whose environment is made if needed.

    Raises:
        RuntimeError: It cannot be installed.
    """
    rival = PROCESSES[name]
    if rival.venv is None:
        return sys.executable
    try:
        return environment(f".venv-{rival.venv}", FOLDER / f"{rival.venv}.lock")
    except CalledProcessError as error:
        raise RuntimeError(f"{rival.venv}.lock cannot be installed; add --without {name} to do without this rival") from error


def rivals_of(case: Case, data: Path, wanted: Sequence[str], quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the forecasts of each rival, and what each process has reported."""
    made: dict[str, Any] = {}
    notes: dict[str, Any] = {}
    for name in wanted:
        rival = PROCESSES[name]
        job = {"data": str(data), "short": case.cut, **((rival.quick if quick else rival.job) or {})}
        locks = [] if rival.venv is None else [FOLDER / f"{rival.venv}.lock"]
        key = digest(json.dumps(job | {"data": "", "threads": 0}, sort_keys=True), [data, *own("rivals_task", rival.module), *locks])
        out = CACHE / f"{case.label}-{name}-{key}.npz"
        if not out.exists():
            say(f"{case.label}: {name}")
            in_process(f"parts.{rival.module}", job | {"out": str(out)}, interpreter(name), limit_s=LIMIT_S, aloud=True)
        with np.load(out) as kept:
            made.update({part: kept[part] for part in kept.files if part != "notes"})
            notes.update(json.loads(str(kept["notes"])))
    return made, notes
