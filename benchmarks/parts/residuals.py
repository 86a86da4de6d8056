"""Simulated residuals of a region's monitored links: of a good model, and of models that are wrong in five ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Values = NDArray[np.float64]

INTERVAL_S: Final = 60.0
DAY: Final = 1440
"""Samples of a day."""
START_S: Final = 1_767_571_200.0  # a Monday, 00:00 UTC
REGIMES: Final[dict[str, str]] = {
    "independent": "white noise of each link",
    "shared": "half of the variance is the same for all links of a region",
    "season": "a daily cycle of .3 standard deviations is left over, and weekends are .15 lower",
    "heavy": "Student's t with 3 degrees of freedom",
    "biased": "each link has a bias of about 1 standard deviation, and a scale of its own",
    "imperfect": "autocorrelation of .3, and a spread that changes by 25 % either way over the day",
}


@dataclass
class Region:
    """The residuals of `links` links and 4 metrics of a region, in standard deviations of each link's own noise, minute after minute."""

    regime: str
    links: int
    seed: int
    sample: int = 0
    _carried: Any = None
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng([self.seed, list(REGIMES).index(self.regime)])
        self._phase = self._random.uniform(0, 2 * np.pi, (1, 1, 4))
        self._bias, self._scale = self._random.normal(size=(1, self.links, 4)), np.exp(0.5 * self._random.normal(size=(1, self.links, 4)))

    def next(self, samples: int) -> tuple[Values, Values]:
        """Return UTC seconds (S,), and residuals (S, links, 4)."""
        at = self.sample + np.arange(samples)
        self.sample += samples
        turn = 2 * np.pi * at[:, None, None] / DAY + self._phase
        noise = self._random.standard_normal((samples, self.links, 4))
        if self.regime == "shared":
            noise = np.sqrt(0.5) * (noise + self._random.standard_normal((samples, 1, 4)))
        elif self.regime == "season":
            noise += 0.3 * np.sin(turn) - 0.15 * (at // DAY % 7 >= 5)[:, None, None]
        elif self.regime == "heavy":
            noise /= np.sqrt(self._random.chisquare(3, noise.shape))  # unit variance: t has 3
        elif self.regime == "biased":
            noise = self._bias + self._scale * noise
        elif self.regime == "imperfect":
            carried = np.zeros((1, self.links, 4)) if self._carried is None else self._carried
            noise, self._carried = lfilter([np.sqrt(1 - 0.3**2)], [1, -0.3], noise, axis=0, zi=carried)
            noise *= 1 + 0.25 * np.sin(turn)
        return START_S + INTERVAL_S * at, noise

    @property
    def unit(self) -> Values:
        """Return (links, 4): the standard deviation of each link's noise."""
        return self._scale[0] if self.regime == "biased" else np.ones((self.links, 4))


def weather(time_s: Values) -> Values:
    """Return (S, 1, 1): the metric in deviations of its noise, level 50 with a daily cycle of 10, which a good model forecasts."""
    return np.asarray(50 + 5 * np.sin(2 * np.pi * (time_s / 86_400.0))[:, None, None])
