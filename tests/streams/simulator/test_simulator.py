"""The simulated fleet: determinism, plausible values, planted events against what a run without them shows, and delivery."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.telemetry import COLUMNS, TARGETS
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec, Region, build_fleet
from streams.simulator.planted import PlantedEvent, affected_links, ground_truth
from streams.simulator.simulation import _heavy_tails, simulate

DAY_S = 86_400.0
HOUR_S = 3600.0
REGIONS = (Region("north", 0.0), Region("far-east", 9.0))
SMALL = FleetSpec(regions=REGIONS, links_per_region=10)
PERFECT = replace(SMALL, hole_share=0.0, gap_share=0.0, late_share=0.0, duplicate_share=0.0)
START_S = DEFAULT_START_S + 2 * HOUR_S
EVENTS = {
    "step": PlantedEvent("step", START_S, "north", duration_s=HOUR_S, links_share=0.5, size_sd=2.0),
    "ramp": PlantedEvent("ramp", START_S, "north", links_share=0.3, size_sd=4.0, ramp_s=2 * HOUR_S, metrics=("rtt_ms", "jitter_ms")),
    "variance": PlantedEvent("variance", START_S, "far-east", links_share=0.4, size_sd=3.0),
    "loss_burst": PlantedEvent("loss_burst", START_S, "north", links_share=0.6, size_sd=4.0),
    "reroute": PlantedEvent("reroute", START_S, "far-east", duration_s=2 * HOUR_S, links_share=0.7, size_sd=2.0),
}


def encoded(spec: FleetSpec, duration_s: float) -> list[bytes]:
    return [value for records in simulate(spec, duration_s) for value in records.json()]


def table(spec: FleetSpec, duration_s: float, names: tuple[str, ...] = TARGETS) -> dict[str, np.ndarray[Any, Any]]:
    """Return for each column a float64 (T, L) of the fleet's links in their order, NaN if there is no value."""
    filled = {name: np.full((spec.tick_count(duration_s), spec.link_count), np.nan) for name in names}
    for records in simulate(spec, duration_s):
        tick = np.floor((records.time_s - spec.start_s) / spec.interval_s + 1e-6).astype(int)
        for name in names:
            filled[name][tick, records.link] = records.column(name)
    return filled


def lag_one(series: np.ndarray[Any, Any]) -> float:
    """The mean over links of the correlation of a sample with the one before, where both exist; series: (T, L)."""
    correlations = []
    for before, now in zip(series[:-1].T, series[1:].T, strict=True):
        both = np.isfinite(before) & np.isfinite(now)
        correlations.append(np.corrcoef(before[both], now[both])[0, 1])
    return float(np.mean(correlations))


@pytest.fixture(scope="module")
def fortnight() -> dict[str, np.ndarray[Any, Any]]:
    """Fourteen days of a perfect small fleet."""
    return table(PERFECT, 14 * DAY_S)


def test_same_spec_gives_same_bytes_and_another_seed_gives_others() -> None:
    """A stream follows from its spec alone."""
    first, again, other = (encoded(replace(SMALL, seed=seed), HOUR_S) for seed in (1, 1, 2))
    assert first == again
    assert not set(first) & set(other)


def test_a_shorter_run_is_the_start_of_a_longer_one() -> None:
    """The length of a run changes none of its records, across the borders of blocks."""
    spec = replace(SMALL, links_per_region=3000, late_share=0.1)  # blocks of ten ticks
    short, long = encoded(spec, 13 * 60.0), encoded(spec, 25 * 60.0)
    assert long[: len(short)] == short
    assert len(long) > len(short)


