"""The link stage: standardises the residuals of each watched link and feeds them to River's detectors.

Detectors never see raw metrics, whose daily cycle would set them off, but the one-step residual of the live model. It is standardised
by the link's own first residuals under that model, since ADWIN's bound is not free of scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drift.messages import LinkAlarm, RegionSample
from drift.river_detectors import ADWIN, PageHinkley
from features.telemetry import TARGETS, Doubles, Floats, Longs

CALIBRATION_ROWS: Final = 60
"""Residuals that set a link's mean and scale; a standard deviation from 60 values is right to 9 %."""
CLIP_SIGMA: Final = 6.0
"""A heavy-tailed outlier counts as this much, so that one record cannot set off a detector."""
SCALE_FLOOR: Final = 0.02
"""Least scale of a residual, in the model's standard deviations of the target: less than that is of no interest to anybody."""
RECENT: Final = 0.1
"""Weight of the newest value in the recent mean that an alarm reports (about ten rows)."""

# Measured on residuals with leftover autocorrelation, heavy tails and bias: 0.4 and 2.0 false alarms per 100,000 samples.
ADWIN_DELTA: Final = 1e-9
PAGE_HINKLEY_DELTA: Final = 0.5
PAGE_HINKLEY_THRESHOLD: Final = 25.0


@dataclass(slots=True)
class _Metric:
    """Calibration (Welford) and detectors of one metric of one link."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    recent: float = 0.0
    adwin: ADWIN = field(default_factory=lambda: ADWIN(delta=ADWIN_DELTA))
    adwin_abs: ADWIN = field(default_factory=lambda: ADWIN(delta=ADWIN_DELTA))
    page_hinkley: PageHinkley = field(default_factory=lambda: PageHinkley(delta=PAGE_HINKLEY_DELTA, threshold=PAGE_HINKLEY_THRESHOLD))

    def standardised(self, residual: float, least_scale: float) -> float | None:
        """The residual in standard deviations of its calibration; None while that goes on."""
        if self.count < CALIBRATION_ROWS:
            self.count += 1
            step = residual - self.mean
            self.mean += step / self.count
            self.squares += step * (residual - self.mean)
            return None
        return max(-CLIP_SIGMA, min(CLIP_SIGMA, (residual - self.mean) / self.scale(least_scale)))

    def scale(self, least: float) -> float:
        return max(math.sqrt(self.squares / (CALIBRATION_ROWS - 1)), least)

    def fired(self, z: float) -> str | None:
        """Takes one standardised residual; the name of the detector that fired."""
        self.recent += RECENT * (z - self.recent)
        self.adwin.update(z)
        self.page_hinkley.update(z)
        self.adwin_abs.update(abs(z))
        if self.adwin.drift_detected:
            return "adwin"
        if self.page_hinkley.drift_detected:
            return "page_hinkley"
        return "adwin_abs" if self.adwin_abs.drift_detected else None


class LinkDrift:
    """Detectors of the watched links of one partition, addressed by watch index (0, 1, ... in the order in which they were added)."""

    def __init__(self, epoch: int = 0) -> None:
        """epoch: which model is live, counted up from 1; 0 before the first."""
        self.epoch = epoch
        self._links: list[list[_Metric]] = []

    def __len__(self) -> int:
        return len(self._links)

    def restart(self, epoch: int) -> None:
        """Another model went live: its residuals are others, so every link calibrates anew."""
        self.epoch = epoch
        self._links = [[_Metric() for _ in TARGETS] for _ in self._links]

    def keep(self, watch: Sequence[int]) -> None:
        """Only these watch indices stay (ascending), and are 0, 1, ... from now on."""
        self._links = [self._links[at] for at in watch if at < len(self._links)]

    def update(
        self,
        watch: Sequence[int],
        residual: Floats,
        least_scale: Floats,
        time_s: Doubles,
        offsets: Longs,
        names: Sequence[tuple[str, str, str]],
    ) -> tuple[list[LinkAlarm], list[RegionSample]]:
        """Takes the residuals of W rows of watched links, in stream order.

        watch: W watch indices. residual: float32 (W, 4), actual minus forecast, NaN where either is missing. least_scale: float32 (4,),
        lowest scale of a residual, in the metric's unit. time_s: float64 (W,). offsets: int64 (W,). names: (region, link, link type).
        A residual that is not finite never reaches a detector: one NaN would blind it for ever.
        """
        alarms: list[LinkAlarm] = []
        samples: list[RegionSample] = []
        least = [float(value) for value in least_scale]
        for row, index in enumerate(watch):
            while index >= len(self._links):
                self._links.append([_Metric() for _ in TARGETS])
            region, link, link_type = names[row]
            at_s, metrics = float(time_s[row]), self._links[index]
            absolute: list[float | None] = [None] * len(TARGETS)
            for metric, value in enumerate(residual[row].tolist()):
                if not math.isfinite(value):
                    continue
                detectors = metrics[metric]
                z = detectors.standardised(value, least[metric])
                if z is None:
                    continue
                absolute[metric] = abs(z)
                if detector := detectors.fired(z):
                    size = detectors.recent * detectors.scale(least[metric])
                    alarms.append(
                        LinkAlarm(at_s, region, link, link_type, metric, detector, detectors.recent, size, int(offsets[row]), self.epoch)
                    )
            if any(value is not None for value in absolute):
                samples.append(RegionSample(at_s, region, link, tuple(absolute), self.epoch))
        return alarms, samples

    def state(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and bytes."""
        return {
            "epoch": self.epoch,
            "links": [
                [
                    [
                        m.count,
                        m.mean,
                        m.squares,
                        m.recent,
                        adwin_state(m.adwin),
                        adwin_state(m.adwin_abs),
                        _page_hinkley_state(m.page_hinkley),
                    ]
                    for m in metrics
                ]
                for metrics in self._links
            ],
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> LinkDrift:
        drift = cls(state["epoch"])
        drift._links = [
            [
                _Metric(
                    count, mean, squares, recent, restored_adwin(adwin), restored_adwin(adwin_abs), _restored_page_hinkley(page_hinkley)
                )
                for count, mean, squares, recent, adwin, adwin_abs, page_hinkley in metrics
            ]
            for metrics in state["links"]
        ]
        return drift


def adwin_state(detector: ADWIN) -> list[Any]:
    """River keeps an ADWIN's window in compiled code, which gives and takes it as bytes of a fixed layout: data, not a pickle."""
    return [bool(detector.drift_detected), bytes(detector._helper.__getstate__())]


def restored_adwin(state: list[Any]) -> ADWIN:
    """The detector that `adwin_state` was taken from. The bytes must come from a file whose checksum was verified."""
    detector = ADWIN(delta=ADWIN_DELTA)
    detector._drift_detected = state[0]
    detector._helper.__setstate__(state[1])
    return detector


def _page_hinkley_state(detector: PageHinkley) -> list[Any]:
    mean = detector._x_mean
    return [
        bool(detector.drift_detected), mean.n, mean._mean,
        detector._sum_increase, detector._sum_decrease, detector._min_increase, detector._max_decrease,
    ]  # fmt: skip


def _restored_page_hinkley(state: list[Any]) -> PageHinkley:
    detector = PageHinkley(delta=PAGE_HINKLEY_DELTA, threshold=PAGE_HINKLEY_THRESHOLD)
    detector._drift_detected, detector._x_mean.n, detector._x_mean._mean = state[:3]
    detector._sum_increase, detector._sum_decrease, detector._min_increase, detector._max_decrease = state[3:]
    return detector
