"""The decision to train: one pure function of schedule, drift, cool-down and the number of new rows."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.config.sections import NEVER
from model.spec.job import BEHIND, DRIFT


@dataclass(frozen=True, slots=True)
class TrainingPolicy:
    """Rows are accepted records. See daemon.config.sections.TrainingSection for the defaults and their reasons."""

    rows_min: int
    new_rows_min: int
    drift_rows_min: int
    cooldown_s: float


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """Facts by which a training is decided.

    Args:
        running: a training is due or running, or its candidate is being published.
        rows: accepted records.
        new_rows: accepted records since the start of the last training.
        behind_rows: rows since the live version was found to be worse than what is published, or since the last training; None: it is not.
        unpaid: trainings in succession that gave no better version.
        drift_rows: rows since the beginning of the oldest drift that no training has answered; None: there is no such drift.
        ended_s: when the last training ended, UTC seconds; None before the first.
        failed: the last training failed.
        pinned: a person wants the live version to stay live.
    """

    running: bool
    has_version: bool
    rows: int
    new_rows: int
    schedule_due: bool
    drift_rows: int | None
    ended_s: float | None
    failed: bool
    pinned: bool = False
    behind_rows: int | None = None
    unpaid: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision whether to train now.

    Args:
        reason: "first", "drift", "behind", "schedule" or "".
        waiting_for: the missing condition, for a person.
    """

    start: bool
    reason: str = ""
    waiting_for: str = ""


def decide_training(now_s: float, facts: TrainingFacts, policy: TrainingPolicy) -> Decision:
    """Decide whether a training starts at now_s (UTC seconds). Drift comes before the schedule, and nothing before the cool-down."""
    if facts.running:
        return Decision(False, waiting_for="the training that runs")
    if facts.pinned:
        return Decision(False, waiting_for="`dwcp-learner models unpin`: the live version is pinned")
    cooldown_s = policy.cooldown_s * (2.0 if facts.failed else 1.0)
    if facts.ended_s is not None and 0.0 <= now_s - facts.ended_s < cooldown_s:  # under 0: the clock was set back since
        return Decision(False, waiting_for=f"the cool-down, {cooldown_s - (now_s - facts.ended_s):.0f} s")
    if not facts.has_version:
        if facts.rows < policy.rows_min:
            return Decision(False, waiting_for=f"rows for the first version, {facts.rows:,} of {policy.rows_min:,}")
        if facts.new_rows < facts.rows and facts.new_rows < policy.new_rows_min:  # an earlier attempt found too little in them
            return Decision(False, waiting_for=f"more rows for the first version, {facts.new_rows:,} of {policy.new_rows_min:,}")
        return Decision(True, "first")
    on_drift = policy.drift_rows_min < NEVER  # otherwise a drift would hold up the schedule for ever
    if facts.drift_rows is not None and on_drift:
        if facts.drift_rows < policy.drift_rows_min:
            return Decision(False, waiting_for=f"rows since the drift, {facts.drift_rows:,} of {policy.drift_rows_min:,}")
        return Decision(True, DRIFT)
    if facts.behind_rows is not None and on_drift and not facts.schedule_due:
        needed = policy.drift_rows_min << facts.unpaid
        if facts.behind_rows < needed:
            return Decision(False, waiting_for=f"rows since the version fell behind, {facts.behind_rows:,} of {needed:,}")
        return Decision(True, BEHIND)
    if facts.schedule_due:
        if facts.new_rows < policy.new_rows_min:
            return Decision(False, waiting_for=f"new rows, {facts.new_rows:,} of {policy.new_rows_min:,}")
        return Decision(True, "schedule")
    return Decision(False, waiting_for="the schedule or a drift")