def test_records_have_the_22_columns_in_plausible_ranges() -> None:
    """Every record has every column, with values that the daemon accepts and that agree with one another."""
    modes: Counter[str] = Counter()
    for value in encoded(SMALL, DAY_S):
        record = json.loads(value)
        assert tuple(record) == COLUMNS
        assert (record["bandwidth_mbps"], record["latency_ms"]) == (record["throughput_mbps"], record["rtt_ms"])
        assert any(record[name] is not None for name in TARGETS)
        for name in ("throughput_mbps", "rtt_ms", "jitter_ms", "bytes_tx", "bytes_rx", "retransmits", "congestion_window", "queue_depth"):
            assert record[name] is None or record[name] >= 0
        assert record["packet_loss"] is None or 0 <= record["packet_loss"] <= 1
        if record["bytes_tx"] is not None and record["throughput_mbps"] is not None:
            assert isinstance(record["bytes_tx"], int)
            assert record["bytes_tx"] + record["bytes_rx"] <= record["throughput_mbps"] * 1e6 / 8 * SMALL.interval_s + 1000
        second = record["timestamp"] - DEFAULT_START_S  # a Monday's midnight
        assert record["time_of_day"] == pytest.approx(second / 3600, abs=1e-4)
        assert record["day_of_week"] == 0
        modes[record["dwcp_mode"]] += 1
    assert set(modes) == {"turbo", "standard", "reliable"}


def test_mode_and_queue_follow_the_load() -> None:
    """A reliable mode goes with a longer queue than a turbo one, because both follow the load."""
    queue: dict[str, list[float]] = {"turbo": [], "standard": [], "reliable": []}
    for records in simulate(PERFECT, DAY_S):
        for mode, depth in zip(records.column("dwcp_mode"), records.column("queue_depth"), strict=True):
            queue[mode].append(depth)
    assert np.median(queue["turbo"]) < np.median(queue["standard"]) < np.median(queue["reliable"])


@pytest.mark.parametrize("name", [*TARGETS, "queue_depth"])
def test_shares_of_holes_gaps_lates_and_repeats_are_kept(name: str) -> None:
    """Each imperfection occurs as often as the spec says, within a tenth."""
    spec = replace(SMALL, hole_share=0.05, gap_share=0.04, late_share=0.03, duplicate_share=0.02)
    records = next(simulate(spec, 3000 * 60.0))
    expected = 3000 * spec.link_count
    assert np.isnan(records.column(name)).mean() == pytest.approx(0.05, rel=0.1)
    assert len(np.unique(records.rows)) / expected == pytest.approx(0.96, rel=0.01)
    assert (records.arrival_s > records.time_s).mean() == pytest.approx(0.03, rel=0.1)
    assert (len(records) - len(np.unique(records.rows))) / expected == pytest.approx(0.02, rel=0.1)


def test_time_moves_forward_per_link_except_for_lates_and_exact_repeats() -> None:
    """A record that does not move its link's time forward is an exact repeat of the last one, or real and late."""
    spec = replace(SMALL, late_share=0.05, duplicate_share=0.05)
    latest: dict[tuple[str, str], tuple[float, bytes]] = {}
    seen: set[bytes] = set()
    counts: Counter[str] = Counter()
    for value in encoded(spec, DAY_S / 2):
        record = json.loads(value)
        link, time_s = (record["node_id"], record["peer_id"]), record["timestamp"]
        before_s, before = latest.get(link, (-np.inf, b""))
        if time_s > before_s:
            counts["forward"] += 1
            latest[link] = time_s, value
        elif time_s == before_s:
            counts["repeat"] += 1
            assert value == before
        else:
            counts["late"] += 1
            assert value not in seen
            assert before_s - time_s == pytest.approx(spec.interval_s)
        seen.add(value)
    assert counts["forward"] > 10_000
    assert counts["late"] > 400
    assert counts["repeat"] > 400


def test_without_imperfections_every_link_reports_at_its_own_phase() -> None:
    """Times ascend over the whole stream, and a link's are exactly one interval apart."""
    records = next(simulate(PERFECT, HOUR_S))
    assert (np.diff(records.time_s) > 0).all()
    for link in range(PERFECT.link_count):
        assert np.diff(records.time_s[records.link == link]) == pytest.approx(PERFECT.interval_s, abs=1e-3)


def test_noise_table_has_the_quantiles_of_t4() -> None:
    """Tables give 2.7764 and 0.7407 for the 97.5 % and 75 % quantiles of t with 4 degrees of freedom; the variance here is 1."""
    values = _heavy_tails()
    ratio = np.quantile(values, 0.975) / np.quantile(values, 0.75)
    assert ratio == pytest.approx(2.7764 / 0.7407, rel=1e-3)
    assert values.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("metric", "lowest", "highest"), [*zip(TARGETS, (0.72, 0.7, 0.55, 0.6), (0.9, 0.88, 0.75, 0.8), strict=True)])
