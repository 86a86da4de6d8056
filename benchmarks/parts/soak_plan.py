"""The plan of a soak: the fleet with its events of the week, and the daemon's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon.config.load import Config, FixedConfig
from parts.stream import REGIONS
from streams.simulator.fleet import DEFAULT_START_S, FleetSpec
from streams.simulator.planted import PlantedEvent

DAY_H: Final = 24
REROUTE_H: Final = (8, 10)
"""Hours of each day between which a region is re-routed: an incident opens, grows and closes."""
IDLE_S: Final = 2.0
"""Real seconds, less than the daemon reads during the two hours in which a partition is silent (see parts.soak_stream)."""
START_S: Final = DEFAULT_START_S
ARCHITECTURE: Final = {"lstm_units": [8], "lstm_dropout": [0.2], "dense_units": [8], "dense_dropout": [0.2], "head_units": 8}
"""The smallest possible one: the quality of trainings is not measured."""
SEED_ROWS: Final = 7 * DAY_H * 60
"""Rows, a week, for the scales of the first version, which is untrained and of another architecture; later versions keep them.

Scales of an hour know nothing of an evening: forecasts would be so wrong by then that the export refuses them.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """One soak: the first `hours` of a simulated week.

    Args:
        links: of the fleet.
        interval_s: between two rows of a link.
        hours: simulated.
        training_every_h: hours between trainings.
        rows_max: rows of the buffer; small enough that it is full early.
        keep: versions that are kept; the same.
        refusing_h: hours of a day between which trainings end without a candidate, because they ask for more windows than there are. A
            model that lives for an hour sees no drift, because its detectors calibrate that long. At both hours the configuration is read
            again, as after SIGHUP.
    """

    links: int
    interval_s: float
    hours: int
    training_every_h: int
    rows_max: int
    keep: int = 5
    refusing_h: tuple[int, int] = (5, 11)

    @property
    def rows_per_hour(self) -> int:
        return int(self.links * 3600 / self.interval_s)

    @property
    def poll_records(self) -> int:
        """Most records of a poll: three minutes of the fleet, so that no hour passes without a sample."""
        return min(5000, self.rows_per_hour // 20)

    @property
    def trainings(self) -> int:
        """Number of trainings that become due. The last boundary is the end of the stream."""
        return self.hours // self.training_every_h - 1

    def fleet(self) -> FleetSpec:
        """Return an imperfect fleet: holes, gaps, late and repeated records, and a region that drifts every day."""
        days = range(-(-self.hours // DAY_H))
        first, last = REROUTE_H
        events = tuple(
            PlantedEvent(
                "reroute", START_S + 3600.0 * (DAY_H * day + first), REGIONS[day % len(REGIONS)].name, 3600.0 * (last - first), 0.6
            )
            for day in days
        )
        return FleetSpec(regions=REGIONS, links_per_region=self.links // len(REGIONS), interval_s=self.interval_s, events=events)

    def config(self, folder: Path, hour: int = 0) -> Config:
        """Return the configuration from an hour on.

        Trainings are as small as in benchmarks/kill.py, with a checkpoint every second: an hour of the week takes some 20 s.
        """
        first, last = self.refusing_h
        gate_windows_min = 2**31 if first <= hour % DAY_H < last else 50
        return FixedConfig(
            kafka={"topic": "simulator"},
            events={"to": "file"},
            drift={"watched_per_region": 25, "idle_s": IDLE_S, "shed_above_lag": 2**62},
            buffer={"rows_max": self.rows_max},
            training={
                "schedule": "", "new_rows_min": 1, "drift_rows_min": self.rows_per_hour // 10,
                "cooldown_s": 0.0, "epochs": 1, "drift_time_budget_s": 1.0, "threads": 1,
                "expert": {
                    "epoch_windows_max": 256, "recent_windows_max": 2000, "replay_windows": 0, "batch_size": 64,
                    "gate_windows_min": gate_windows_min,
                },
            },
            state={"directory": folder / "state", "checkpoint_interval_s": 1.0},
            models={"directory": folder / "models", "keep": self.keep, "follow_interval_s": 0.2},
            http={"port": 0},
        )  # fmt: skip
