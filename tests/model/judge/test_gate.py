"""The gate: what is accepted, what is refused, and the sentence that says why."""

from __future__ import annotations

import json

import numpy as np
import pytest

from features.telemetry import TARGETS, Doubles
from model.judge.gate import absolute_errors, against_average, decide, with_horizons
from model.spec.verdict import GatePolicy, Verdict

POLICY = GatePolicy()
WINDOWS = 2_000


def errors(*factors: float, windows: int = WINDOWS, noise: float = 0.1, seed: int = 0) -> Doubles:
    """Absolute errors (M, 4) of shared difficulty, times a factor for each target, times noise of this model alone."""
    shared = np.random.default_rng(99).gamma(2.0, 1.0, (windows, 4))
    own = np.random.default_rng(seed).normal(1.0, noise, (windows, 4))
    result: Doubles = np.abs(shared * own * np.array(factors or (1.0,) * 4))
    return result


CURRENT = errors(seed=1)
PERSISTENCE = errors(1.5, 1.5, 1.5, 1.5, seed=2)


@pytest.mark.parametrize(
    ("candidate", "accepted", "reason"),
    [
        pytest.param(errors(0.8, 0.8, 0.8, 0.8), True, "better on the whole", id="better everywhere"),
        pytest.param(errors(0.5, 1.0, 1.0, 1.0), True, "better on the whole", id="better at one target, equal at the rest"),
        pytest.param(errors(0.5, 1.1, 0.9, 0.9), False, "rtt_ms is worse by", id="one target clearly worse"),
        pytest.param(errors(0.9, 1.01, 0.9, 0.9), True, "better on the whole", id="one target worse within tolerance"),
        pytest.param(errors(), False, "not better on the whole", id="equal"),
        pytest.param(errors(1.3, 1.3, 1.3, 1.3), False, "packet_loss is worse by", id="worse everywhere"),
        pytest.param(errors(noise=0.9), False, "worse by", id="only noisier"),
    ],
)
def test_better_on_the_whole_and_worse_nowhere(candidate: Doubles, accepted: bool, reason: str) -> None:
    """A candidate is accepted only when no target is worse beyond tolerance and the mean scaled error falls."""
    verdict = decide(candidate, CURRENT, PERSISTENCE, POLICY)
    assert verdict.accepted is accepted
    assert any(reason in sentence for sentence in verdict.reasons), verdict.reasons
    assert verdict.windows == WINDOWS


def test_a_target_in_other_units_does_not_decide() -> None:
    """Errors are compared in units of the target: bytes of 1e9 weigh no more than a loss of 1e-3."""
    units = np.array([1e9, 1.0, 1e-3, 1e-6])
    plain = decide(errors(0.9, 0.9, 0.97, 0.97), CURRENT, PERSISTENCE, POLICY)
    other = decide(errors(0.9, 0.9, 0.97, 0.97) * units, CURRENT * units, PERSISTENCE * units, POLICY)
    assert plain.overall is not None
    assert other.overall is not None
    assert other.overall.mean == pytest.approx(plain.overall.mean, rel=1e-9)
    assert other.accepted is plain.accepted is True


def test_a_target_that_hardly_varies_does_not_decide() -> None:
    """A loss that is always 0 is forecast as 1e-6 or 3e-6: against the target's spread that is nothing, without it a refusal."""
    candidate, current, persistence = errors(0.8, 0.8, 0.8, 0.8), CURRENT.copy(), PERSISTENCE.copy()
    candidate[:, 2], current[:, 2], persistence[:, 2] = 3e-6, 1e-6, 0.0
    assert not decide(candidate, current, persistence, POLICY).accepted
    assert decide(candidate, current, persistence, POLICY, target_spread=np.array([1.0, 1.0, 0.01, 1.0])).accepted


def test_too_few_windows_are_refused() -> None:
    """Fewer windows than the policy asks for prove nothing, and the verdict says how many are needed."""
    verdict = decide(errors(0.5, 0.5, 0.5, 0.5)[:255], CURRENT[:255], PERSISTENCE[:255], POLICY)
    assert (verdict.accepted, verdict.reasons) == (False, ("255 windows are too few to compare it with the live version: 256 are needed",))
    assert decide(errors(0.5, 0.5, 0.5, 0.5)[:256], CURRENT[:256], PERSISTENCE[:256], POLICY).accepted