def test_noise_is_autocorrelated_with_heavy_tails(
    fortnight: dict[str, np.ndarray[Any, Any]], metric: str, lowest: float, highest: float
) -> None:
    """Around the hour's mean the logarithm of a metric is autocorrelated, and its changes have more kurtosis than a normal's 3."""
    log = np.log(np.maximum(fortnight[metric], 1e-6)).reshape(14 * 24, 60, -1)
    residual = log - log.mean(axis=1, keepdims=True)
    pairs = [(residual[:, k].ravel(), residual[:, k + 1].ravel()) for k in range(59)]
    before, now = (np.concatenate(side) for side in zip(*pairs, strict=True))
    # Taking an hour's mean out makes each value a little less like the last: the bounds hold for what is left.
    assert lowest < np.corrcoef(before, now)[0, 1] < highest
    change = np.diff(log, axis=1)
    change = change / change.std(axis=(0, 1))
    assert (change**4).mean() > 4


def test_metrics_of_a_link_move_together(fortnight: dict[str, np.ndarray[Any, Any]]) -> None:
    """The load drives them all: from one hour to the next RTT, jitter and loss go with one another, and throughput against them."""
    hourly = {name: np.log(np.maximum(values, 1e-6)).reshape(14 * 24, 60, -1) for name, values in fortnight.items()}
    within = {name: (values - values.mean(axis=1, keepdims=True)).ravel() for name, values in hourly.items()}
    for other, sign in (("jitter_ms", 1), ("packet_loss", 1), ("throughput_mbps", -1)):
        assert sign * np.corrcoef(within["rtt_ms"], within[other])[0, 1] > 0.15


def test_the_evening_of_each_region_is_busy(fortnight: dict[str, np.ndarray[Any, Any]]) -> None:
    """Between 20 and 21 o'clock local time RTT and loss are higher and throughput is lower than between 8 and 9."""
    fleet = build_fleet(PERFECT)
    for index, region in enumerate(REGIONS):
        hour = (np.arange(14 * 1440) / 60 + region.utc_offset_h) % 24
        for metric, sign in (("rtt_ms", 1), ("packet_loss", 1), ("throughput_mbps", -1)):
            values = np.log(np.maximum(fortnight[metric][:, fleet.region == index], 1e-6))
            evening, morning = (values[(hour >= h) & (hour < h + 1)].mean() for h in (20, 8))
            assert sign * (evening - morning) > 0.1


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_ground_truth_is_what_a_comparison_with_a_run_without_the_event_shows(event: PlantedEvent) -> None:
    """Exactly the listed links differ, from the start on and until the end; every other record is the same to the byte."""
    spec = replace(SMALL, late_share=0.02, duplicate_share=0.02)
    planted = encoded(replace(spec, events=(event,)), 6 * HOUR_S)
    plain = encoded(spec, 6 * HOUR_S)
    assert len(planted) == len(plain)
    changed_s: dict[tuple[str, str, str], list[float]] = {}
    for value, other in zip(planted, plain, strict=True):
        if value != other:
            record, before = json.loads(value), json.loads(other)
            assert record["timestamp"] == before["timestamp"]
            key = record["node_id"], record["peer_id"], record["link_type"]
            changed_s.setdefault(key, []).append(record["timestamp"])
    (truth,) = ground_truth(replace(spec, events=(event,)))["events"]
    assert set(changed_s) == {tuple(link) for link in truth["links"]}
    assert truth["links_share"] == pytest.approx(event.links_share)
    # A burst may not come at once, and a ramp has to grow above the rounding of the records.
    latest_first_s = START_S + {"loss_burst": 150, "ramp": 15}.get(event.kind, 3) * spec.interval_s
    for times in changed_s.values():
        assert event.start_s <= min(times) <= latest_first_s
        assert max(times) < event.end_s
    if event.kind in ("step", "reroute"):  # for these every record within the event differs, but for those whose metric is a hole
        within = sum(event.start_s <= json.loads(v)["timestamp"] < event.end_s for v in plain) / spec.link_count
        assert sum(map(len, changed_s.values())) > 0.95 * within * len(truth["links"])


