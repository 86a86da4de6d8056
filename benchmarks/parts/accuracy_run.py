"""One training on one recording with one seed, and its forecasts of the test part, kept in a file so that it runs once."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from harness import answer, job_of, say
from model.spec.architecture import architecture_of
from model.spec.job import TrainingSettings

ROOT: Final = Path(__file__).resolve().parents[2]
DECIDING: Final = ("features/kernels.py", *(f"model/{name}.py" for name in (
    "baselines", "bound_layers", "bounds", "dataset", "least_absolute", "linear_inputs", "linear_path", "network", "offline", "scaler",
    "training",
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
    from model.training.offline import run_offline
    from streams.files.recording import read_recording

    done = run_offline(
        read_recording(Path(job["path"]), job["key"]).table,
        msgspec.convert(job["settings"], TrainingSettings),
        architecture_of(job["architecture"]),
        gap_multiple=DEFAULT_GAP_MULTIPLE,
        on_progress=lambda progress: say(f"{job['set']}: epoch {progress.epoch}, loss {progress.loss:.4f}"),
    )
    validation = {name: [target.mae for target in metrics.targets] for name, metrics in done.validation_metrics.items()}
    told = {
        "validation_mae": validation,
        "best_epoch": done.history.best_epoch,
        "epochs": len(done.history.epochs),
        "network_shares": done.network_shares.tolist(),
        "duration_s": done.duration_s,
    }
    return {"actual": done.actual, **done.forecasts, "told": np.array(json.dumps(told))}


if __name__ == "__main__":
    answer({"path": str(run(job_of(sys.argv)))})
