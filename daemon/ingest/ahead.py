"""The forecasts of the monitored links of one partition: what became of the earlier ones, and what is published now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daemon.operator.observer import Observer
from features.changes import FeatureRows
from features.telemetry import CATEGORIES, Doubles, Flags, Floats, Ints, Partition, TelemetryBatch
from model.judge.behind import Behind
from model.judge.mixture import simple_forecasts
from model.judge.outlook import Outlook
from model.version.possible import highest
from model.version.predictor import Predictor

_REGION, _LINK_TYPE = CATEGORIES.index("region"), CATEGORIES.index("link_type")


class Listener(Protocol):
    """Receives forecasts, and every one that met its measurement (replay, demo and backtest keep score)."""

    def measured(
        self, partition: Partition, time_s: Doubles, links: Sequence[str], actual: Floats, forecast: Floats, persistence: Floats
    ) -> None:
        """Compare forecasts of the next row with measurements.

        Args:
            time_s: float64 (W,), UTC seconds.
            actual, forecast, persistence: float32 (W, 4), NaN if there is none.
        """
        ...

    def forecast(self, made: Made) -> None:
        """Receive the forecasts that were made at some rows."""
        ...


class Made:
    """The forecasts of W rows.

    Args:
        links: names.
        time_s: float64 (W,), UTC seconds.
        interval_s: float64 (W,), sampling interval of each link, seconds, NaN if not known.
        restarted: bool (W,), whether a gap lies before the row.
        actual: float32 (W, 4), what was measured in the row, NaN if missing.
        horizons: H numbers of rows.
        version: float32 (W, H, 4, 4), lower, median, upper and mean as the version forecasts.
        simple: float32 (W, H, 4, 4), see mixture.SIMPLE.
        published: float32 (W, H, 4, 3), lower, median and upper of the mixture.
    """

    __slots__ = ("actual", "horizons", "interval_s", "links", "published", "restarted", "simple", "time_s", "version")

    def __init__(
        self, links: Sequence[str], time_s: Doubles, interval_s: Doubles, restarted: Flags, actual: Floats, horizons: Sequence[int],
        version: Floats, simple: Floats, published: Floats,
    ) -> None:  # fmt: skip
        self.links, self.time_s, self.interval_s, self.restarted, self.actual = links, time_s, interval_s, restarted, actual
        self.horizons, self.version, self.simple, self.published = horizons, version, simple, published


class LinksAhead:
    """The outlook of W links by watch index, whose outcomes are counted."""

    def __init__(self, observer: Observer, listener: Listener | None) -> None:
        self._observer, self._listener = observer, listener
        self._outlook = Outlook()
        self._regions: list[str] = []
        """Region of each link, "" before its first row since this process has the partition."""

    @property
    def horizons(self) -> tuple[int, ...]:
        """Rows ahead of the version that it has begun with."""
        return tuple(self._outlook.horizons.tolist())

    def begin(self, model: Predictor, links: int) -> None:
        """Begin with a version. See Outlook.begin."""
        self._outlook.begin(model.horizons, model.metadata.coverage, links)
        self._regions += [""] * (links - len(self._regions))

    def extend(self, count: int) -> None:
        """Make room for more links at the end."""
        self._outlook.extend(count)
        self._regions += [""] * count

    def select(self, index: Ints) -> None:
        """Keep only the links of these watch indices."""
        self._outlook.select(index)
        self._regions = [self._regions[each] for each in index.tolist()]

    def forget(self, index: Ints | slice = slice(None)) -> None:
        """Drop the forecasts under way of some links; by default of all."""
        self._outlook.forget(index)

    def follow(self, batch: TelemetryBatch, rows: FeatureRows, index: Ints, ahead: Floats, actual: Floats, links: Sequence[str]) -> None:
        """Compare rows with the forecasts that were made for them, learn from them, and publish the next ones.

        Args:
            index: int32 (W,), watch index of each monitored row.
            ahead: float32 (W, H, 4, 4), the version's forecasts at these rows, NaN where there are none.
            actual: float32 (W, 4), what was measured in these rows.
            links: names of all slots.
        """
        assert rows.windows is not None
        outlook, row_of = self._outlook, rows.accepted[rows.watched]
        regions, types = batch.categories[_REGION], batch.categories[_LINK_TYPE]
        groups = [(regions[row] or "", types[row] or "") for row in row_of.tolist()]
        for each, (region, _) in zip(index.tolist(), groups, strict=True):
            self._regions[each] = region
        simple = simple_forecasts(rows.windows, rows.ready, rows.last_known, rows.context, len(outlook.horizons), highest())
        time_s, restarted = batch.time_s[row_of], rows.restarted[rows.watched]
        outcomes = outlook.follow(
            index.astype(np.int64), groups, time_s, rows.interval_s, restarted, ahead, actual, simple, rows.context[:, 1]
        )  # fmt: skip
        for horizon, target in np.argwhere(outcomes.count > 0).tolist():
            sums = {
                "count": outcomes.count, "covered": outcomes.covered, "error": outcomes.error,
                "published_covered": outcomes.mixed_covered, "published_error": outcomes.mixed_error,
            }  # fmt: skip
            of_pair = {name: float(each[horizon, target]) for name, each in sums.items()}
            self._observer.measured_ahead(int(outlook.horizons[horizon]), target, of_pair)
        if self._listener is not None:
            names, horizons = [links[slot] for slot in rows.slots[rows.watched].tolist()], outlook.horizons.tolist()
            self._listener.forecast(
                Made(names, time_s, rows.interval_s, restarted, actual, horizons, ahead, simple, outcomes.published)
            )  # fmt: skip

    def trust(self) -> dict[str, list[float]]:
        """Return by region how much the version is trusted for each link that has taught something: its mean weight, 0 to 1."""
        found: dict[str, list[float]] = {}
        for region, trust in zip(self._regions, self._outlook.trust(), strict=True):
            if np.isfinite(trust).any():
                found.setdefault(region, []).append(float(np.nanmean(trust)))
        return found

    def behind(self) -> list[Behind]:
        """See Outlook.behind."""
        return self._outlook.behind()

    def state(self) -> dict[str, Any]:
        """Return everything but the arrays, as plain values."""
        return self._outlook.state()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of Outlook."""
        return self._outlook.arrays()

    def restore(self, state: dict[str, Any], arrays: dict[str, NDArray[Any]], links: int) -> None:
        """Restore what `state` and `arrays` were made from."""
        self._outlook = Outlook.restored(state, arrays)
        self._regions = [""] * links
