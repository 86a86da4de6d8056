"""When a training starts: one pure function, as a table of cases; and how the schedule marks it as due."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.clock import WallClock
from daemon.config.sections import NEVER
from daemon.training.schedule import StreamSchedule, WallSchedule
from daemon.training.triggers import TrainingFacts, TrainingPolicy, decide_training

NOW_S = 1_800_000_000.0
POLICY = TrainingPolicy(rows_min=1000, new_rows_min=500, drift_rows_min=200, cooldown_s=60.0)
FRESH = TrainingFacts(
    running=False, has_version=False, rows=0, new_rows=0, schedule_due=False, drift_rows=None, ended_s=None, failed=False
)  # fmt: skip
LIVE = replace(FRESH, has_version=True, rows=5000)

CASES = [
    ("nothing yet", FRESH, "", "rows for the first version, 0 of 1,000"),
    ("one row short of the first version", replace(FRESH, rows=999), "", "rows for the first version, 999 of 1,000"),
    ("enough rows for the first version", replace(FRESH, rows=1000, new_rows=1000), "first", ""),
    ("the first version needs no schedule", replace(FRESH, rows=1000, new_rows=1000, schedule_due=True), "first", ""),
    ("a drift without a version is answered by the first one", replace(FRESH, rows=1000, new_rows=1000, drift_rows=0), "first", ""),
    (
        "the first version, after an attempt that found too little in the rows",
        replace(FRESH, rows=1200, new_rows=200, ended_s=NOW_S - 60.0),
        "",
        "more rows for the first version, 200 of 500",
    ),
    ("and again with more rows", replace(FRESH, rows=1500, new_rows=500, ended_s=NOW_S - 60.0), "first", ""),
    ("a training that ended in the future: the clock was set back since", replace(LIVE, drift_rows=200, ended_s=NOW_S + 9e6), "drift", ""),
    ("nothing due", LIVE, "", "the schedule or a drift"),
    ("the schedule, one row short", replace(LIVE, schedule_due=True, new_rows=499), "", "new rows, 499 of 500"),
    ("the schedule", replace(LIVE, schedule_due=True, new_rows=500), "schedule", ""),
    ("a drift, one row short", replace(LIVE, drift_rows=199), "", "rows since the drift, 199 of 200"),
    ("a drift", replace(LIVE, drift_rows=200), "drift", ""),
    ("a drift comes before the schedule", replace(LIVE, drift_rows=200, schedule_due=True, new_rows=500), "drift", ""),
    (
        "a drift that is not ripe holds the schedule up: it will bring a training anyway",
        replace(LIVE, drift_rows=10, schedule_due=True, new_rows=500),
        "",
        "rows since the drift, 10 of 200",
    ),
    ("a version that is behind, one row short", replace(LIVE, behind_rows=199), "", "rows since the version fell behind, 199 of 200"),
    ("a version that is behind", replace(LIVE, behind_rows=200), "behind", ""),
    (
        "trainings that gave nothing better make it wait longer",
        replace(LIVE, behind_rows=799, unpaid=2),
        "",
        "rows since the version fell behind, 799 of 800",
    ),
    ("a drift comes before it", replace(LIVE, behind_rows=200, drift_rows=200), "drift", ""),
    ("and so does the schedule", replace(LIVE, behind_rows=200, schedule_due=True, new_rows=500), "schedule", ""),
    ("never two at once", replace(LIVE, running=True, drift_rows=200), "", "the training that runs"),
    ("cool-down", replace(LIVE, drift_rows=200, ended_s=NOW_S - 59.0), "", "the cool-down, 1 s"),
    ("the cool-down is over", replace(LIVE, drift_rows=200, ended_s=NOW_S - 60.0), "drift", ""),
    (
        "a failed training cools down twice as long",
        replace(LIVE, drift_rows=200, ended_s=NOW_S - 119.0, failed=True),
        "",
        "the cool-down, 1 s",
    ),
    ("and is tried again then", replace(LIVE, drift_rows=200, ended_s=NOW_S - 120.0, failed=True), "drift", ""),
    (
        "a failed first training cools down too",
        replace(FRESH, rows=1000, new_rows=1000, ended_s=NOW_S - 1.0, failed=True),
        "",
        "the cool-down, 119 s",
    ),
]


@pytest.mark.parametrize(("facts", "reason", "waiting_for"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_decision(facts: TrainingFacts, reason: str, waiting_for: str) -> None:
    """Each case gives its reason to start, or what is waited for, in words for a person."""
    decision = decide_training(NOW_S, facts, POLICY)
    assert (decision.start, decision.reason, decision.waiting_for) == (bool(reason), reason, waiting_for)


@given(
    st.builds(
        TrainingFacts,
        running=st.booleans(),
        has_version=st.booleans(),
        rows=st.integers(0, 3000),
        new_rows=st.integers(0, 3000),
        schedule_due=st.booleans(),
        drift_rows=st.none() | st.integers(0, 1000),
        ended_s=st.none() | st.floats(NOW_S - 500, NOW_S),
        failed=st.booleans(),
    )
)
def test_rules_that_hold_for_all_facts(facts: TrainingFacts) -> None:
    """Never beside a running one, never within the cool-down, and always with either a reason or what is waited for."""
    decision = decide_training(NOW_S, facts, POLICY)
    assert bool(decision.reason) == decision.start
    assert bool(decision.waiting_for) != decision.start
    if decision.start:
        assert not facts.running
        assert facts.ended_s is None or not 0 <= NOW_S - facts.ended_s < POLICY.cooldown_s * (1 + facts.failed)
        assert facts.rows >= POLICY.rows_min or facts.has_version


def test_the_schedule_marks_training_as_due_until_one_has_started() -> None:
    """An interval marks it, again and again; answering takes the mark away."""
    schedule = WallSchedule("", 0.05)
    assert not schedule.due_at(0.0)
    schedule.start()
    try:
        for _ in range(2):
            assert schedule._due.wait(30.0)
            schedule.answered()
    finally:
        schedule.close()
    assert not any(thread.name.startswith("APScheduler") for thread in threading.enumerate())


def test_a_schedule_outlives_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back, it does not wait for the time that was next before; set forward, it does not sleep through a time that has come."""
    ahead_s = 0.0
    schedule = WallSchedule("0 3 * * *", None, WallClock(lambda: time.time() + ahead_s))
    schedule.start()
    try:
        (job,) = schedule._scheduler.get_jobs()
        soon = job.next_run_time
        job.modify(next_run_time=soon + timedelta(days=400))  # as it was noted while the clock was 400 days ahead
        assert not schedule.due_at(0.0)
        ahead_s = -400 * 86_400.0
        assert not schedule.due_at(0.0)
        (job,) = schedule._scheduler.get_jobs()
        assert job.next_run_time == soon
        with monkeypatch.context() as patched:  # its time comes without that the scheduler is woken: the clock was set forward
            patched.setattr(schedule._scheduler, "wakeup", lambda: None)
            job.modify(next_run_time=soon - timedelta(days=2))
        assert not schedule.due_at(0.0)
        ahead_s += 86_400.0
        assert schedule.due_at(0.0) or schedule._due.wait(30.0)
    finally:
        schedule.close()


