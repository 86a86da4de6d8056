"""Accuracy: the network against persistence, an exponentially weighted average and Ridge, on the last rows of five recordings.

    make bench-accuracy        (or: python benchmarks/accuracy.py --quick; --published for the published sizes, hours instead of minutes)

Each recording is split by time, link by link: 70 % to train, 15 % to choose, 15 % to judge. All recordings use one method and one set of
settings. Each training is a process of its own. Its result is kept under build/accuracy, so that a second run goes on where the first
stopped.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.telemetry import DEFAULT_LINK_KEY, TARGETS
from harness import Bar, in_process, parser, report, say
from model.judge.metrics import block_bootstrap_difference
from model.spec.architecture import Architecture, Lstm
from model.spec.job import plain
from model.spec.settings import TrainingSettings

ROOT: Final = Path(__file__).resolve().parents[1]
DATA: Final = ROOT.parent / "shared" / "data"
MERGED: Final = "dwcp_training"
SETS: Final[dict[str, tuple[str, ...]]] = {
    MERGED: (),  # node and peer are random in every row: one merged series
    "isp_backbone_5min": DEFAULT_LINK_KEY,
    "telstra_cable_30min": DEFAULT_LINK_KEY,
    "netrics_chicago": DEFAULT_LINK_KEY,
    "starlink_road_1s": DEFAULT_LINK_KEY,
}
BEST_POSSIBLE: Final = (0.9564, 0.8311, 0.9516, 0.3886)
"""Correlations of dwcp_training's generating function on its last rows: the rest is fresh noise."""
NAIVE: Final = ("persistence", "ewma", "ridge")
BLOCKS: Final = 32
RESAMPLES: Final = 2_000

# A smaller network than the published one, and a short training: 15 of the other kind take hours on two cores. Trainings of 1,270 steps
# bettered the validation error of the linear path that they start from by at most .3 %.
SMALLER: Final = Lstm(lstm_units=(64, 48, 32), dense_units=(48, 32), head_units=32)
SETTINGS: Final = TrainingSettings(epochs=4, epoch_windows_max=1_024)
TINY: Final = Lstm(lstm_units=(8, 8, 8), dense_units=(8, 8), head_units=8)


@dataclass(frozen=True, slots=True)
class Pair:
    """One target of one recording, on its test part.

    Errors are mean absolute ones over the rows that all forecasters have, in the target's unit; the network's is the mean of its seeds.
    `change` is the network's against the best of NAIVE, with the ends of its 95 % interval (block bootstrap).
    """

    recording: str
    target: str
    windows: int
    network: float
    network_sd: float
    naive: tuple[float, float, float]
    correlation: float
    correlation_sd: float
    best_naive: str
    change: float
    low: float
    high: float

    @property
    def not_worse(self) -> bool:
        return self.low <= 0

    @property
    def better(self) -> bool:
        return self.change < 0

    def row(self) -> dict[str, Any]:
        """Return a row of the table. skill: 1 - network / best naive, in percent, and its interval."""
        naive = dict(zip(NAIVE, self.naive, strict=True))
        percent = [-100 * value / naive[self.best_naive] for value in (self.change, self.high, self.low)]
        skill = "{:+.1f} % ({:+.1f} to {:+.1f})".format(*percent)
        return {
            "recording": self.recording,
            "target": self.target,
            "windows": self.windows,
            "network": self.network,
            "± seeds": self.network_sd,
            **naive,
            "correlation": self.correlation,
            "skill over the best of them": skill,
        }