@pytest.mark.parametrize("current", [CURRENT, None])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_one_forecast_that_is_no_number_is_refused(current: Doubles | None, broken: float) -> None:
    """A single NaN or infinite forecast refuses a candidate, a first version too."""
    actual, predicted = np.full((WINDOWS, 4), 10.0, np.float32), np.full((WINDOWS, 4), 10.0, np.float32)
    predicted[1_234, 3] = broken
    verdict = decide(absolute_errors(actual, predicted), current, PERSISTENCE, POLICY)
    assert (verdict.accepted, verdict.reasons) == (False, ("its forecasts of jitter_ms are not all finite numbers",))


def test_a_first_version_is_accepted_and_says_its_skill() -> None:
    """Without a live version a finite candidate is accepted, however few its windows, and its skill against persistence is stated."""
    verdict = decide(errors(1.0, 1.0, 1.0, 2.0, windows=20), None, errors(2.0, 2.0, 2.0, 1.0, windows=20), POLICY)
    assert verdict.accepted
    assert verdict.per_target[0].skill == pytest.approx(0.5, abs=0.1)
    stated = {sentence.split(":")[0]: sentence.rsplit(" ", 2)[1] for sentence in verdict.reasons[1:]}
    assert stated == {"throughput_mbps": "under", "rtt_ms": "under", "packet_loss": "under", "jitter_ms": "over"}


def test_a_broken_live_version_is_replaced() -> None:
    """A live version whose forecasts are no numbers loses against any finite candidate."""
    current = CURRENT.copy()
    current[7, 0] = np.inf
    verdict = decide(errors(5.0, 5.0, 5.0, 5.0), current, PERSISTENCE, POLICY)
    assert verdict.accepted
    assert "live version" in verdict.reasons[0]


def test_unmeasured_targets_are_left_out() -> None:
    """A target without a value is neither better nor worse; the rest decides. With no value at all nothing is accepted."""
    candidate, current, persistence = errors(0.8, 0.8, 0.8, 0.8), CURRENT.copy(), PERSISTENCE.copy()
    for array in (candidate, current, persistence):
        array[:, 2] = np.nan
        array[::3, 1] = np.nan
    verdict = decide(candidate, current, persistence, POLICY)
    assert verdict.accepted
    assert [target.windows for target in verdict.per_target] == [2_000, 1_333, 0, 2_000]
    nothing = np.full((WINDOWS, 4), np.nan)
    for live in (nothing, None):
        assert decide(nothing, live, nothing, POLICY).reasons == ("there are no windows to judge it on",)


def test_what_only_the_candidate_forecasts_is_a_gain() -> None:
    """After other horizons were configured, a candidate that is as good at the next row is accepted, and one that is worse is not."""
    news = ("it forecasts 1, 5 rows ahead, as configured, and the live version 1",)
    assert not decide(errors(), CURRENT, PERSISTENCE, POLICY).accepted
    same = decide(errors(), CURRENT, PERSISTENCE, POLICY, news=news)
    assert same.accepted
    assert same.reasons[0] == news[0]
    worse = decide(errors(1.0, 1.1, 1.0, 1.0), CURRENT, PERSISTENCE, POLICY, news=news)
    assert not worse.accepted
    assert "rtt_ms is worse by" in worse.reasons[0]


def test_errors_of_other_windows_are_an_error() -> None:
    """Errors that are not of the same windows, or known at other places, cannot be compared."""
    with pytest.raises(ValueError, match=r"current errors are \(1999, 4\), not \(2000, 4\)"):
        decide(errors(), CURRENT[:-1], PERSISTENCE, POLICY)
    holes = CURRENT.copy()
    holes[0, 0] = np.nan
    with pytest.raises(ValueError, match="different windows"):
        decide(errors(), holes, PERSISTENCE, POLICY)


def test_a_verdict_is_repeatable_and_json() -> None:
    """The same errors give the same verdict, and its JSON has every figure and no NaN."""
    candidate = errors(0.8, 0.8, 0.8, 0.8)
    candidate[:, 2], current = np.nan, CURRENT.copy()
    current[:, 2] = np.nan
    verdict = decide(candidate, current, PERSISTENCE, POLICY)
    assert verdict == decide(candidate, current, PERSISTENCE, POLICY)
    document = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert document["accepted"] is True
    assert [target["name"] for target in document["per_target"]] == list(TARGETS)
    assert document["per_target"][2]["candidate_mae"] is None
    assert document["overall"]["high"] < 0


