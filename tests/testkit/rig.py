"""A daemon of real parts over a scripted source, run in a process of its own that can be killed at any point."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from daemon.clock import Clock, StreamClock
from daemon.config.load import Config
from daemon.errors import DaemonError
from daemon.operator.observer import Observer
from daemon.wiring import Daemon, build
from testkit.killing import in_child
from testkit.remains import Outcome, outcome
from testkit.scripted import ScriptedSource

FIRST: Final = "v20260101_000000"
"""The version that is live from the start."""


def config(folder: Path, **sections: dict[str, Any]) -> Config:
    """Return a configuration with all files under `folder`, checkpoints as often as possible and no training. sections: changes."""
    made: dict[str, dict[str, Any]] = {
        "events": {"to": "file"},
        "training": {"schedule": "", "rows_min": 2**62, "drift_rows_min": 2**62},
        "drift": {"idle_s": 2**40, "watched_per_region": 5},
        "state": {"directory": folder / "state", "checkpoint_interval_s": 1e-6},
        "models": {"directory": folder / "models", "follow_interval_s": 1e-6},
        "http": {"enabled": False},
        "log": {"format": "json"},
    }
    for section, values in sections.items():
        made[section] = made.get(section, {}) | values
    return Config(**made)  # type: ignore[arg-type]


def daemon_over(source: ScriptedSource, configuration: Config, clock: Clock | None = None) -> Daemon:
    """Build a daemon whose partitions become idle by the clock of its source.

    It starts a checkpoint in every pass, and the next batch waits until the one before is written.
    """
    made = build(configuration, source, clock or StreamClock(), Observer())
    made.parts.group.decisions._monotonic_s = source.clock
    before = source.on_poll

    def on_poll(source: ScriptedSource) -> None:
        running = made.parts.keeper._running
        if running is not None:
            running[1].exception()
        before(source)

    source.on_poll = on_poll
    return made


def run(
    home: Path,
    *,
    prepare: Callable[[], None] = lambda: None,
    idle_s: float = 2**40,
    sections: dict[str, dict[str, Any]] | None = None,
    **script: Any,
) -> int:
    """Run a daemon over the stream in a process of its own.

    Args:
        home: folder for state, models and log.
        prepare: called in the process before anything is built.
        idle_s: idle time of partitions, in polls.
        sections: changes of the configuration.
        script: arguments of ScriptedSource.

    Returns:
        The exit code.
    """

    def inside() -> None:
        prepare()
        made = config(home, **({"drift": {"idle_s": idle_s}} | (sections or {})))
        try:
            daemon_over(ScriptedSource(**({"seed": 1, "batch_max": 100} | script)), made).run()
        except DaemonError as error:
            print(json.dumps({"event": "ended", "problem": str(error)}))
            raise SystemExit(error.exit_code) from error

    return in_child(inside, home / "log")


def outcome_after(home: Path, **script: Any) -> Outcome:
    """Run to the end of the stream and return what is left. Raises AssertionError if the run fails."""
    assert run(home, **script) == 0, (home / "log").read_text()
    return outcome(home)
