"""Kills: a daemon on Apache Kafka that is killed over and over, and what it has left, compared with the raw topic.

    make bench-kill        (or: python benchmarks/kill.py --quick, or --seed N --kills N)

Producers write steadily. The daemon dies by SIGKILL at random moments and between any two steps of checkpoint, seal, journal and
publication, and it ends by SIGTERM and SIGINT. Its training child is killed while it runs. At the end it reads the rest of the topic and is
checked twice (parts/consistency.py): every valid record is in the buffer exactly once, and state, alerts and buffer equal those of a daemon
that read the same topic and journal without a stop.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from harness import Bar, in_process, parser, report, say
from parts.consistency import buffered, compare, differing, read_topic, refused_of, replayed, rows_of
from parts.daemon_process import DaemonProcess, Home, Producer
from parts.stream import broker
from testkit import remains

PARTITIONS: Final = 4
LINKS: Final = 48
SPEED: Final = 480.0
"""Simulated seconds a second: 384 records."""
START_LIMIT_S: Final = 300.0
TRAINING_LIMIT_S: Final = 300.0
POINT_LIMIT_S: Final = 15.0
"""Seconds that a daemon has to reach its fault point. Afterwards it is killed anyway."""
FRACTION_S: Final = (0.1, 10.0)
"""Shortest and longest wait before a kill, evenly distributed in its logarithm."""

POINTS: Final = (
    ("before", "model.buffer.rows.BufferWriter.seal", 6),
    ("after", "model.buffer.rows.BufferWriter.seal", 6),
    ("before", "pathlib.Path.rename", 12),
    ("after", "pathlib.Path.rename", 12),
    ("after", "daemon.state.checkpoint.write_state", 12),
    ("before", "daemon.state.checkpoint.CheckpointStore._publish", 4),
    ("before", "daemon.state.checkpoint.CheckpointStore._clean", 4),
    ("after", "daemon.state.checkpoint.CheckpointStore._clean", 4),
    ("after", "daemon.state.checkpoint.drop_unnamed", 12),
    ("before", "daemon.state.checkpoint.compact", 2),
    ("after", "daemon.state.checkpoint.compact", 2),
    ("before", "daemon.ingest.journal.Journal.append", 3),
    ("after", "daemon.ingest.journal.Journal.append", 3),
    ("before", "streams.kafka.source.KafkaSource.commit", 3),
    ("after", "daemon.events.sinks.Sinks.flush", 4),
)
"""Places at which a daemon is killed: before or after one of the first calls, up to this number, of a function."""
PUBLICATION: Final = (
    ("before", "model.registry.versions.Registry.publish", 1),
    ("after", "model.registry.versions.Registry.publish", 1),
    ("before", "model.registry.current.Current.set", 1),
    ("before", "daemon.events.announcer.Announcer.version", 1),
    ("after", "daemon.events.announcer.Announcer.version", 1),
)
"""Points that only a life reaches in which a training ends."""


@dataclass(frozen=True)
class Plan:
    """Size of a run.

    Args:
        kills: at least.
        seed: of the moments.
        trainings: whether models are trained and published meanwhile. If not, a version must exist.
    """

    kills: int
    seed: int
    trainings: bool = True

    @property
    def topic(self) -> str:
        return f"kill.{self.seed}"

    def sections(self) -> dict[str, dict[str, Any]]:
        """Return the daemon's configuration, without what belongs to a run: small and frequent trainings, small segments."""
        never = 2**62
        return {
            "kafka": {"topic": self.topic, "group_id": self.topic},
            "drift": {"idle_s": 2.0, "watched_per_region": 10, "shed_above_lag": 2000},
            "state": {"checkpoint_interval_s": 0.5},
            "models": {"keep": 1000, "follow_interval_s": 0.2},
            "training": {
                "schedule": "", "rows_min": 4000 if self.trainings else never, "new_rows_min": 500 if self.trainings else never,
                "drift_rows_min": 500 if self.trainings else never, "cooldown_s": 0.0, "epochs": 1,
                "drift_time_budget_s": 1.0,
                "expert": {
                    "epoch_windows_max": 256, "recent_windows_max": 2000, "replay_windows": 0, "batch_size": 64, "gate_windows_min": 50,
                },
            },
        }  # fmt: skip


