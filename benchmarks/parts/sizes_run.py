"""Scores of variants of the network that forecasts ahead, on the validation rows of one recording."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np

from features.timeline import DEFAULT_GAP_MULTIPLE
from harness import answer, job_of, say
from model.spec.architecture import Ahead, Relative
from model.spec.settings import TrainingSettings
from model.training.dataset import LastOfEachLink, prepare
from model.training.fit.cheaper import scores
from model.training.fit.start import fit, prepare_tensorflow, start
from parts.horizon_data import table_of


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Return score and CPU seconds of each variant. job: path, key, horizons, epochs (None: the default) and variants by name."""
    settings = TrainingSettings(seed=1, **({} if job["epochs"] is None else {"epochs": job["epochs"]}))
    prepare_tensorflow(settings)
    dataset = prepare(
        table_of(Path(job["path"]), tuple(job["key"]), False), LastOfEachLink(), DEFAULT_GAP_MULTIPLE, horizons=tuple(job["horizons"])
    )  # fmt: skip
    found = {}
    for name, sizes in job["variants"].items():
        ahead = msgspec.structs.replace(msgspec.convert(sizes, Ahead), horizons=tuple(job["horizons"]))
        architecture, began_s = Relative(ahead=ahead), time.process_time()
        keras.utils.set_random_seed(settings.seed)
        made = fit(*start(dataset, architecture), dataset, architecture, settings, lambda _: None)
        score = float(np.nanmean(scores(made.model, dataset, ahead.coverage)))
        found[name] = {"score": score, "cpu_s": time.process_time() - began_s}
        say(f"{Path(job['path']).stem}: {name} {score:.4f}")
    return found


if __name__ == "__main__":
    answer(main(job_of(sys.argv)))
