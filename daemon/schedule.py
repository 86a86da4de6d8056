"""The schedule: APScheduler only marks training as due; whether it starts is decided in triggers.py."""

from __future__ import annotations

import threading

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from daemon.cron import cron_trigger


class Schedule:
    """Marks training as due by cron (UTC), by interval, or both."""

    def __init__(self, cron: str, interval_s: float | None) -> None:
        """cron: five fields, empty for none; ValueError where it is not valid."""
        self._due = threading.Event()
        self._scheduler = BackgroundScheduler(timezone="UTC", daemon=True)
        self.change(cron, interval_s)

    @property
    def due(self) -> bool:
        return self._due.is_set()

    def change(self, cron: str, interval_s: float | None) -> None:
        """Replaces the jobs (SIGHUP)."""
        triggers: list[BaseTrigger] = [cron_trigger(cron)] if cron else []
        if interval_s is not None:
            triggers.append(IntervalTrigger(seconds=interval_s, timezone="UTC"))
        self._scheduler.remove_all_jobs()
        for trigger in triggers:
            self._scheduler.add_job(self._due.set, trigger, coalesce=True, misfire_grace_time=None)

    def start(self) -> None:
        self._scheduler.start()

    def answered(self) -> None:
        """A training has started: due no longer."""
        self._due.clear()

    def close(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