class Killer:
    """The lives of a daemon, one after the other."""

    def __init__(self, home: Home, plan: Plan) -> None:
        self.home, self.plan = home, plan
        self.deaths: Counter[str] = Counter()
        self.failures: list[str] = []
        self._random = random.Random(plan.seed)

    def run(self) -> None:
        """Kill until there were enough kills."""
        kinds = {"at any moment": 8, "once it is ready": 6, "point": 8, "SIGTERM": 3, "SIGINT": 3}
        kinds |= {"trainer": 2, "publication": 2} if self.plan.trainings else {}
        while (count := self.deaths.total()) < self.plan.kills and len(self.failures) < 5:
            (kind,) = self._random.choices(list(kinds), list(kinds.values()))
            self.live(kind)
            if count // 20 != self.deaths.total() // 20:
                say(f"{self.deaths.total()} kills")

    def live(self, kind: str) -> None:
        """Live once."""
        match kind:
            case "point":
                self._at_a_point(POINTS, POINT_LIMIT_S)
            case "publication":
                self._at_a_point(PUBLICATION, TRAINING_LIMIT_S)
            case "trainer":
                self._trainer()
            case "SIGTERM" | "SIGINT":
                with self.home.start() as process:
                    process.wait_for("daemon_ready", START_LIMIT_S)
                    self._wait()
                    self._end(kind, process.stop(kind), 0)
            case _:
                with self.home.start() as process:
                    if kind == "once it is ready":
                        process.wait_for("daemon_ready", START_LIMIT_S)
                    self._wait(process)
                    self._end(kind, process.kill(), -9)

    def _at_a_point(self, points: Sequence[tuple[str, str, int]], limit_s: float) -> None:
        when, function, most = self._random.choice(points)
        name = f"{when} {function}"
        with self.home.start({"death": {when: function, "call": self._random.randint(1, most)}}) as process:
            code = process.wait(limit_s)
            self._end(name if code is not None else f"not {name}", code if code is not None else process.kill(), 137, -9)

    def _trainer(self) -> None:
        """Kill the child. The daemon reports it and goes on; then it is killed as well."""
        with self.home.start() as process:
            if (child := process.training_child(TRAINING_LIMIT_S)) is None:
                self._end("once it is ready", process.kill(), -9)
                return
            self._wait()
            child.kill()
            if process.wait_for("training_failed", START_LIMIT_S, or_else="training_finished") == "training_failed":
                self.deaths["the training child"] += 1
            self._end("after its training child", process.kill(), -9)

    def _wait(self, process: DaemonProcess | None = None) -> None:
        """Wait for a random time, or until the process has ended."""
        low, high = FRACTION_S
        wait_s = low * (high / low) ** self._random.random()
        if process is None:
            time.sleep(wait_s)
        else:
            process.wait(wait_s)

    def _end(self, name: str, code: int, *expected: int) -> None:
        self.deaths[name] += 1
        if code not in expected:
            self.failures.append(f"{name}: exit code {code}")
            say(f"{self.failures[-1]}\n{self.home.last_words()}")


def measure(bootstrap: str, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the figures of a plan. folder: the daemon's; models/ in it may hold a version."""
    topic, sections = plan.topic, plan.sections()
    names = {"drift_topic": f"{topic}.drift", "models_topic": f"{topic}.models", "dead_letter_topic": f"{topic}.dlq"}
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1), *(NewTopic(name, 1, 1) for name in names.values())])
    admin.close()
    kafka = sections["kafka"] | {"bootstrap_servers": bootstrap}
    home = Home(folder, sections | {"kafka": kafka, "events": names | {"to": "both"}})
    killer = Killer(home, plan)
    with Producer(
        {"bootstrap": bootstrap, "topic": topic, "partitions": PARTITIONS, "links": LINKS, "speed": SPEED, "quiet": True}
    ) as producer:
        killer.run()
        sent = producer.end()
    raw = read_topic(bootstrap, topic)
    home.take_the_rest({partition: len(values) for partition, values in raw.items()}, START_LIMIT_S)
    return checked(home, plan, raw, sent) | {
        "kills": killer.deaths.total(), "deaths": dict(sorted(killer.deaths.items())), "failures": len(killer.failures), "seed": plan.seed,
    }  # fmt: skip


def checked(home: Home, plan: Plan, raw: Any, sent: int) -> dict[str, Any]:
    """Compare what was left with the raw topic and with an undisturbed daemon."""
    rows = rows_of(raw)
    difference = compare(rows, buffered(home.state))
    left = remains.outcome(home.folder)
    with tempfile.TemporaryDirectory(prefix="dwcp-reference-") as name:
        names = differing(left, replayed(raw, home.folder, Path(name), plan.sections()))
    buried = {(event["data"]["partition"], event["data"]["offset"]) for event in home.events("dead_letters")}
    unburied = refused_of(raw) ^ buried
    for line in [*difference.examples, *names, *(f"dead letter {number}:{offset}" for number, offset in sorted(unburied)[:3])]:
        say(line)
    records = sum(map(len, raw.values()))
    return {
        "records": records,
        "rows": len(rows),
        "alerts": len(left.alerts),
        "versions": len({event["data"]["version"] for event in home.events("models")}),
        "dead_letters": len(buried),
        "journal_entries": dict(Counter(type(entry).__name__ for entry in remains.journal(home.folder))),
        "unacknowledged": sent - records,
        "lost": difference.lost + len(unburied),
        "duplicated": difference.duplicated + difference.unexpected,
        "different": len(names),
    }


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=int(time.time()), help="of what is killed when (default: the time); it is printed")
    given = options.parse_args()
    plan = Plan(12 if given.quick else given.kills, given.seed, trainings=not given.quick)
    with broker() as kafka, tempfile.TemporaryDirectory(prefix="dwcp-kill-") as folder:
        if not plan.trainings:
            in_process("parts.version", {"models": f"{folder}/models"})
        began_s = time.monotonic()
        figures = measure(kafka.bootstrap, plan, Path(folder))
        figures["minutes"] = (time.monotonic() - began_s) / 60
    bars = [
        Bar("kills", figures["kills"], ">=", 200),
        *(Bar(name, figures[name], "<=", 0) for name in ("lost", "duplicated", "different", "failures")),
    ]
    return report("kill", figures, bars)


if __name__ == "__main__":
    sys.exit(main())
