"""What is taken of the network and of simple forecasts at each horizon, how wide its intervals are, and where between them the mean lies:
chosen on validation windows.

Early stopping looks at all targets and horizons together. Here each pair is judged for itself, so that none is worse than the best simple
forecast for the sake of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import keras
import numpy as np

from features.telemetry import Doubles, Floats
from model.training.dataset import TrainingData
from model.training.fit.ahead import outputs_of
from model.training.fit.linear_path import SHARES
from model.training.fit.loop import evenly
from model.training.network.ahead import BLEND, MEMBERS
from model.training.network.bound_layers import NEXT_BOUNDS
from model.training.network.relative import RELATIVE, STEADY
from model.version.contract import AHEAD, LOWER, MEAN, MEDIAN, UPPER
from model.windows.index import WindowIndex, targets_at

JUDGED_WINDOWS_MAX: Final = 8_192
KNOWN_MIN: Final = 30
"""Fewer known targets than this choose nothing: the pair is judged on training windows instead."""
STRETCH_MOST: Final = 10.0
STEPS: Final = np.linspace(0.0, 1.0, 11)
"""Shares that are tried for the mean: of the width above the median, of that below, and of the way to a simple forecast."""
LEVEL: Final = STEADY.index("average_0.12")
"""The simple forecast that the link stays at its level."""
_TINY: Final = 1e-9


@dataclass(frozen=True, eq=False, slots=True)
class Blended:
    """What was chosen. H horizons; float32.

    Args:
        share: (H, 4), of the network; the rest is a simple forecast.
        gain: (H, 4), by how much the network's forecast alone has less error than the best simple one, as a share; NaN if not known.
    """

    share: Floats
    gain: Floats


def blend(model: keras.Model, data: TrainingData, coverage: float) -> Blended:
    """Set the layer's shares and widths.

    Args:
        coverage: Share of the targets that lies between lower and upper forecast.
    """
    layer = model.get_layer(BLEND)
    share, choice, stretch, skew, toward = layer.get_weights()
    gain = np.full(share.shape, np.nan, np.float32)
    parts = keras.Model(
        model.inputs,
        [
            keras.ops.mean(model.get_layer(MEMBERS).output, axis=0),
            *model.get_layer(RELATIVE).output[3:],
            model.get_layer(NEXT_BOUNDS).output,
        ],
    )
    some = [index.select(evenly(len(index), JUDGED_WINDOWS_MAX)) for index in (data.train, data.validation)]
    trained, judged = (_Judged.of(parts, data, index) for index in some)
    for horizon, target in np.ndindex(*share.shape):
        rows = judged if judged.known(horizon, target) >= KNOWN_MIN else trained
        if not rows.known(horizon, target):
            if rows.measures(target):  # no row is that far ahead of another: nothing was learnt, and the level is the forecast
                share[horizon, target], choice[horizon, target] = 0.0, np.eye(choice.shape[-1])[LEVEL]
            continue
        share[horizon, target], choice[horizon, target], gain[horizon, target] = rows.chosen(horizon, target)
    layer.set_weights([share, choice, np.ones_like(stretch), np.zeros_like(skew), np.zeros_like(toward)])
    both = keras.Model(model.inputs, [layer.output, model.get_layer(AHEAD).output])
    made = [_usual(*outputs_of(both, data, index)) for index in some]
    for horizon, target in np.ndindex(*share.shape):
        for rows, forecasts in zip((trained, judged), made, strict=True):  # the second has the last word, where it measures enough
            own, actual = forecasts[:, horizon, target], rows.actual[:, horizon, target]
            stretch_of(own, actual, coverage, stretch[horizon, target])
            mean_of(own, rows.simple[:, horizon, target], actual, stretch[horizon, target], skew[horizon, target], toward[horizon, target])
    for target in range(share.shape[1]):
        _widen_unreached(made[0][:, :, target], [trained.known(horizon, target) > 0 for horizon in range(len(share))], stretch[:, target])
    layer.set_weights([share, choice, stretch, skew, toward])
    return Blended(share, gain)


def _widen_unreached(forecasts: Floats, reached: Sequence[bool], stretch: Floats) -> None:
    """Give horizons that no training window reaches the widths of the furthest one that some do.

    Args:
        forecasts: (M, H, 4), of one target, with widths that are not stretched yet.
        reached: H flags.
        stretch: (H, 2), changed in place.
    """
    furthest = max((horizon for horizon, flag in enumerate(reached) if flag), default=None)
    known = np.isfinite(forecasts).all(axis=(1, 2))
    if furthest is None or not known.any():
        return
    lower, median, upper = np.moveaxis(forecasts[known][..., :MEAN].astype(np.float64), -1, 0)
    widths = np.stack([(median - lower).mean(axis=0), (upper - median).mean(axis=0)], axis=-1)  # (H, 2)
    for horizon in range(furthest + 1, len(reached)):
        stretch[horizon] = stretch[furthest] * widths[furthest] / np.maximum(widths[horizon], _TINY)


def _usual(forecasts: Floats, bounded: Floats) -> Floats:
    """Return forecasts (M, H, 4, 4) before their bounds, as the blend uses them, NaN where the bounds hold back more than a deviation."""
    return np.where(np.abs(forecasts - bounded)[..., MEDIAN, None] <= 1.0, forecasts, np.float32(np.nan))


def stretch_of(forecasts: Floats, actual: Floats, coverage: float, stretch: Floats) -> None:
    """Set by how much widths have to be stretched so that half of what is outside lies on each side.

    The finite-sample quantile of split conformal prediction (Vovk et al. 2005; Romano et al. 2019, "Conformalized quantile regression"),
    of distances from the median in units of the widths.

    Args:
        forecasts: (M, 4).
        actual: (M,), NaN if not measured. With fewer than KNOWN_MIN known the stretch stays.
        stretch: (2,), below and above; changed in place.
    """
    known = np.isfinite(actual) & np.isfinite(forecasts).all(axis=1)
    if known.sum() < KNOWN_MIN:
        return
    away = actual[known].astype(np.float64) - forecasts[known, MEDIAN]
    widths = forecasts[known, MEDIAN] - forecasts[known, LOWER], forecasts[known, UPPER] - forecasts[known, MEDIAN]
    rank = min(1.0, (0.5 + 0.5 * coverage) * (1.0 + 1.0 / known.sum()))
    for side, (distance, width) in enumerate(zip((-away, away), widths, strict=True)):
        stretch[side] = np.clip(np.quantile(distance / np.maximum(width, _TINY), rank), 0.0, STRETCH_MOST)


def mean_of(forecasts: Floats, simple: Floats, actual: Floats, stretch: Floats, skew: Floats, toward: Floats) -> None:
    """Set where the mean lies between the bounds and a simple forecast: where its squared error is least.

    A mean is close to a fixed combination of median and bounds whatever the distribution (Keefer and Bodily 1983, "Three-point
    approximations for continuous random variables"). Averages tell what these cannot: how often a burst comes that is rarer than the
    bounds show. All shares are within 0 and 1, so that the mean never leaves what the others span.

    Args:
        forecasts: (M, 4), with widths that are not stretched yet.
        simple: (M, S), simple forecasts.
        actual: (M,), NaN if not measured. With fewer than KNOWN_MIN known all stays.
        stretch: (2,), of the widths below and above.
        skew: (2,), shares of the widths below and above; changed in place.
        toward: (S,), share of the way to each simple forecast, to one of them at most; changed in place.
    """
    known = np.isfinite(actual) & np.isfinite(forecasts).all(axis=1) & np.isfinite(simple).all(axis=1)
    if known.sum() < KNOWN_MIN:
        return
    lower, median, upper = forecasts[known, :MEAN].T.astype(np.float64)
    away = actual[known] - median
    below, above = stretch[0] * (lower - median), stretch[1] * (upper - median)
    shares = np.stack(np.meshgrid(STEPS, STEPS, STEPS, indexing="ij"), axis=-1).reshape(-1, 3)
    least = 0.0
    skew[:], toward[:] = 0.0, 0.0
    for place in range(simple.shape[1]):
        parts = np.stack([below, above, simple[known, place] - median], axis=1)
        # |away - parts @ share|^2 without what is the same for each share
        errors = np.einsum("sp,pq,sq->s", shares, parts.T @ parts, shares) - 2.0 * shares @ (parts.T @ away)
        best = int(np.argmin(errors))
        if errors[best] < least:
            least = errors[best]
            skew[:], toward[:] = shares[best, :2], 0.0
            toward[place] = shares[best, 2]


@dataclass(frozen=True, eq=False, slots=True)
class _Judged:
    """Forecasts for M windows, scaled. network: (M, H, 4). simple: (M, H, 4, S). next_row: (M, 4). actual: (M, H, 4)."""

    network: Floats
    simple: Floats
    next_row: Floats
    actual: Floats

    @classmethod
    def of(cls, parts: keras.Model, data: TrainingData, index: WindowIndex) -> _Judged:
        network, steady, by_profile, next_row = outputs_of(parts, data, index)
        steady = np.broadcast_to(steady[:, None], (*by_profile.shape[:-1], steady.shape[-1]))
        simple = np.concatenate([steady, by_profile], axis=-1)
        return cls(network[..., MEDIAN], simple, next_row, targets_at(data.targets, index.ahead))

    def known(self, horizon: int, target: int) -> int:
        return int(np.isfinite(self.actual[:, horizon, target]).sum())

    def measures(self, target: int) -> bool:
        """Return whether any window knows the target at any horizon."""
        return bool(np.isfinite(self.actual[:, :, target]).any())

    def chosen(self, horizon: int, target: int) -> tuple[float, Floats, float]:
        """Return the network's share, the choice of simple forecasts (S + 1,), and the network's gain over the best of these."""
        known = np.isfinite(self.actual[:, horizon, target])
        actual = self.actual[known, horizon, target].astype(np.float64)
        others = self.simple[known, horizon, target]
        if horizon == 0 and np.isfinite(self.next_row[known, target]).all():
            others = np.concatenate([others, self.next_row[known, target, None]], axis=1)
        errors: Doubles = np.abs(others - actual[:, None]).mean(axis=0)
        best = int(np.argmin(errors))
        choice = np.zeros(self.simple.shape[-1] + 1, np.float32)
        choice[best] = 1.0
        network = self.network[known, horizon, target]
        mixed = [float(np.abs(share * network + (1.0 - share) * others[:, best] - actual).mean()) for share in SHARES]
        gain = 1.0 - mixed[-1] / errors[best] if errors[best] > 0 else 0.0
        return SHARES[int(np.argmin(mixed))], choice, gain  # of equal ones the first, which is the smaller
