"""Rebalances: daemons of one group come and go while records flow, and each partition's state moves with it.

    make bench-rebalance        (or: python benchmarks/rebalance.py --quick, or --seed N --moves N)

Three members share a state directory. At random they are killed, stopped and started again. They are also frozen, or cut off from the
broker, for longer than their session. Such a member returns with a state that another one has advanced, and the group's generation keeps it
from writing. Each trains and publishes meanwhile, and every fourth move waits for a training. At the end every valid record is exactly once
in the buffers of all members, and the features of each partition equal those of one daemon that read the topic without a stop, byte for
byte.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from harness import Bar, parser, report, say
from parts.cable import Cable
from parts.consistency import buffered, compare, read_topic, replayed, rows_of
from parts.daemon_process import DaemonProcess, Home, Producer
from parts.stream import broker
from testkit import remains

MEMBERS: Final = ("a", "b", "c")
PARTITIONS: Final = 6
LINKS: Final = 48
SPEED: Final = 480.0
SESSION_S: Final = 6.0
"""Session time-out: the shortest that a broker allows by default."""
GONE_S: Final = SESSION_S + 3.0
LIMIT_S: Final = 180.0
TRAINING_LIMIT_S: Final = 60.0
NEVER: Final = 2**62


class Group:
    """The members of a group, alive or not, each with a network of its own to the broker."""

    def __init__(self, homes: dict[str, Home], cables: dict[str, Cable], seed: int) -> None:
        self.homes, self.cables = homes, cables
        self.alive: dict[str, DaemonProcess] = {}
        self.moves: Counter[str] = Counter()
        self.moves_in_training = 0
        self.failures: list[str] = []
        self._random = random.Random(seed)

    def move(self) -> None:
        """Let one member come, go, or be away for a while."""
        name = self._random.choice(MEMBERS)
        if self._random.random() < 0.25:
            name = self.await_training(TRAINING_LIMIT_S) or name
        verb = self._random.choice((self.kill, self.stop, self.freeze, self.cut)) if name in self.alive else self.start
        verb(name)
        time.sleep(self._random.uniform(0.2, 8.0))

    def await_training(self, limit_s: float) -> str | None:
        """Return the first member that has a training running; None if none has in time."""
        until_s = time.monotonic() + limit_s
        while self.alive and time.monotonic() < until_s:
            for name, process in self.alive.items():
                if process.training_child(0.1) is not None:
                    self.moves_in_training += 1
                    return name
        return None

    def start(self, name: str) -> None:
        self.alive[name] = self.homes[name].start()
        self.moves["started"] += 1

    def kill(self, name: str) -> None:
        self.alive.pop(name).kill()
        self.moves["killed"] += 1

    def stop(self, name: str) -> None:
        process = self.alive.pop(name)
        begun = process.reported("daemon_started") is not None  # before that, Python itself obeys the signal
        if (code := process.stop("SIGTERM")) != 0 and begun:
            self.failures.append(f"exit code {code} after SIGTERM")
        self.moves["stopped"] += 1

    def freeze(self, name: str) -> None:
        """Freeze a member for longer than its session: the others have its partitions when it returns."""
        self.alive[name].freeze()
        self._be_gone(name)
        self.alive[name].thaw()
        self.moves["frozen"] += 1

    def cut(self, name: str) -> None:
        """Cut a member's network for longer than its session, while it runs."""
        self.cables[name].cut()
        self._be_gone(name)
        self.cables[name].mend()
        self.moves["cut off"] += 1

    def _be_gone(self, name: str) -> None:
        """Wait longer than a session, and until the others, if any, have all partitions: a busy broker is late to notice."""
        time.sleep(GONE_S)
        until_s = time.monotonic() + LIMIT_S
        while time.monotonic() < until_s:
            others = [process for other, process in self.alive.items() if other != name and process.wait(0.0) is None]
            if not others or sum(len(process.held()) for process in others) >= PARTITIONS:
                return
            time.sleep(0.2)

    def kill_all(self) -> None:
        """Kill all members that are left after a failure."""
        for process in self.alive.values():
            process.kill()

    def end(self) -> None:
        """Stop all members in order. Those that have ended by themselves are failures."""
        for name in list(self.alive):
            if (code := self.alive[name].wait(0.0)) is not None:
                self.failures.append(f"exit code {code}: {self.homes[name].last_words()}")
            self.alive.pop(name).stop("SIGTERM")


def at_random(count: int) -> Callable[[Group], None]:
    """Return `count` random moves."""

    def move(group: Group) -> None:
        while group.moves.total() < count:
            group.move()
            if group.moves.total() % 20 == 0:
                say(f"{group.moves.total()} moves")

    return move


