"""Drift to live: seconds from the alert until the new version makes forecasts, by part.

    make bench-drift_to_live        (or: python benchmarks/drift_to_live.py --quick)

A simulated fleet, one row a minute, flows through the daemon's own loop at full speed. 60 % of the links of one of its two regions are
re-routed for good. The first version is trained briefly, because it is not measured. The training that answers the drift has the defaults
of daemon.config.load. As in `dwcp-learner replay`, the stream waits for a training; the fleet would bring four rows a second meanwhile.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # for the training, which is a process of its own

from daemon.clock import StreamClock
from daemon.config.load import Config, TrainingSection
from daemon.operator.logs import configure_logging
from daemon.operator.observer import Observer
from daemon.wiring import Daemon, build, training_config
from harness import Bar, arguments, report, say
from streams.simulator.fleet import FleetSpec, Region
from streams.simulator.planted import PlantedEvent
from streams.simulator.source import SimulatorSource

REGIONS: Final = (Region("eu-1", 0.0), Region("us-1", -5.0))
LINKS_PER_REGION: Final = 120
DRIFT_AFTER_S: Final = 190 * 60.0
"""Event seconds before the drift: 84 minutes to 20,000 rows for the first version, an hour of calibration, and some quiet."""
DURATION_S: Final = 12 * 3600.0
"""Event seconds of the stream, far more than the story needs."""
FIRST_VERSION: Final = {"epochs": 4, "expert": {"epoch_windows_max": 4096}}
QUICK: Final = {"epochs": 6, "expert": {"epoch_windows_max": 2048, "recent_windows_max": 20_000, "replay_windows": 256}}
MOMENTS: Final = ("drift_opened", "training_due", "training_started", "training_finished", "model_published", "model_live")


@dataclass
class Story:
    """Events after the first version. seconds: monotonic time of each of MOMENTS. live: the new version forecast its first row."""

    drift_s: float
    first_version: str | None = None
    early_alerts: int = 0
    """Before the planted drift: not what is measured, and not answered."""
    seconds: dict[str, float] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    epochs: int = 0
    refused: str | None = None
    alert_after_s: float | None = None
    """Event time from the planted drift to the alert."""

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        if event in ("drift_opened", "drift_updated"):
            event = self._alert(event, fields)
        if event in ("model_refused", "training_failed", "publication_failed"):
            self.refused = f"{event}: {fields.get('reasons') or fields.get('problem')}"
        if self.first_version is None:
            if event == "model_live":
                self.first_version = fields["version"]
            return
        if event in MOMENTS and event not in self.seconds and (event == "drift_opened" or "drift_opened" in self.seconds):
            self.seconds[event], self.fields[event] = time.monotonic(), fields
            say(event)

    def _alert(self, event: str, fields: dict[str, Any]) -> str:
        """Return "drift_opened" for the alert of the planted drift, even if it enlarges an open incident, and "early" for others.

        An alert of a single link is not answered by a training.
        """
        if fields["event_time_s"] < self.drift_s or fields["region"] != REGIONS[0].name or fields["scope"] == "link":
            self.early_alerts += event == "drift_opened" and fields["event_time_s"] < self.drift_s
            return "early"
        if "drift_opened" not in self.seconds:
            say(f"alert: {fields['summary']}")
        return "drift_opened"


def spec() -> FleetSpec:
    base = FleetSpec(regions=REGIONS, links_per_region=LINKS_PER_REGION)
    event = PlantedEvent("reroute", base.start_s + DRIFT_AFTER_S, REGIONS[0].name, links_share=0.6, size_sd=3.0)
    return FleetSpec(regions=REGIONS, links_per_region=LINKS_PER_REGION, events=(event,))


def config(folder: Path, training: dict[str, Any]) -> Config:
    """Return the defaults, without a schedule and with all files in the folder."""
    return Config(
        events={"to": "file"},
        drift={"shed_above_lag": 2**62},
        training={"schedule": ""} | training,
        state={"directory": folder / "state"},
        models={"directory": folder / "models"},
        http={"enabled": False},
    )


def run(folder: Path, answer: dict[str, Any]) -> Story:
    """Run the stream. answer: changed settings of the training that answers the drift."""
    configure_logging("error", "json", sys.stderr)
    fleet = spec()
    story = Story(fleet.events[0].start_s)
    source = SimulatorSource(fleet, DURATION_S, DURATION_S, partitions=4)
    daemon = build(config(folder, FIRST_VERSION), source, StreamClock(), Observer(story.tell), wait_for_training=True)
    daemon.loop.on_step = lambda _polled: _follow(daemon, story, config(folder, answer))
    daemon.run()
    if "drift_opened" in story.fields:
        story.alert_after_s = story.fields["drift_opened"]["event_time_s"] - story.drift_s
    return story


def _follow(daemon: Daemon, story: Story, afterwards: Config) -> None:
    """Advance the story after each pass of the loop: set the defaults for the second training, and end the run."""
    loop, parts = daemon.loop, daemon.parts
    if story.first_version is not None and parts.training.config.settings != training_config(afterwards).settings:
        say(f"first version {story.first_version} is live")
        parts.training.reload(training_config(afterwards), afterwards.training.time_limit_s)
    memory = parts.training.memory
    if "drift_opened" not in story.seconds:
        memory.drift_at_rows = None
    elif "training_due" not in story.seconds and memory.drift_at_rows is None:
        memory.drift_at_rows = memory.rows
    running = parts.training.progress()
    if "drift_opened" in story.seconds and running is not None and running.progress is not None:
        story.epochs = max(story.epochs, running.progress.epoch or 0)
    live = story.fields.get("model_live")
    if live is not None and any(pipeline.monitored.version == live["version"] for pipeline in parts.group):
        story.seconds["forecasting"] = time.monotonic()
        loop.stop("the new version forecasts")
    elif story.refused is not None:
        loop.stop("there will be no new version")


def parts(story: Story) -> dict[str, float]:
    """Return wall seconds between the moments. The child's own stages come from its result."""
    at = story.seconds
    stages = dict(story.fields["training_finished"]["stage_s"])
    child_s = at["training_finished"] - at["training_started"]
    found = {
        "rows_for_training": at["training_due"] - at["drift_opened"],
        "checkpoint_and_snapshot": at["training_started"] - at["training_due"],
        "child_start_and_end": child_s - sum(stages.values()),
        "read": stages.pop("read", 0.0),
        "features": stages.pop("features", 0.0),
        "import_tensorflow": stages.pop("import", 0.0),
        "build": stages.pop("build", 0.0),
        "training_epochs": stages.pop("train", 0.0),
        "export": stages.pop("export", 0.0),
        "gate": stages.pop("gate", 0.0),
        "verification_and_publication": at["model_published"] - at["training_finished"],
        "swap": at["forecasting"] - at["model_published"],
    }
    return found | stages