def pair(recording: str, at: int, runs: list[dict[str, Any]]) -> Pair | None:
    """Return the errors of a target; None if no window of the test part measures it."""
    actual = runs[0]["actual"][:, at].astype(np.float64)
    known = np.isfinite(actual) & np.all([np.isfinite(runs[0][name][:, at]) for name in ("network", *NAIVE)], axis=0)
    if not known.any():
        return None
    network = np.stack([np.abs(run["network"][known, at] - actual[known]) for run in runs])
    errors = {name: np.abs(runs[0][name][known, at] - actual[known]) for name in NAIVE}
    best = min(NAIVE, key=lambda name: float(errors[name].mean()))
    block = max(1, -(-int(known.sum()) // BLOCKS))
    change, low, high = block_bootstrap_difference(network.mean(axis=0), errors[best], block, RESAMPLES, seed=1)
    correlations = [correlation(run["network"][known, at], actual[known]) for run in runs]
    return Pair(
        recording=recording,
        target=TARGETS[at],
        windows=int(known.sum()),
        network=float(network.mean()),
        network_sd=spread(network.mean(axis=1).tolist()),
        naive=tuple(float(errors[name].mean()) for name in NAIVE),
        correlation=statistics.mean(correlations),
        correlation_sd=spread(correlations),
        best_naive=best,
        change=change,
        low=low,
        high=high,
    )


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation; 0 if either does not vary, because a constant forecast explains nothing."""
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 0 and other.std() > 0 else 0.0


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def measure(sets: dict[str, tuple[str, ...]], architecture: Architecture, settings: TrainingSettings, seeds: int) -> dict[str, list[Any]]:
    """Return the runs of each recording, one for each seed from 1 on."""
    found: dict[str, list[Any]] = {}
    for seed in range(1, seeds + 1):  # all recordings with the first seed, before any with the second
        for name, key in sets.items():
            job = {
                "set": name,
                "path": str(DATA / f"{name}.csv"),
                "key": key,
                "cache": str(ROOT / "build" / "accuracy"),
                "architecture": plain(architecture),
                "settings": plain(settings) | {"seed": seed},
            }
            with np.load(in_process("parts.accuracy_run", job)["path"]) as kept:
                run = {part: kept[part] for part in kept.files}
            run["told"] = json.loads(str(run["told"]))
            found.setdefault(name, []).append(run)
            say(f"{name}, seed {seed}: {run['told']}")
    return found


def figures(found: dict[str, list[Any]], pairs: list[Pair]) -> dict[str, Any]:
    measured = {(one.recording, one.target) for one in pairs}
    return {
        "pairs": [one.row() for one in pairs],
        "without a window to judge on": ", ".join(
            f"{name} {target}" for name in found for target in TARGETS if (name, target) not in measured
        ),
        "best_epochs": {name: str([run["told"]["best_epoch"] for run in runs]) for name, runs in found.items()},
        "network_shares": {name: str([run["told"]["network_shares"] for run in runs]) for name, runs in found.items()},
        "duration_s": {name: statistics.mean(run["told"]["duration_s"] for run in runs) for name, runs in found.items()},
    }


def bars(pairs: list[Pair]) -> list[Bar]:
    merged = [one for one in pairs if one.recording == MERGED]
    real = [one for one in pairs if one.recording != MERGED]
    gaps = [best - one.correlation for one, best in zip(merged, BEST_POSSIBLE, strict=True)] if merged else []
    return [
        Bar("dwcp_avg_corr", statistics.mean(one.correlation for one in merged) if merged else None, ">=", 0.775),
        Bar("dwcp_worst_gap", max(gaps, default=None), "<=", 0.010),
        Bar("pairs_not_worse", statistics.mean(one.not_worse for one in real) if real else None, ">=", 1.0),
        Bar("pairs_better", statistics.mean(one.better for one in real) if real else None, ">=", 0.5),
    ]


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--published", action="store_true", help="the published sizes, trained until nothing improves")
    options = options_of.parse_args()
    if not DATA.is_dir():
        print(f"accuracy: there are no recordings in {DATA.relative_to(ROOT.parent)}, beside the project; put them there", file=sys.stderr)
        return 1
    sets, architecture, settings, seeds = SETS, SMALLER, SETTINGS, options.rounds
    if options.published:
        architecture, settings = Lstm(), TrainingSettings(epoch_windows_max=8_192)
    if options.quick:
        sets, seeds = {name: SETS[name] for name in (MERGED, "isp_backbone_5min")}, 1
        architecture, settings = TINY, TrainingSettings(epochs=1, epoch_windows_max=1_024)
    found = measure(sets, architecture, settings, seeds)
    pairs = [one for name, runs in found.items() for at in range(len(TARGETS)) if (one := pair(name, at, runs)) is not None]
    return report("accuracy", figures(found, pairs), bars(pairs))


if __name__ == "__main__":
    sys.exit(main())
