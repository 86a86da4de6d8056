"""Simpler designs on the same streams: stock detectors of River, on the raw metrics and on the residuals, with and without a quorum."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from river.drift import ADWIN, PageHinkley

from harness import answer, job_of
from parts.residuals import DAY, Region, weather

WARM_UP: Final = DAY
HORIZON: Final = 600
FLEET: Final = 2000
"""Monitored links of the fleet that the rates refer to."""
DETECTORS: Final[dict[str, Callable[[], Any]]] = {
    "adwin": ADWIN,
    "page_hinkley": PageHinkley,
    "page_hinkley_tuned": lambda: PageHinkley(delta=0.5, threshold=25.0),
}


def fired(detector: Any, values: Any) -> list[int]:
    """Return the samples at which a detector fires."""
    found = []
    for at, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(at)
    return found


def run(regime: str, links: int, days: int, seed: int) -> dict[str, Any]:
    """Alerts of a fleet in a week without a change, and the median delay of a link until it fires on a shift of one standard deviation."""
    region = Region(regime, links, seed)
    time_s, noise = region.next(days * DAY + HORIZON)
    shifted = noise.copy()
    shifted[days * DAY :] += region.unit
    figures: dict[str, Any] = {"always": {"alerts_per_week": FLEET * 4 * 7.0 * DAY, "delay": 0.0}}
    for stream, offset in (("raw", weather(time_s)), ("residual", 0.0)):
        for name, make in DETECTORS.items():
            alarms, delays = 0, []
            for link in range(links):
                for metric in range(4):
                    values = (shifted + offset)[:, link, metric]
                    values = (values - values[:60].mean()) / values[:60].std()
                    at = fired(make(), values)
                    alarms += sum(WARM_UP <= one < days * DAY for one in at) if days > 1 else sum(one < days * DAY for one in at)
                    after = [one - days * DAY for one in at if one >= days * DAY]
                    delays.append(after[0] if after else HORIZON)
            quiet_days = (days - 1) if days > 1 else days
            figures[f"{name}_{stream}"] = {
                "alerts_per_week": alarms / (links * quiet_days) * FLEET * 7.0,
                "delay": float(np.median(delays)),
            }
    return figures


if __name__ == "__main__":
    job = job_of(sys.argv)
    answer(run(job["regime"], job["links"], job["days"], job["seed"]))