def figures(story: Story, answer: dict[str, Any]) -> dict[str, Any]:
    """Return everything that could be measured."""
    training = TrainingSection(**answer).model_dump()
    settings = training | training["expert"]
    used = (
        "drift_rows_min",
        "epochs",
        "batch_size",
        "epoch_windows_max",
        "recent_windows_max",
        "replay_windows",
        "patience",
    )
    live = "forecasting" in story.seconds
    return {
        "links": len(REGIONS) * LINKS_PER_REGION,
        "settings": {name: settings[name] for name in used},
        "drift_to_live_s": story.seconds["forecasting"] - story.seconds["drift_opened"] if live else None,
        "parts_s": parts(story) if live else {},
        "epochs_trained": story.epochs,
        "windows": story.fields.get("training_finished", {}).get("windows", {}),
        "alert_after_the_drift_min": None if story.alert_after_s is None else story.alert_after_s / 60,
        "alerts_before_the_drift": story.early_alerts,
        "no_new_version_because": story.refused,
    }


def main() -> int:
    options = arguments(__doc__)
    answer = QUICK if options.quick else {}
    with tempfile.TemporaryDirectory(prefix="dwcp-bench-") as name:
        story = run(Path(name), answer)
    found = figures(story, answer)
    return report("drift_to_live", found, [Bar("drift_to_live_s", found["drift_to_live_s"], "<=", 120)])


if __name__ == "__main__":
    sys.exit(main())
