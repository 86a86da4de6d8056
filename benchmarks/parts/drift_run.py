"""The drift stages over simulated residuals: incidents of quiet months, and planted changes that are found."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from drift.link.rows import MonitoredRows
from drift.link.sensitivity import Sensitivity
from drift.link.stage import LinkDrift
from drift.messages import Change, Group, IncidentChange, Scope, SignalChange
from drift.region.incident import Incident
from drift.region.policy import QuorumPolicy
from drift.region.stage import RegionDrift
from features.telemetry import CATEGORIES, NUMERIC, TARGETS, Flags
from harness import answer, job_of
from parts.residuals import DAY, INTERVAL_S, START_S, Region, Values, weather

METRIC: Final = TARGETS.index("rtt_ms")
"""Index of the metric that the planted changes affect."""
WARM_UP: Final = 3 * DAY
FIRST_DAY: Final = DAY // 2
BATCH: Final = 50
HORIZON: Final = 600
LEAST: Final = np.full(len(TARGETS), 0.02, np.float32)
UNIT: Final = 1000.0
CLOCK_LAG_S: Final = 600.0
MODEL_CATEGORY: Final = 1
NO_INCIDENT: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Planted:
    """A change of a share of the links.

    Args:
        kind: its correct name.
        size: in standard deviations, or the factor of the spread.
    """

    name: str
    kind: Change
    size: float
    share: float
    samples: int = HORIZON
    ramp: int = 0
    scope: Scope = "region"

    @property
    def group(self) -> Group:
        return "network" if self.kind in ("shift", "spread", "ramp", "model_error") else "data"


PLANTED: Final = (
    Planted("1s_5", "shift", 1.0, 0.05),
    Planted("1s_20", "shift", 1.0, 0.2),
    Planted("1s_80", "shift", 1.0, 0.8),
    Planted("2s_20", "shift", 2.0, 0.2),
    Planted("variance_80", "spread", 2.0**0.5, 0.8),
    Planted("ramp_80", "ramp", 2.0, 0.8, ramp=500),
    Planted("burst_20", "shift", 3.0, 0.2, samples=30),
    Planted("model_80", "model_error", 1.5, 0.8),
    Planted("one_link", "shift", 3.0, 0.01, scope="link"),
    Planted("missing_80", "missing", 0.0, 0.8),
    Planted("constant_80", "constant", 0.0, 0.8),
    Planted("unit_80", "unit", 0.0, 0.8),
    Planted("category_80", "category", 0.0, 0.8),
    Planted("clock_80", "clock", 0.0, 0.8),
)


@dataclass(slots=True)
class Samples:
    """Samples of the links of a region.

    Args:
        time_s: float64 (S,), seconds.
        residual: float32 (S, L, 4), standard deviations.
        actual: float32 (S, L, 4), the metrics.
        code: (S, L), a category's code in the model.
        lag_s: (S, L), seconds by which a link's rows are behind the others.
    """

    time_s: Values
    residual: Values
    actual: Values
    code: Values
    lag_s: Values

    @classmethod
    def quiet(cls, region: Region, count: int) -> Samples:
        time_s, noise = region.next(count)
        code = np.full(noise.shape[:2], float(MODEL_CATEGORY))
        return cls(time_s, noise, noise + weather(time_s), code, np.zeros(noise.shape[:2]))

    def with_change(self, planted: Planted, region: Region) -> tuple[Samples, Flags]:
        """Return the samples with the change, and bool (L,), the affected links."""
        count, links = self.code.shape
        affected = np.zeros(links, np.bool_)
        affected[: max(1, round(planted.share * links))] = True
        mask = (np.arange(count) < planted.samples)[:, None] & affected[None]
        residual, actual, code, lag_s = (part.copy() for part in (self.residual, self.actual, self.code, self.lag_s))
        forecast, moved = self.actual[:, :, METRIC] - self.residual[:, :, METRIC], actual[:, :, METRIC]
        grown = np.clip(np.arange(count) / planted.ramp, 0, 1)[:, None] if planted.ramp else 1.0
        shift = planted.size * grown * region.unit[:, METRIC]
        match planted.kind:
            case "shift" | "ramp":
                moved[mask] += np.broadcast_to(shift, mask.shape)[mask]
            case "model_error":
                forecast = forecast - np.where(mask, shift, 0.0)
            case "spread":
                moved[mask] += (planted.size - 1.0) * self.residual[:, :, METRIC][mask]
            case "missing":
                moved[mask] = np.nan
            case "constant":
                moved[mask] = np.broadcast_to(moved[:1], mask.shape)[mask]
            case "unit":
                moved[mask] *= UNIT
            case "category":
                code[mask] = 0.0
            case "clock":
                lag_s[mask] = CLOCK_LAG_S
        residual[:, :, METRIC] = moved - forecast
        return Samples(self.time_s, residual, actual, code, lag_s), affected


class Stages:
    """Both stages of one region, fed with residuals."""

    def __init__(self, region: Region, sensitivity: Sensitivity, link: LinkDrift | None = None, regions: RegionDrift | None = None) -> None:
        self.region, self.sensitivity = region, sensitivity
        self.link, self.regions = link or LinkDrift(1, sensitivity), regions or RegionDrift(QuorumPolicy())
        self.changes: list[IncidentChange] = []
        self.alarms = 0
        self.cpu_s = 0.0
        self._watch = np.arange(region.links, dtype=np.int32)

    def take(self, samples: Samples) -> None:
        for begin in range(0, len(samples.time_s), BATCH):
            rows = self._rows(samples, slice(begin, begin + BATCH))
            began = time.thread_time()
            alarms, seen = self.link.update(rows, LEAST)
            self.alarms += sum(not one.withdrawn for one in alarms)
            self.regions.observe(alarms, seen)
            self.changes += self.regions.advance(float(samples.time_s[begin : begin + BATCH][-1]))
            self.cpu_s += time.thread_time() - began

    def _rows(self, samples: Samples, part: slice) -> MonitoredRows:
        links = self.region.links
        lag_s = samples.lag_s[part].reshape(-1)
        time_s = np.repeat(samples.time_s[part], links) - lag_s
        rows = len(time_s)
        numeric = np.full((rows, len(NUMERIC)), np.nan, np.float32)
        numeric[:, : len(TARGETS)] = samples.actual[part].reshape(rows, -1)
        codes = np.full((rows, len(CATEGORIES)), MODEL_CATEGORY, np.float32)
        codes[:, CATEGORIES.index("transport_type")] = samples.code[part].reshape(-1)
        return MonitoredRows(
            watch=np.resize(self._watch, rows),
            numeric=numeric,
            residual=samples.residual[part].reshape(rows, -1).astype(np.float32),
            codes=codes,
            time_s=time_s,
            lag_s=lag_s,
            offsets=np.arange(rows, dtype=np.int64),
            describe=lambda row: ("region", f"link-{row % links:03}", "metro"),
        )

    def copy(self) -> Stages:
        """Return a copy of the state."""
        link = LinkDrift.restored(self.link.document(), self.link.arrays(), self.sensitivity)
        return Stages(self.region, self.sensitivity, link, RegionDrift.restored(self.regions.state(), self.regions.incidents.policy))


def quiet(regime: str, seed: int, links: int, days: int, sensitivity: Sensitivity) -> dict[str, Any]:
    """Return the incidents of a region without a change."""
    region = Region(regime, links, seed)
    stages = Stages(region, sensitivity)
    for _ in range(days * 8):
        stages.take(Samples.quiet(region, DAY // 8))
    opened = [change for change in stages.changes if change.kind == "opened"]
    return {
        "opened": [[(change.time_s - START_S) / 86_400, change.scope, *(signal.change for signal in change.signals)] for change in opened],
        "alarms": stages.alarms,
        "rows": links * days * DAY,
        "cpu_s": stages.cpu_s,
    }


def detect(regime: str, seed: int, links: int, warm_up: int, sensitivity: Sensitivity) -> list[dict[str, Any]]:
    """Return what becomes of each planted change, after quiet samples and up to a day later."""
    region = Region(regime, links, seed)
    stages = Stages(region, sensitivity)
    warm = warm_up + (seed * 97) % (DAY if warm_up > DAY else DAY // 4)  # not always at midnight
    for begin in range(0, warm, DAY // 8):
        stages.take(Samples.quiet(region, min(DAY // 8, warm - begin)))
    samples = Samples.quiet(region, HORIZON)
    return [asdict(planted) | {"group": planted.group} | _follow(stages.copy(), planted, samples) for planted in PLANTED]


def _follow(stages: Stages, planted: Planted, quiet_samples: Samples) -> dict[str, Any]:
    samples, affected = quiet_samples.with_change(planted, stages.region)
    stages.take(samples)
    began_s = float(samples.time_s[0])
    opened = [change for change in stages.changes if change.kind == "opened" and change.time_s > began_s]
    found = next((change for change in opened if (change.scope, change.group) == (planted.scope, planted.group)), None)
    incident = found or next(iter(opened), None)
    last = [change for change in stages.changes if incident is not None and change.id == incident.id][-1:]
    outcome: dict[str, Any] = {
        "delay": None,
        "called": _called(last[0]) if last else NO_INCIDENT,
        "opened": len(opened),
        "network_incidents": sum(change.group == "network" for change in opened),
        "data_incidents": sum(change.group == "data" for change in opened),
    }
    if found is None:
        return outcome
    named = {f"link-{at:03}" for at in np.flatnonzero(affected)}
    open_now = _open_incident(stages, found.id)
    links = set(open_now.affected) if open_now is not None else set(last[0].links)
    return outcome | {
        "delay": (found.time_s - began_s) / INTERVAL_S,
        "since_error": (last[0].since_s - began_s) / INTERVAL_S,
        "precision": len(links & named) / max(1, len(links)),
        "recall": len(links & named) / len(named),
        "size_found": _largest(last[0]).size_sigma,
    }


def _called(change: IncidentChange) -> str:
    return f"{'' if change.scope == 'region' else 'one link: '}{_largest(change).change.replace('_', ' ')}"


def _largest(change: IncidentChange) -> SignalChange:
    """Return the changed metric if it is reported, else the signal of most links."""
    return max(change.signals, key=lambda signal: (signal.signal == TARGETS[METRIC], signal.links))


def _open_incident(stages: Stages, name: str) -> Incident | None:
    found = (incident for region in stages.regions.incidents.regions.values() for incident in region.all() if incident.id == name)
    return next(found, None)


if __name__ == "__main__":
    job = job_of(sys.argv)
    chosen = Sensitivity(**job["sensitivity"])
    if job["what"] == "quiet":
        answer(quiet(job["regime"], job["seed"], job["links"], job["days"], chosen))
    else:
        found = [one for seed in job["seeds"] for one in detect(job["regime"], seed, job["links"], job["warm_up"], chosen)]
        answer({"found": found})
