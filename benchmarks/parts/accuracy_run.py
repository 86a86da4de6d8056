"""One training on one recording with one seed, and its forecasts of the test part, kept in a file so that it runs once."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from harness import answer, job_of, say
from model.spec.architecture import architecture_of
from model.spec.settings import TrainingSettings

ROOT: Final = Path(__file__).resolve().parents[2]
DECIDING: Final = ("features/kernels.py", *(f"model/{name}.py" for name in (
    "judge/baselines", "windows/bounds", "windows/scaler", "training/dataset", "training/fit/least_absolute", "training/fit/linear_path",
    "training/fit/loop", "training/fit/start", "training/network/assembly", "training/network/bound_layers",
    "training/network/linear_inputs",
)))  # fmt: skip
"""Files that decide the figures. If one changes, kept results are not valid any more."""


def kept_name(job: dict[str, Any]) -> str:
    """Return the name of the file with a job's result: set, seed, and a digest of settings and code."""
    settings = json.dumps({name: job[name] for name in ("architecture", "settings", "key")}, sort_keys=True)
    code = b"".join((ROOT / path).read_bytes() for path in DECIDING)
    digest = hashlib.sha256(settings.encode() + code).hexdigest()[:12]
    return f"{job['set']}-{job['settings']['seed']}-{digest}.npz"


def run(job: dict[str, Any]) -> Path:
    """Train, forecast and keep the result, unless it exists."""
    path = Path(job["cache"]) / kept_name(job)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = _measured(job)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        partial.replace(path)
    return path


def _measured(job: dict[str, Any]) -> dict[str, Any]:
    from features.timeline import DEFAULT_GAP_MULTIPLE
    from model.training.dataset import LastOfEachLink, prepare
    from model.training.fit.start import fit, prepare_tensorflow, start
    from model.training.run import forecasts_of, metrics_of
    from streams.files.recording import read_recording

    settings, architecture = msgspec.convert(job["settings"], TrainingSettings), architecture_of(job["architecture"])
    dataset = prepare(read_recording(Path(job["path"]), job["key"]).table, LastOfEachLink(), DEFAULT_GAP_MULTIPLE)
    prepare_tensorflow(settings)
    began = time.monotonic()
    model, started_from = start(dataset, architecture)
    done = fit(
        model, started_from, dataset, settings, lambda progress: say(f"{job['set']}: epoch {progress.epoch}, loss {progress.loss:.4f}")
    )  # fmt: skip
    duration_s = time.monotonic() - began
    validation = metrics_of(done, dataset, dataset.data.validation)
    reported = {
        "validation_mae": {name: [target.mae for target in metrics.targets] for name, metrics in validation.items()},
        "best_epoch": done.history.best_epoch,
        "epochs": len(done.history.epochs),
        "network_shares": done.shares.tolist(),
        "duration_s": duration_s,
    }
    actual = dataset.targets[dataset.judged.target_row]
    return {"actual": actual, **forecasts_of(done, dataset, dataset.judged), "told": np.array(json.dumps(reported))}


if __name__ == "__main__":
    answer({"path": str(run(job_of(sys.argv)))})
