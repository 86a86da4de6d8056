"""The links of one partition that are forecast and judged: which they are, what is forecast for each one's next row, and its detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daemon.operator.observer import Observer
from drift.link.monitored import WatchList, WatchPolicy
from drift.link.sensitivity import Sensitivity
from drift.link.stage import SCALE_FLOOR, LinkDrift, WatchedRows
from drift.messages import LinkAlarm, LinkSeen
from features.changes import FeatureRows
from features.definition import FEATURES
from features.store import FeatureStore
from features.telemetry import CATEGORIES, TARGETS, Doubles, Flags, Floats, Ints, Partition, TelemetryBatch
from model.version.predictor import Predictor

_CODES = slice(FEATURES.index("region_encoded"), FEATURES.index("region_encoded") + len(CATEGORIES))
_REGION, _LINK_TYPE = CATEGORIES.index("region"), CATEGORIES.index("link_type")


class Listener(Protocol):
    """Is told every forecast that met its measurement (replay and demo keep score)."""

    def measured(
        self, partition: Partition, time_s: Doubles, links: Sequence[str], actual: Floats, forecast: Floats, persistence: Floats
    ) -> None:
        """time_s: float64 (W,). actual, forecast, persistence: float32 (W, 4), NaN where there is none."""
        ...


class WatchedLinks:
    """W links by watch index, with the model whose residuals their detectors see."""

    def __init__(
        self, partition: Partition, policy: WatchPolicy, sensitivity: Sensitivity, observer: Observer, listener: Listener | None
    ) -> None:  # fmt: skip
        self.epoch = 0
        self.version: str | None = None
        self.model: Predictor | None = None
        self.shedding = False
        """No forecasts are made, since the stream is too far behind."""
        self._partition, self._policy, self._observer, self._listener = partition, policy, observer, listener
        self._watch = WatchList(policy)
        self._sensitivity = sensitivity
        self._drift = LinkDrift(sensitivity=sensitivity)
        self._forecast: Floats = np.full((0, len(TARGETS)), np.nan, np.float32)  # of each link's next row
        self._persistence: Floats = self._forecast.copy()

    def __len__(self) -> int:
        return len(self._watch)

    @property
    def mask(self) -> Flags:
        """bool (L,): whether the link of each slot is watched."""
        return self._watch.mask

    @property
    def live(self) -> Predictor | None:
        """What forecasts now; None without a model, or while shedding."""
        return None if self.shedding else self.model

    def go_live(self, version: str, model: Predictor | None, epoch: int) -> None:
        """Forecasts come from another model; its residuals are others, so the detectors start anew.

        A partition that comes with the state of another member may have this model already, under that member's epoch: it goes on.
        """
        if version == self.version:
            self._drift.epoch = epoch
        else:
            self._drift.restart(epoch)
            self._forget_forecasts()
        self.model, self.version, self.epoch = model, version, epoch

    def look_again(self, model_of: Callable[[str], Predictor | None]) -> None:
        """To be called before the next records: a model that could not be loaded may be there by now. As long as it is not, rows pass that
        nobody judges, and forecasts from before are not those of the rows after them."""
        if self.model is None and self.version is not None:
            self.model = model_of(self.version)
            if self.model is None:
                self._forget_forecasts()

    def shed(self, shedding: bool) -> None:
        self.shedding = shedding
        self._forget_forecasts()

    def follow(self, links: Sequence[str], batch: TelemetryBatch, slots: Ints) -> None:
        """Decides for links that are new in this batch whether they are watched. links: names of all slots. slots: int32 (N,)."""
        known = len(self._watch.index)
        if known == len(links):
            return
        new = np.flatnonzero(slots >= known)
        _, first = np.unique(slots[new], return_index=True)
        regions = batch.categories[_REGION]
        self._watch.follow(links, [regions[row] for row in new[first]])
        none_yet = np.full((len(self) - len(self._forecast), len(TARGETS)), np.nan, np.float32)
        self._forecast, self._persistence = (np.concatenate([kept, none_yet]) for kept in (self._forecast, self._persistence))

    def review(self, store: FeatureStore, event_s: float) -> int:
        """Gives places of links that have been silent for long to links that are there. Returns how many have found one."""
        watched, joined = self._watch.review(store.links, store.newest_s, event_s, store.region_of)
        self._drift.keep(watched.tolist())
        none_yet = np.full((joined, len(TARGETS)), np.nan, np.float32)
        self._forecast, self._persistence = (np.concatenate([kept[watched], none_yet]) for kept in (self._forecast, self._persistence))
        return joined

    def keep(self, slots: Ints) -> None:
        """Only the links of these slots stay (ascending), and have the slots 0, 1, ... from now on."""
        watched = self._watch.keep(slots)
        self._drift.keep(watched.tolist())
        self._forecast, self._persistence = self._forecast[watched], self._persistence[watched]

    def renew(self, slots: Ints) -> None:
        """Links of these slots begin anew: what they have shown last was of no time that can be."""
        index = self._watch.index_of_slot[slots]
        watched = index[index >= 0]
        self._drift.renew(watched.tolist())
        self._forecast[watched], self._persistence[watched] = np.nan, np.nan

    def judge(
        self, batch: TelemetryBatch, rows: FeatureRows, links: Sequence[str], complete_s: Doubles
    ) -> tuple[list[LinkAlarm], list[LinkSeen]]:  # fmt: skip
        """Compares each watched row with the forecast that was made for it, and makes the next. Only with a live model.

        complete_s: float64 (A,), the partition's event time after each accepted row.
        """
        assert self.model is not None
        assert rows.windows is not None
        at = rows.accepted[rows.watched]
        index = self._watch.index_of_slot[rows.slots[rows.watched]]
        forecast = np.full((len(at), len(TARGETS)), np.nan, np.float32)
        if rows.ready.any():
            with self._observer.stage("forecast"):
                forecast[rows.ready] = self.model.predict(rows.windows[rows.ready])
            self._observer.forecasts.inc(int(np.count_nonzero(rows.ready)))
        follows = rows.previous[:, None]
        before = np.where(follows >= 0, forecast[rows.previous], self._forecast[index])
        known = np.where(follows >= 0, rows.last_known[rows.previous], self._persistence[index])
        before[rows.restarted[rows.watched]] = np.nan
        self._forecast[index], self._persistence[index] = forecast, rows.last_known  # of several rows of a link the last one stays
        actual = batch.numeric[at][:, : len(TARGETS)]
        names = [links[slot] for slot in rows.slots[rows.watched].tolist()]
        self._score(batch.time_s[at], names, actual, before, known)
        regions, types = batch.categories[_REGION], batch.categories[_LINK_TYPE]

        def describe(row: int) -> tuple[str, str, str]:
            return regions[at[row]] or "", names[row], types[at[row]] or ""

        watched = WatchedRows(
            watch=index,
            numeric=batch.numeric[at],
            residual=actual - before,
            codes=rows.windows[:, -1, _CODES],
            time_s=batch.time_s[at],
            lag_s=np.maximum(0.0, complete_s[rows.watched] - batch.time_s[at]),
            offsets=batch.offsets[at],
            describe=describe,
        )
        return self._drift.update(watched, SCALE_FLOOR * self.model.metadata.outputs.scale)

    def state(self) -> dict[str, Any]:
        """Everything but the arrays, as plain values."""
        return {
            "watch_index": list(self._watch.index),
            "watch_regions": list(self._watch.regions),
            "drift": self._drift.document(),
            "epoch": self.epoch,
            "model_version": self.version,
            "forecasting": not self.shedding,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """forecast, persistence: float32 (W, 4); and those of LinkDrift."""
        return {"forecast": self._forecast.copy(), "persistence": self._persistence.copy()} | self._drift.arrays()

    def restore(self, state: dict[str, Any], arrays: dict[str, NDArray[Any]], model: Predictor | None, links: Sequence[str]) -> None:
        """Becomes what `state` and `arrays` were taken from, and watches what is pinned since. model: the predictor of
        state["model_version"]. links: the names of all slots."""
        self._watch = WatchList(self._policy, list(state["watch_index"]), list(state["watch_regions"]))
        self._drift = LinkDrift.restored(state["drift"], arrays, self._sensitivity)
        none_yet = np.full((self._watch.pin(links), len(TARGETS)), np.nan, np.float32)
        self._forecast, self._persistence = (np.concatenate([arrays[name], none_yet]) for name in ("forecast", "persistence"))
        self.epoch, self.version, self.model = state["epoch"], state["model_version"], model
        self.shedding = not state["forecasting"]

    def _forget_forecasts(self) -> None:
        self._forecast[:] = np.nan
        self._persistence[:] = np.nan

    def _score(self, time_s: Doubles, links: Sequence[str], actual: Floats, before: Floats, known: Floats) -> None:
        error, persistence_error = np.abs(actual - before).astype(np.float64), np.abs(actual - known).astype(np.float64)
        both = np.isfinite(error) & np.isfinite(persistence_error)
        for target in range(len(TARGETS)):
            if count := int(np.count_nonzero(both[:, target])):
                chosen = both[:, target]
                self._observer.measured(target, error[chosen, target].sum(), persistence_error[chosen, target].sum(), count)
        if self._listener is not None:
            self._listener.measured(self._partition, time_s, links, actual, before, known)