@pytest.mark.parametrize(("kind", "first_h", "last_h", "expected"), [("step", 2, 3, 1.0), ("ramp", 2, 4, 0.5), ("ramp", 4, 8, 1.0)])
def test_level_moves_by_the_given_number_of_standard_deviations(kind: str, first_h: int, last_h: int, expected: float) -> None:
    """During a step the logarithm of RTT is higher by size_sd times the noise's deviation; while a ramp rises, by half of that."""
    event = EVENTS[kind]
    spec = replace(PERFECT, events=(event,))
    fleet = build_fleet(spec)
    links = affected_links(fleet, event)
    moved = np.log(table(spec, 8 * HOUR_S)["rtt_ms"][:, links]) - np.log(table(PERFECT, 8 * HOUR_S)["rtt_ms"][:, links])
    in_deviations = moved[first_h * 60 : last_h * 60] / fleet.noise_sd[TARGETS.index("rtt_ms"), links]
    assert in_deviations.mean() == pytest.approx(expected * event.size_sd, rel=0.03)


def test_a_larger_share_contains_the_links_of_a_smaller_one() -> None:
    """Links are ranked once, by a stable hash, and shares are exact."""
    fleet = build_fleet(SMALL)
    chosen = [affected_links(fleet, replace(EVENTS["step"], links_share=share)).tolist() for share in (0.2, 0.5, 1.0)]
    assert [len(links) for links in chosen] == [2, 5, 10]
    assert set(chosen[0]) < set(chosen[1]) < set(chosen[2])


def test_after_a_reroute_an_old_predictor_is_wrong_until_it_is_fitted_again() -> None:
    """A least-squares AR(5) with means from before is at least 1.5 times as wrong after; a new fit gets at least half of that back."""
    event = PlantedEvent("reroute", DEFAULT_START_S + 2 * DAY_S, "north", links_share=0.8, size_sd=2.0)
    spec = replace(SMALL, events=(event,))
    links = affected_links(build_fleet(spec), event)
    for metric, values in table(spec, 3 * DAY_S).items():
        if metric not in event.affected_metrics:
            continue
        before, after = values[:2880, links], values[2880:, links]
        mean, deviation = np.nanmean(before, axis=0), np.nanstd(before, axis=0)
        before, after = (before - mean) / deviation, (after - mean) / deviation
        old, new = fit(before[:1440]), fit(after[:720])
        error_before, error_after, error_refit = error(old, before[1440:]), error(old, after[720:]), error(new, after[720:])
        assert error_after > 1.5 * error_before
        assert error_after - error_refit > 0.5 * (error_after - error_before)
        assert lag_one(after) < lag_one(before) - 0.4


def rows_of(series: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Inputs (five last values, mean of the last ten, 1) and targets of all links together; series: (T, L)."""
    past = np.stack([series[10 - k : len(series) - k] for k in range(1, 11)])
    inputs = np.stack([*past[:5], past.mean(axis=0), np.ones_like(past[0])], axis=-1).reshape(-1, 7)
    targets = series[10:].ravel()
    known = np.isfinite(inputs).all(axis=1) & np.isfinite(targets)
    return inputs[known], targets[known]


def fit(series: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    inputs, targets = rows_of(series)
    return np.asarray(np.linalg.lstsq(inputs, targets, rcond=None)[0])


def error(weights: np.ndarray[Any, Any], series: np.ndarray[Any, Any]) -> float:
    inputs, targets = rows_of(series)
    return float(np.abs(inputs @ weights - targets).mean())


@pytest.mark.parametrize("duration_s", [0.0, 59.0, float("inf")])
def test_a_duration_without_a_tick_is_refused(duration_s: float) -> None:
    """A run has at least one interval, and an end."""
    with pytest.raises(ValueError, match="duration_s"):
        next(simulate(SMALL, duration_s))