def verdicts(next_row: float, ahead: float) -> Verdict:
    """The verdict on both, of a candidate whose errors are those of the live version times these factors."""
    judged = [decide(errors(*[factor] * 4), CURRENT, PERSISTENCE, POLICY) for factor in (next_row, ahead)]
    return with_horizons(*judged)


@pytest.mark.parametrize(
    ("next_row", "ahead", "accepted", "reasons"),
    [
        pytest.param(0.8, 0.8, True, ["the next row: it is better", "all horizons: it is better"], id="better at both"),
        pytest.param(0.8, 1.0, True, ["the next row: it is better"], id="better at the next row alone"),
        pytest.param(1.0, 0.8, True, ["all horizons: it is better"], id="better at all horizons alone"),
        pytest.param(1.0, 1.0, False, ["the next row: it is not better", "all horizons: it is not better"], id="better at neither"),
        pytest.param(0.8, 1.3, False, ["all horizons: throughput_mbps is worse"], id="worse ahead"),
        pytest.param(1.3, 0.8, False, ["the next row: throughput_mbps is worse"], id="worse at the next row"),
    ],
)
def test_all_horizons_count_beside_the_next_row(next_row: float, ahead: float, accepted: bool, reasons: list[str]) -> None:
    """A gain at either is enough, unless the other has lost; the reasons are those of the verdicts that decided."""
    verdict = verdicts(next_row, ahead)
    assert verdict.accepted is accepted
    for reason in reasons:
        assert any(sentence.startswith(reason) for sentence in verdict.reasons), verdict.reasons
    prefixes = {reason.partition(":")[0] for reason in reasons}
    assert {sentence.partition(":")[0] for sentence in verdict.reasons} == prefixes


def test_one_target_that_is_worse_ahead_refuses() -> None:
    """However much the others gain; the figures of the verdict stay those of the next row."""
    next_row = decide(errors(0.8, 0.8, 0.8, 0.8), CURRENT, PERSISTENCE, POLICY)
    verdict = with_horizons(next_row, decide(errors(0.5, 0.5, 1.2, 0.5), CURRENT, PERSISTENCE, POLICY))
    assert not verdict.accepted
    assert verdict.reasons[0].startswith("all horizons: packet_loss is worse")
    assert verdict.per_target == next_row.per_target


def test_a_gain_at_the_next_row_does_not_excuse_forecasts_ahead_that_are_not_numbers() -> None:
    """One interval that is not finite refuses, as one forecast of the next row does."""
    better = decide(errors(0.8, 0.8, 0.8, 0.8), CURRENT, PERSISTENCE, POLICY)
    broken = errors(0.8, 0.8, 0.8, 0.8)
    broken[5, 1] = np.inf
    verdict = with_horizons(better, decide(broken, CURRENT, PERSISTENCE, POLICY))
    assert (verdict.accepted, verdict.reasons) == (False, ("all horizons: its forecasts of rtt_ms are not all finite numbers",))


def test_too_few_windows_ahead_leave_the_decision_to_the_next_row() -> None:
    """Right after a drift hardly any window knows a row ahead: a better next row is enough then."""
    better = decide(errors(0.8, 0.8, 0.8, 0.8), CURRENT, PERSISTENCE, POLICY)
    few = decide(errors(1.3, 1.3, 1.3, 1.3)[:10], CURRENT[:10], PERSISTENCE[:10], POLICY)
    assert with_horizons(better, few).accepted
    none = decide(np.full((WINDOWS, 4), np.nan), np.full((WINDOWS, 4), np.nan), PERSISTENCE, POLICY)
    assert with_horizons(better, none).accepted


@pytest.mark.parametrize(
    ("factor", "windows", "accepted"),
    [(1.5, WINDOWS, False), (1.005, WINDOWS, True), (0.8, WINDOWS, True), (1.5, 20, True)],
    ids=["worse", "worse within tolerance", "better", "too few windows to tell"],
)
def test_a_first_version_has_to_stand_beside_a_moving_average(factor: float, windows: int, accepted: bool) -> None:
    """Over all targets together; where the average has no forecast, nothing is compared."""
    candidate, average = errors(*[factor] * 4, windows=windows), errors(windows=windows, seed=1)
    candidate[:, 3], average[::2, 2] = np.nan, np.nan
    first = decide(candidate, None, average, POLICY)
    verdict = against_average(first, candidate, average, POLICY)
    assert verdict.accepted is accepted
    assert any("worse than a moving average" in reason for reason in verdict.reasons) is not accepted
    nothing = np.full_like(average, np.nan)
    assert against_average(first, candidate, nothing, POLICY) is first
