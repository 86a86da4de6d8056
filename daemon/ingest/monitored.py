"""The monitored links of one partition: which they are, the forecast for the next row of each, and their detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.ingest.ahead import LinksAhead, Listener
from daemon.operator.observer import Observer
from drift.link.monitored import MonitoredList, MonitoringPolicy
from drift.link.rows import Intervals, MonitoredRows
from drift.link.sensitivity import Sensitivity
from drift.link.stage import SCALE_FLOOR, LinkDrift
from drift.messages import LinkAlarm, LinkSeen
from features.changes import FeatureRows
from features.definition import FEATURES
from features.store import FeatureStore
from features.telemetry import CATEGORIES, TARGETS, Doubles, Flags, Floats, Ints, Partition, TelemetryBatch
from model.judge.probation import Probation
from model.version.contract import LOWER, MEDIAN, PLACES, UPPER
from model.version.predictor import Predictor

_CODES = slice(FEATURES.index("region_encoded"), FEATURES.index("region_encoded") + len(CATEGORIES))
_REGION, _LINK_TYPE = CATEGORIES.index("region"), CATEGORIES.index("link_type")


class MonitoredLinks:
    """W links by watch index, with the model whose residuals their detectors inspect."""

    def __init__(
        self, partition: Partition, policy: MonitoringPolicy, sensitivity: Sensitivity, observer: Observer, listener: Listener | None
    ) -> None:  # fmt: skip
        self.epoch = 0
        """Number of the live model, counted from 1; 0 before the first."""
        self.version: str | None = None
        self.model: Predictor | None = None
        """Predictor of `version`; None if it cannot be loaded."""
        self.shedding = False
        """True while no forecasts are made, because the stream is too far behind."""
        self._partition, self._policy, self._observer, self._listener = partition, policy, observer, listener
        self._watch = MonitoredList(policy)
        self._sensitivity = sensitivity
        self._drift = LinkDrift(sensitivity=sensitivity)
        self._forecast: Floats = np.full((0, len(TARGETS)), np.nan, np.float32)  # of each link's next row
        self._persistence: Floats = self._forecast.copy()
        self._sides: Floats = _no_sides(0)  # how far the bounds of that forecast are from it
        self.ahead = LinksAhead(observer, listener)
        self.probation = Probation()

    def __len__(self) -> int:
        return len(self._watch)

    @property
    def mask(self) -> Flags:
        """bool (L,): whether the link of each slot is monitored."""
        return self._watch.mask

    @property
    def live(self) -> Predictor | None:
        """The model that forecasts now; None without one, or while shedding."""
        return None if self.shedding else self.model

    def go_live(self, version: str, model: Predictor | None, epoch: int) -> None:
        """Forecast with another model. Its residuals differ, so the detectors start anew.

        A partition that comes with the state of another member may have this model already, under that member's epoch: its detectors go on.
        """
        if version == self.version:
            self._drift.epoch = epoch
        else:
            self._drift.restart(epoch)
            self._forget_forecasts()
            self.probation.begin(version, model, self.version, self.model)
            if model is not None:
                self.ahead.begin(model, len(self._forecast))
        self.model, self.version, self.epoch = model, version, epoch

    def retry_load(self, model_of: Callable[[str], Predictor | None]) -> None:
        """Try again to load a model that could not be loaded. Call it before the next records.

        While it cannot be loaded, rows are not compared with a forecast. Earlier forecasts are dropped: they are not of the rows that come
        after the pause.
        """
        if self.model is None and self.version is not None:
            self.model = model_of(self.version)
            if self.model is None:
                self._forget_forecasts()
                self._drift.forget_far()
            elif self.ahead.horizons != self.model.horizons:  # it could not be loaded when it went live
                self.ahead.begin(self.model, len(self._forecast))

    def load_shed(self, shedding: bool) -> None:
        """Stop forecasting, or start again."""
        self.shedding = shedding
        self._forget_forecasts()
        self._drift.forget_far()

    def follow(self, links: Sequence[str], batch: TelemetryBatch, slots: Ints) -> None:
        """Decide for links that are new in this batch whether they are monitored.

        Args:
            links: names of all slots.
            slots: int32 (N,), slot of each row of the batch.
        """
        known = len(self._watch.index)
        if known == len(links):
            return
        new = np.flatnonzero(slots >= known)
        _, first = np.unique(slots[new], return_index=True)
        regions = batch.categories[_REGION]
        self._watch.follow(links, [regions[row] for row in new[first]])
        self._extend(len(self) - len(self._forecast))

    def review(self, store: FeatureStore, event_s: float) -> int:
        """Replace monitored links that have been silent for long by links that send. Return how many links were added."""
        monitored, joined = self._watch.review(store.links, store.newest_s, event_s, store.region_of)
        self._select(monitored)
        self._extend(joined)
        return joined

    def select(self, slots: Ints) -> None:
        """Keep only the links of these slots (ascending); they have the slots 0, 1, ... from now on."""
        self._select(self._watch.keep(slots))

    def renew(self, slots: Ints) -> None:
        """Start the links of these slots anew: their last rows had times in the future."""
        index = self._watch.index_of_slot[slots]
        monitored = index[index >= 0]
        self._drift.renew(monitored.tolist())
        self._forecast[monitored], self._persistence[monitored] = np.nan, np.nan
        self.ahead.forget(monitored)
        self.probation.forget(monitored)

    def forecast(self, batch: TelemetryBatch, rows: FeatureRows, links: Sequence[str]) -> tuple[Floats, Intervals | None]:
        """Forecast the next row of each link, and compare each monitored row with the forecast that was made for it.

        Only with a live model.

        Returns:
            float32 (W, 4): measurement less forecast of each monitored row, NaN if one of the two is missing; and the intervals of the
            forecasts, None if the live version has none.
        """
        assert self.model is not None
        assert rows.windows is not None
        row_of = rows.accepted[rows.watched]
        index = self._watch.index_of_slot[rows.slots[rows.watched]]
        forecast = np.full((len(row_of), len(TARGETS)), np.nan, np.float32)
        ahead = np.full((len(row_of), len(self.model.horizons), len(TARGETS), PLACES), np.nan, np.float32)
        if rows.ready.any():
            with self._observer.stage("forecast"):
                forecast[rows.ready], ahead[rows.ready] = self.model.predict_both(rows.windows[rows.ready], rows.context[rows.ready])
            self._observer.forecasts.inc(int(np.count_nonzero(rows.ready)))
        follows = rows.previous[:, None]
        before = np.where(follows >= 0, forecast[rows.previous], self._forecast[index])
        known = np.where(follows >= 0, rows.last_known[rows.previous], self._persistence[index])
        before[rows.restarted[rows.watched]] = np.nan
        self._forecast[index], self._persistence[index] = forecast, rows.last_known  # of several rows of a link the last one stays
        actual = batch.numeric[row_of][:, : len(TARGETS)]
        self._count_errors(actual, before, known)
        self.probation.follow(rows, index, batch.time_s[row_of], actual, before)
        intervals = None
        if len(self.model.horizons):
            self.ahead.follow(batch, rows, index, ahead, actual, links)
            intervals = self._intervals(rows, index, ahead)
        if self._listener is not None:
            names = [links[slot] for slot in rows.slots[rows.watched].tolist()]
            self._listener.measured(self._partition, batch.time_s[row_of], names, actual, before, known)
        return actual - before, intervals

    def _intervals(self, rows: FeatureRows, index: Ints, ahead: Floats) -> Intervals:
        """Return the intervals that W rows are judged by, and keep those of their next rows. ahead: float32 (W, H, 4, PLACES)."""
        assert self.model is not None
        sides = np.stack([ahead[:, 0, :, MEDIAN] - ahead[:, 0, :, LOWER], ahead[:, 0, :, UPPER] - ahead[:, 0, :, MEDIAN]], axis=2)
        before = np.where(rows.previous[:, None, None] >= 0, sides[rows.previous], self._sides[index])
        self._sides[index] = sides
        far, restarted = ahead[:, -1, :, LOWER : UPPER + 1], rows.restarted[rows.watched]
        return Intervals(before, far, self.model.horizons[-1], self.model.metadata.coverage or 0.9, restarted, rows.interval_s)

    def detect(
        self, batch: TelemetryBatch, rows: FeatureRows, residual: Floats, intervals: Intervals | None, links: Sequence[str],
        complete_s: Doubles,
    ) -> tuple[list[LinkAlarm], list[LinkSeen]]:  # fmt: skip
        """Pass the monitored rows to their links' detectors, and return the alarms and the rows seen.

        Args:
            residual: float32 (W, 4), see `forecast`.
            intervals: see `forecast`.
            links: names of all slots.
            complete_s: float64 (A,), the partition's event time after each accepted row.
        """
        assert self.model is not None
        assert rows.windows is not None
        row_of, slots = rows.accepted[rows.watched], rows.slots[rows.watched]
        regions, types = batch.categories[_REGION], batch.categories[_LINK_TYPE]

        def describe(row: int) -> tuple[str, str, str]:
            return regions[row_of[row]] or "", links[slots[row]], types[row_of[row]] or ""

        monitored = MonitoredRows(
            watch=self._watch.index_of_slot[slots],
            numeric=batch.numeric[row_of],
            residual=residual,
            codes=rows.windows[:, -1, _CODES],
            time_s=batch.time_s[row_of],
            lag_s=np.maximum(0.0, complete_s[rows.watched] - batch.time_s[row_of]),
            offsets=batch.offsets[row_of],
            describe=describe,
            intervals=intervals,
        )
        return self._drift.update(monitored, SCALE_FLOOR * self.model.metadata.outputs.scale)

    def state(self) -> dict[str, Any]:
        """Return everything but the arrays, as plain values."""
        return (
            {
                "watch_index": list(self._watch.index),
                "watch_regions": list(self._watch.regions),
                "drift": self._drift.document(),
                "epoch": self.epoch,
                "model_version": self.version,
                "forecasting": not self.shedding,
            }
            | self.ahead.state()
            | self.probation.state()
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return forecast and persistence, float32 (W, 4), sides, float32 (W, 4, 2), and the arrays of LinkDrift and Outlook."""
        own = {"forecast": self._forecast.copy(), "persistence": self._persistence.copy(), "sides": self._sides.copy()}
        return own | self._drift.arrays() | self.ahead.arrays() | self.probation.arrays()

    def restore(
        self, state: dict[str, Any], arrays: dict[str, NDArray[Any]], model_of: Callable[[str], Predictor | None], links: Sequence[str]
    ) -> None:
        """Restore the object that `state` and `arrays` were made from, and monitor the links that were pinned since.

        Args:
            model_of: returns the predictor of a version, or None if it cannot be used now.
            links: names of all slots.
        """
        self._watch = MonitoredList(self._policy, list(state["watch_index"]), list(state["watch_regions"]))
        self._drift = LinkDrift.restored(state["drift"], arrays, self._sensitivity)
        self._forecast, self._persistence, self._sides = arrays["forecast"], arrays["persistence"], arrays["sides"]
        self.ahead.restore(state, arrays, len(self))
        self.probation = Probation.restored(state, arrays, model_of)
        self._extend(self._watch.pin(links))
        version = state["model_version"]
        self.epoch, self.version, self.model = state["epoch"], version, model_of(version) if version else None
        self.shedding = not state["forecasting"]

    def _extend(self, count: int) -> None:
        """Make room for more links at the end."""
        none_yet = np.full((count, len(TARGETS)), np.nan, np.float32)
        self._forecast, self._persistence = (np.concatenate([array, none_yet]) for array in (self._forecast, self._persistence))
        self._sides = np.concatenate([self._sides, _no_sides(count)])
        self.ahead.extend(count)
        self.probation.extend(count)

    def _select(self, index: Ints) -> None:
        """Keep only the links of these watch indices."""
        self._drift.keep(index.tolist())
        self._forecast, self._persistence, self._sides = self._forecast[index], self._persistence[index], self._sides[index]
        self.ahead.select(index)
        self.probation.select(index)

    def _forget_forecasts(self) -> None:
        self._forecast[:] = np.nan
        self._persistence[:] = np.nan
        self._sides[:] = np.nan
        self.ahead.forget()
        self.probation.forget()

    def _count_errors(self, actual: Floats, before: Floats, known: Floats) -> None:
        error, persistence_error = np.abs(actual - before).astype(np.float64), np.abs(actual - known).astype(np.float64)
        both = np.isfinite(error) & np.isfinite(persistence_error)
        for target in range(len(TARGETS)):
            if count := int(np.count_nonzero(both[:, target])):
                chosen = both[:, target]
                self._observer.measured(target, error[chosen, target].sum(), persistence_error[chosen, target].sum(), count)


def _no_sides(links: int) -> Floats:
    return np.full((links, len(TARGETS), 2), np.nan, np.float32)
