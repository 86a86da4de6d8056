"""Reload of the configuration (SIGHUP): the changes that apply while the daemon runs, and those that need a restart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from daemon.config.load import Config
from daemon.operator.observer import Observer
from daemon.wiring import Daemon, training_config

CHANGEABLE: Final[dict[str, frozenset[str] | None]] = {
    "training": None,
    "forecast": None,
    "buffer": None,
    "state": frozenset({"checkpoint_interval_s"}),
    "models": frozenset({"keep"}),
}
"""Keys that change at once, by section; None: all of the section. Any other key needs a restart."""


def reloader(daemon: Daemon, config: Config, load: Callable[[], Config], observer: Observer) -> Callable[[], None]:
    """Return the function that SIGHUP calls. It raises ConfigError, and changes nothing, if the new configuration is not valid.

    Args:
        config: configuration that the daemon was started with.
        load: returns the new one.
    """

    def apply() -> None:
        new = load()
        training = training_config(new)  # first: a calendar file that it names may be damaged
        parts, store = daemon.parts, daemon.parts.keeper.store
        restart = needs_restart(config, new)
        local_time = parts.training.config.local_time
        if training.local_time != local_time and "local_time" not in restart:  # a calendar file has other days
            restart.append("local_time")
        daemon.schedule.change(new.training.schedule, new.training.interval_s)
        # Forecasts use the gap and the local time of the start; trainings must use the same.
        training = replace(training, gap_multiple=config.links.gap_multiple, local_time=local_time)
        parts.training.reload(training, new.training.time_limit_s)
        parts.keeper.interval_s = new.state.checkpoint_interval_s
        parts.pressure.open_rows_max = new.buffer.open_rows_max
        store.rows_max, store.age_max_s = new.buffer.rows_max, new.buffer.age_max_s
        observer.emit("config_reloaded", needs_restart=restart)

    return apply


def needs_restart(running: Config, new: Config) -> list[str]:
    """Return the sections with a changed key that cannot change while the daemon runs."""
    return [section for section in Config.model_fields if _fixed(running, section) != _fixed(new, section)]


def _fixed(config: Config, section: str) -> dict[str, Any]:
    changeable = CHANGEABLE.get(section, frozenset())
    values: dict[str, Any] = getattr(config, section).model_dump()
    return {} if changeable is None else {key: value for key, value in values.items() if key not in changeable}
