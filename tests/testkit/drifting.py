"""Made-up residuals and alarms, and drift stages that read them."""

from __future__ import annotations

import numpy as np

from drift.link.rows import MonitoredRows
from drift.link.stage import LinkDrift
from drift.messages import LinkAlarm, LinkSeen
from drift.region.stage import RegionDrift
from features.telemetry import CATEGORIES, NUMERIC

LEAST = np.full(4, 0.01, np.float32)
DAY = 1440


def rows_of(watch, residual, time_s, numeric=None, codes=None, lag_s=None, offset: int = 0, links: int = 1) -> MonitoredRows:
    """Return rows of links that report nothing but the four metrics, unless numeric holds more."""
    count = len(watch)
    if numeric is None or numeric.shape[1] < len(NUMERIC):
        given = residual if numeric is None else numeric
        numeric = np.full((count, len(NUMERIC)), np.nan, np.float32)
        numeric[:, :4] = given
    return MonitoredRows(
        watch=np.asarray(watch, np.int32),
        numeric=numeric.astype(np.float32),
        residual=residual.astype(np.float32),
        codes=np.ones((count, len(CATEGORIES)), np.float32) if codes is None else codes,
        time_s=np.asarray(time_s, np.float64),
        lag_s=np.zeros(count) if lag_s is None else lag_s,
        offsets=offset + np.arange(count),
        describe=lambda row: ("eu", f"link-{row % links}", "metro"),
    )


def feed(drift: LinkDrift, residuals: np.ndarray, start_s: float = 0.0, links: int = 1, actual: np.ndarray | None = None, rows: int = 100):
    """Feed residuals to a stage, one row a minute.

    Args:
        drift: the stage.
        residuals: float (T, links, 4), in standard deviations.
        start_s: event time of the first row, seconds.
        links: number of links.
        actual: float (T, links, 4), the metrics; None: the residuals.
        rows: minutes of a batch.

    Returns:
        (alarms, seen) of all batches.
    """
    alarms, seen = [], []
    residuals = residuals.reshape(len(residuals), links, 4)
    actual = residuals if actual is None else actual.reshape(residuals.shape)
    for begin in range(0, len(residuals), rows):
        part = residuals[begin : begin + rows]
        count = len(part) * links
        time_s = np.repeat(start_s + 60.0 * (begin + np.arange(len(part))), links)
        numeric = actual[begin : begin + rows].reshape(count, 4)
        made = rows_of(np.resize(np.arange(links), count), part.reshape(count, 4), time_s, numeric, offset=begin * links, links=links)
        more = drift.update(made, LEAST)
        alarms += more[0]
        seen += more[1]
    return alarms, seen


def noise(rows: int, links: int = 1, seed: int = 1) -> np.ndarray:
    """Return standard normal residuals, float64 (rows, links, 4)."""
    return np.random.default_rng(seed).normal(0.0, 1.0, (rows, links, 4))


def alarm(
    minute: float, link: str, region: str = "eu", signal: int = 1, epoch: int = 1, offset: int = 0, direction: int = 1,
    certain: bool = False, aspect: str = "level", shown: float = 1.0, interval_s: float = 60.0, since: float | None = None,
    size: float = 18.0, sigma: float = 2.0, over: bool = False,
) -> LinkAlarm:  # fmt: skip
    since_s = 60.0 * (minute - 5 if since is None else since)
    return LinkAlarm(
        60.0 * minute, region, link, "metro", signal, aspect, "cusum", direction, certain, since_s, sigma * direction, size * direction,
        shown, 0.0, interval_s, offset, epoch, over,
    )  # fmt: skip


def seen(minute: float, link: str, region: str = "eu", epoch: int = 1, interval_s: float = 60.0) -> LinkSeen:
    return LinkSeen(60.0 * minute, region, link, interval_s, epoch)


def fleet(links: int, minutes: int = 20) -> list[LinkSeen]:
    return [seen(minute, f"l{at}") for minute in range(0, minutes, 15) for at in range(links)]


def run(messages, watermarks, policy=None):
    """Observe all messages as their time comes, and return the changes of incidents."""
    drift, changes = RegionDrift(policy), []
    pending = sorted(messages, key=lambda message: message.time_s)
    for watermark in watermarks:
        while pending and pending[0].time_s <= watermark:
            message = pending.pop(0)
            drift.observe(*([message], []) if isinstance(message, LinkAlarm) else ([], [message]))
        changes += drift.advance(watermark)
    return changes


def stages(residuals, minutes=None, actual=None):
    """Return the changes of incidents that both stages make of residuals.

    Args:
        residuals: float (T, links, 4).
        minutes: event time of each row; None: one row a minute.
        actual: the metrics; None: the residuals.
    """
    links, region = residuals.shape[1], RegionDrift()
    time_s = 60.0 * np.repeat(np.arange(len(residuals)) if minutes is None else minutes, links)
    watch, flat = np.resize(np.arange(links), len(time_s)), residuals.reshape(-1, 4)
    numeric = None if actual is None else actual.reshape(-1, 4)
    region.observe(*LinkDrift(1).update(rows_of(watch, flat, time_s, numeric, links=links), LEAST))
    return [change for watermark_s in np.unique(time_s) for change in region.advance(watermark_s)]
