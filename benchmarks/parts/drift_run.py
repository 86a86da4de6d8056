"""The drift stages over simulated residuals: incidents of quiet months, and what is found of planted changes."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from harness import answer, job_of

from drift.incident import Incident
from drift.link import LinkDrift, WatchedRows
from drift.messages import IncidentChange
from drift.region import QuorumPolicy, RegionDrift
from drift.sensitivity import Sensitivity
from features.telemetry import CATEGORIES, NUMERIC, TARGETS
from parts.residuals import DAY, INTERVAL_S, START_S, Region, Values, weather

METRIC: Final = TARGETS.index("rtt_ms")
"""The metric that the planted changes are of."""
WARM_UP: Final = 3 * DAY
BATCH: Final = 10
HORIZON: Final = 600
LEAST: Final = np.full(len(TARGETS), 0.02, np.float32)


@dataclass(frozen=True, slots=True)
class Planted:
    """A change of a share of the links. size: standard deviations, or the factor of the spread. kind: what it should be called."""

    name: str
    kind: str
    size: float
    share: float
    samples: int = HORIZON
    ramp: int = 0
    shown: bool = True
    """Whether the metric itself changes, and not only its residual."""


PLANTED: Final = (
    Planted("1s_5", "shift", 1.0, 0.05),
    Planted("1s_20", "shift", 1.0, 0.2),
    Planted("1s_80", "shift", 1.0, 0.8),
    Planted("2s_20", "shift", 2.0, 0.2),
    Planted("variance_80", "spread", 2.0**0.5, 0.8),
    Planted("ramp_80", "ramp", 2.0, 0.8, ramp=500),
    Planted("burst_20", "shift", 3.0, 0.2, samples=30),
    Planted("model_80", "model_error", 1.5, 0.8, shown=False),
)


class Stages:
    """Both stages of one region, fed with residuals."""

    def __init__(self, region: Region, sensitivity: Sensitivity, link: LinkDrift | None = None, regions: RegionDrift | None = None) -> None:
        self.region, self.sensitivity = region, sensitivity
        self.link, self.regions = link or LinkDrift(1, sensitivity), regions or RegionDrift(QuorumPolicy())
        self.changes: list[IncidentChange] = []
        self.alarms = 0
        self.cpu_s = 0.0
        self._watch = np.arange(region.links, dtype=np.int32)

    def take(self, time_s: Values, residual: Values, actual: Values) -> None:
        """residual, actual: (samples, links, 4)."""
        links = self.region.links
        for begin in range(0, len(time_s), BATCH):
            part = slice(begin, begin + BATCH)
            at_s = np.repeat(time_s[part], links)
            began = time.thread_time()
            alarms, seen = self.link.update(self._rows(at_s, residual[part], actual[part]), LEAST)
            self.alarms += len(alarms)
            self.regions.observe(alarms, seen)
            self.changes += self.regions.advance(float(at_s[-1]))
            self.cpu_s += time.thread_time() - began

    def _rows(self, time_s: Values, residual: Values, actual: Values) -> WatchedRows:
        rows, links = len(time_s), self.region.links
        numeric = np.full((rows, len(NUMERIC)), np.nan, np.float32)
        numeric[:, : len(TARGETS)] = actual.reshape(rows, -1)
        return WatchedRows(
            watch=np.resize(self._watch, rows),
            numeric=numeric,
            residual=residual.reshape(rows, -1).astype(np.float32),
            codes=np.ones((rows, len(CATEGORIES)), np.float32),
            time_s=time_s,
            lag_s=np.zeros(rows),
            offsets=np.arange(rows, dtype=np.int64),
            describe=lambda row: ("region", f"link-{row % links:03}", "metro"),
        )

    def copy(self) -> Stages:
        """The same state, to go on differently."""
        link = LinkDrift.restored(self.link.document(), self.link.arrays(), self.sensitivity)
        return Stages(self.region, self.sensitivity, link, RegionDrift.restored(self.regions.state(), self.regions.policy))


def quiet(regime: str, seed: int, links: int, days: int, sensitivity: Sensitivity) -> dict[str, Any]:
    """Incidents of a region to which nothing happens."""
    region = Region(regime, links, seed)
    stages = Stages(region, sensitivity)
    for _ in range(days * 8):
        time_s, noise = region.next(DAY // 8)
        stages.take(time_s, noise, noise + weather(time_s))
    opened = [change for change in stages.changes if change.kind == "opened"]
    return {
        "opened": [[(change.time_s - START_S) / 86_400, change.scope, *(signal.change for signal in change.signals)] for change in opened],
        "alarms": stages.alarms,
        "rows": links * days * DAY,
        "cpu_s": stages.cpu_s,
    }


def detect(regime: str, seed: int, links: int, sensitivity: Sensitivity) -> list[dict[str, Any]]:
    """What becomes of each planted change, after some quiet days."""
    region = Region(regime, links, seed)
    stages = Stages(region, sensitivity)
    warm = WARM_UP + (seed * 97) % DAY  # not always at midnight
    for begin in range(0, warm, DAY // 8):
        time_s, noise = region.next(min(DAY // 8, warm - begin))
        stages.take(time_s, noise, noise + weather(time_s))
    time_s, noise = region.next(HORIZON)
    found = []
    for planted in PLANTED:
        affected = np.zeros(links, np.bool_)
        affected[: max(1, round(planted.share * links))] = True
        found.append(asdict(planted) | _follow(stages.copy(), planted, affected, time_s, noise, region))
    return found


def _follow(
    stages: Stages, planted: Planted, affected: Any, time_s: Values, noise: Values, region: Region
) -> dict[str, Any]:  # fmt: skip
    during = np.arange(HORIZON) < planted.samples
    grown = np.clip(np.arange(HORIZON) / planted.ramp, 0, 1) if planted.ramp else np.ones(HORIZON)
    residual, actual = noise.copy(), noise + weather(time_s)
    mask = during[:, None] & affected[None]
    if planted.kind == "spread":
        residual[:, :, METRIC] *= np.where(mask, planted.size, 1.0)
        actual = residual + weather(time_s)
    else:
        shift = np.where(mask, planted.size * grown[:, None] * region.unit[:, METRIC], 0.0)
        residual[:, :, METRIC] += shift
        if planted.shown:
            actual[:, :, METRIC] += shift
    stages.take(time_s, residual, actual)
    began_s = float(time_s[0])
    regional = [change for change in stages.changes if change.scope == "region" and change.time_s > began_s]
    opened = next((change for change in regional if change.kind == "opened"), None)
    if opened is None:
        return {"delay": None}
    last = [change for change in regional if change.id == opened.id][-1]
    named = {f"link-{at:03}" for at in np.flatnonzero(affected)}
    signal = max(last.signals, key=lambda signal: (signal.signal == TARGETS[METRIC], signal.links))
    open_now = _open_incident(stages, opened.id)
    links = set(open_now.affected) if open_now is not None else set(last.links)
    return {
        "delay": (opened.time_s - began_s) / INTERVAL_S,
        "since_error": (last.since_s - began_s) / INTERVAL_S,
        "called": signal.change,
        "precision": len(links & named) / max(1, len(links)),
        "recall": len(links & named) / len(named),
        "size_found": signal.size_sigma,
    }


def _open_incident(stages: Stages, name: str) -> Incident | None:
    incident = stages.regions._regions["region"].incidents.get("network")
    return incident if incident is not None and incident.id == name else None


if __name__ == "__main__":
    job = job_of(sys.argv)
    chosen = Sensitivity(**job["sensitivity"])
    if job["what"] == "quiet":
        answer(quiet(job["regime"], job["seed"], job["links"], job["days"], chosen))
    else:
        answer({"found": [one for seed in job["seeds"] for one in detect(job["regime"], seed, job["links"], chosen)]})