def test_a_changed_schedule_replaces_the_old_one() -> None:
    """Cron and interval have one job each; an empty schedule has none; an invalid one is a ValueError."""
    schedule = WallSchedule("0 3 * * *", 3600.0)
    assert len(schedule._scheduler.get_jobs()) == 2
    schedule.change("30 4 * * 1", None)
    (job,) = schedule._scheduler.get_jobs()
    assert "hour='4', minute='30'" in str(job.trigger)
    assert str(job.trigger.timezone) == "UTC"
    schedule.change("", None)
    assert schedule._scheduler.get_jobs() == []
    with pytest.raises(ValueError, match="25"):
        schedule.change("0 25 * * *", None)


def test_a_replay_has_its_schedule_in_recorded_time() -> None:
    """Cron and interval, each once for the time that has passed, however long a jump is; nothing before the first record."""
    schedule = StreamSchedule("0 3 * * *", 7_200.0)
    assert not schedule.due_at(-math.inf)
    day_s = 86_400.0
    assert not schedule.due_at(NOW_S - NOW_S % day_s)
    assert schedule.due_at(NOW_S - NOW_S % day_s + 7_200.0), "the interval"
    schedule.answered()
    assert not schedule.due_at(NOW_S - NOW_S % day_s + 7_260.0)
    assert schedule.due_at(NOW_S - NOW_S % day_s + 20 * day_s)
    schedule.answered()
    assert not schedule.due_at(NOW_S - NOW_S % day_s + 20 * day_s + 60.0)
    schedule.change("", None)
    assert not schedule.due_at(NOW_S + 99 * day_s)
    with pytest.raises(ValueError, match="not a cron schedule"):
        StreamSchedule("0 25 * * *", None)


def test_drifts_that_never_ask_hold_up_no_schedule() -> None:
    """Where drift_rows_min says that no drift asks for a training, the schedule goes on through one."""
    policy = replace(POLICY, drift_rows_min=NEVER)
    drifting = replace(LIVE, drift_rows=10**6, behind_rows=10**6)
    assert decide_training(NOW_S, replace(drifting, schedule_due=True, new_rows=500), policy).reason == "schedule"
    assert not decide_training(NOW_S, drifting, policy).start