def sections(bootstrap: str, topic: str) -> dict[str, dict[str, Any]]:
    """Return the configuration: small and frequent trainings.

    Features are compared, because forecasts depend on when a model went live at each member.
    """
    return {
        "kafka": {"bootstrap_servers": bootstrap, "topic": topic, "group_id": topic},
        "kafka.options": {"session_timeout_ms": int(SESSION_S * 1000)},
        "events": {"to": "file"},
        "state": {"checkpoint_interval_s": 1.0},
        "training": {
            "schedule": "", "rows_min": 1500, "new_rows_min": 500, "drift_rows_min": NEVER, "cooldown_s": 0.0, "epochs": 1,
            "expert": {
                "epoch_windows_max": 256, "recent_windows_max": 2000, "replay_windows": 0, "batch_size": 64, "gate_windows_min": 50,
            },
        },
    }  # fmt: skip


def measure(bootstrap: str, moves: Callable[[Group], None], seed: int, folder: Path) -> dict[str, Any]:
    """Return the figures of a group after its moves, with a producer that writes meanwhile."""
    (folder / "shared").mkdir()
    topic = f"rebalance.{seed}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    admin.close()
    settings = sections(bootstrap, topic)
    homes = {}
    stream = {"bootstrap": bootstrap, "topic": topic, "partitions": PARTITIONS, "links": LINKS, "speed": SPEED, "quiet": False}
    with ExitStack() as stack:
        cables = {name: stack.enter_context(Cable()) for name in MEMBERS}
        for name, cable in cables.items():
            events = {"events": settings["events"] | {"folder": str(folder / name / "events")}}
            options = {"kafka.options": settings["kafka.options"] | {"socks5_proxy": cable.url}}
            homes[name] = Home(folder / name, settings | events | options, member=name, shared=folder / "shared")
        group = Group(homes, cables, seed)
        stack.callback(group.kill_all)
        producer = stack.enter_context(Producer(stream))
        moves(group)
        producer.end()
        group.end()
    raw = read_topic(bootstrap, topic)
    last = Home(folder / "last", settings | {"events": {"to": "file"}}, member="a", shared=folder / "shared")
    last.take_the_rest({partition: len(values) for partition, values in raw.items()}, LIMIT_S)
    rows = rows_of(raw)
    difference = compare(rows, buffered(folder / "shared" / "state"))
    different = differing_features(raw, folder)
    for line in [*difference.examples, *different, *group.failures]:
        say(line)
    names = [event for home in homes.values() for event in home.all_reported()]
    return {
        "moves": group.moves.total(),
        "moves_in_training": group.moves_in_training,
        "kinds": dict(sorted(group.moves.items())),
        "seed": seed,
        "records": sum(map(len, raw.values())),
        "rows": len(rows),
        "handed_over": names.count("partition_released"),
        "taken_away": names.count("partition_lost"),
        "fenced": names.count("checkpoint_failed"),
        "assigned": names.count("partition_assigned"),
        "trainings": names.count("training_started"),
        "published": names.count("model_published"),
        "lost": difference.lost,
        "duplicated": difference.duplicated + difference.unexpected,
        "different": len(different),
        "failures": len(group.failures),
    }


def differing_features(raw: Any, folder: Path) -> list[str]:
    """Return the names of features that differ between each partition's newest state and that of an undisturbed daemon."""
    reference = folder / "reference"
    shared = folder / "shared"
    (shared / "models").mkdir(exist_ok=True)
    (shared / "state" / "journal-main.ndjson").touch()  # without a model the clock decides nothing that features depend on
    replayed(raw, shared, reference, {})
    wanted, found = remains.newest_parts(reference / "state"), remains.newest_parts(shared / "state")
    names = []
    for partition, part in wanted.items():
        for name, content in part.items():
            if (name.startswith("store_") or name in ("keys", "values", "rows")) and found[partition].get(name) != content:
                names.append(f"{partition} {name}")
    return names


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--moves", type=int, default=100)
    options.add_argument("--seed", type=int, default=int(time.time()), help="of who comes and goes when (default: the time)")
    given = options.parse_args()
    with broker() as kafka, tempfile.TemporaryDirectory(prefix="dwcp-rebalance-") as name:
        figures = measure(kafka.bootstrap, at_random(12 if given.quick else given.moves), given.seed, Path(name))
    nothing = ("lost", "duplicated", "different", "failures")
    return report(
        "rebalance", figures, [Bar("moves", figures["moves"], ">=", 100), *(Bar(name, figures[name], "<=", 0) for name in nothing)]
    )


if __name__ == "__main__":
    sys.exit(main())
