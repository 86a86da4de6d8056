"""Policies of training that a backtest compares, each as a change of the configuration of a replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from daemon.config.load import Config
from daemon.config.sections import NEVER

ALWAYS_SHARE: Final = 0.025
"""Share of the rows after which the policy that always retrains does so again: 24 times after a first version from 40 % of them."""

_NOTHING: Final = {"schedule": "", "interval_s": None, "drift_rows_min": NEVER, "new_rows_min": NEVER}


def _always(_config: Config, rows: int) -> dict[str, Any]:
    each = max(1, int(ALWAYS_SHARE * rows))
    return {"schedule": "", "interval_s": 1.0, "cooldown_s": 0.0, "drift_rows_min": NEVER, "new_rows_min": each}


POLICIES: Final[dict[str, tuple[str, Callable[[Config, int], dict[str, Any]]]]] = {
    "frozen": ("the first version and no other", lambda _config, _rows: dict(_NOTHING)),
    "scheduled": ("by the schedule of the configuration alone", lambda _config, _rows: {"drift_rows_min": NEVER}),
    "on_drift": ("by drifts, and where the version is behind", lambda _config, _rows: {"schedule": "", "interval_s": None}),
    "always": (f"after each {ALWAYS_SHARE:.1%} of the rows", _always),
    "default": ("as configured: schedule, drifts, and where the version is behind", lambda _config, _rows: {}),
}
"""What each policy does, and the settings of `training` that it changes."""


def configured(policy: str, config: Config, rows: int) -> Config:
    """Return the configuration of a policy. config: of a replay. rows: of the recording."""
    changed = POLICIES[policy][1](config, rows)
    return config.model_copy(update={"training": config.training.model_copy(update=changed)})
