"""Never silent: whatever keeps the daemon from its work changes /readyz or /livez, with what it is and what to do, and back.

The daemon is the real one, as a process. Its faults come from testkit.faulty or from signals. Time limits, which are constants of the
daemon, are short here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from kafka import KafkaProducer

from testkit.running import Running
from testkit.waiting import wait_for

WATCHDOG_S: Final = 2.0
HOPELESS_HERE: Final = 2
START_S: Final = 1_767_571_200


class Trial:
    """A running daemon, the service manager's end of its socket, and a producer to its topic."""

    def __init__(self, daemon: Any, listening: socket.socket, producer: KafkaProducer, topic: str, folder: Path) -> None:
        self.daemon, self.folder = daemon, folder
        self._listening, self._producer, self._topic, self._sent = listening, producer, topic, 0

    def send(self, records: int) -> None:
        for _ in range(records):
            self._sent += 1
            self._producer.send(self._topic, record(self._sent))
        self._producer.flush()

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Switch a fault on, and off again in any case, so that later tests are not affected."""
        (self.folder / name).touch()
        try:
            yield
        finally:
            (self.folder / name).unlink()

    def fed(self) -> int:
        """Return how often the watchdog was fed since the last call."""
        count = 0
        while True:
            try:
                count += self._listening.recv(4096) == b"WATCHDOG=1"
            except BlockingIOError:
                return count

    def taken(self) -> bool:
        return f'dwcp_records_total{{outcome="consumed"}} {self._sent}.0' in self.daemon.get("/metrics")[1]

    def says(self, path: str, text: str) -> Any:
        """Wait, while records come, until the address returns 503 with the reason."""

        def answer() -> str | None:
            self.send(1)
            status, why = self.daemon.get(path)
            return str(why) if status == 503 and text in why else None

        return self.daemon.until(answer)

    def well(self) -> None:
        """Wait until everything is well again and reported as such: events, gauges and the watchdog."""
        self.daemon.until(lambda: self.daemon.get("/readyz") == (200, "ok\n"))
        self.daemon.until(self.taken)
        self.daemon.until(lambda: self.daemon.get("/livez") == (200, "ok\n"))
        self.fed()
        self.daemon.until(self.fed)
        self.daemon.until(lambda: "dwcp_ready 1.0" in self.daemon.get("/metrics")[1])


def record(second: int) -> bytes:
    return json.dumps({"timestamp": START_S + second, "node_id": "a", "peer_id": "b", "rtt_ms": 1.0 + second % 7}).encode()


FAULTY: Final = {
    "constants": {
        "daemon.operator.health.STALLED_S": 1.0,
        "daemon.operator.health.HOPELESS": HOPELESS_HERE,
        "daemon.operator.health.CHECKPOINT_S": 1.0,
        "daemon.state.keeper.RETRY_S": 0.5,
        "streams.kafka.lag.ASK_AFTER_S": 0.5,
        "streams.kafka.lag.LOOKUP_EVERY_S": 0.5,
    },
    "faults": {
        "os.fsync": {"does": "hang", "thread": "checkpoint", "while": "hanging disk"},
        "model.registry.current.Current.standing": {"does": "hang", "while": "hanging models folder"},
        "daemon.state.checkpoint.write_state": {"does": "refuse", "while": "full disk"},
        "kafka.KafkaConsumer.poll": {"does": "hang", "while": "hanging client"},
        "kafka.KafkaConsumer._poll_once": {"does": "nothing", "while": "no records"},
    },
}


@contextmanager
def faulty_daemon(kafka: str, topic: str, folder: Path) -> Iterator[Trial]:
    """A daemon that is ready and has begun to read records."""
    faults = FAULTY | {"faults": {name: fault | {"while": str(folder / fault["while"])} for name, fault in FAULTY["faults"].items()}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening, pytest.MonkeyPatch.context() as environment:
        listening.bind(str(folder / "notify"))
        listening.setblocking(False)
        environment.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        environment.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
        more = "[state]\ncheckpoint_interval_s = 0.2\n[buffer]\nopen_rows_max = 40\n[training]\nschedule = ''\n"
        daemon = Running(folder, kafka, faults=faults, topic=topic, more=more, kafka_more=f"group_id = '{topic}'")
        producer = KafkaProducer(bootstrap_servers=kafka)
        try:
            daemon.until(lambda: daemon.reported("daemon_ready"))
            made = Trial(daemon, listening, producer, topic, folder)
            made.send(5)
            yield made
        finally:
            daemon.kill()
            producer.close()


@pytest.fixture(scope="module")
def faulty_daemons(
    kafka_broker: str, kafka_admin: Any, tmp_path_factory: pytest.TempPathFactory, renewed: Callable[..., Any]
) -> Iterator[Any]:
    def start() -> Any:
        folder, topic = tmp_path_factory.mktemp("silent"), f"silent.{os.getpid()}.{time.monotonic_ns()}"
        kafka_admin.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
        return faulty_daemon(kafka_broker, topic, folder)

    with renewed(start) as daemons:
        yield daemons


@pytest.fixture
def trial(faulty_daemons: Any, request: pytest.FixtureRequest) -> Iterator[Trial]:
    """One daemon for all faults, which a test switches on and off. A new one after a test that failed or has ended it."""
    with faulty_daemons.of(request.node, lambda trial: trial.daemon.process.poll() is None) as trial:
        yield trial


FAULTS: Final = {
    "hanging disk": ("/readyz", "a checkpoint has been written for", "see that the disk of state.directory answers"),
    "full disk": ("/readyz", "the state cannot be written: [Errno 28] No space left on device", "free space on the disk"),
    "no records": ("/readyz", "no record was read for", "see the log of the broker that leads the topic's partitions"),
    "hanging models folder": ("/livez", "the loop hangs", "restart the daemon, nothing is lost"),
    "hanging client": ("/livez", "the thread of the source hangs", "restart the daemon, nothing is lost"),
}


def lasts_hopelessly_long(why: str) -> bool:
    """Return whether an answer asks for a restart. On a slow machine that may be so at the first look."""
    lasted = [int(seconds) for seconds in re.findall(r" for (\d+) s", why)]
    return max(lasted, default=0) >= HOPELESS_HERE * WATCHDOG_S


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_and_its_end_too(trial: Trial, fault: str) -> None:
    """Records come, and a fault keeps the daemon from its work: answer, gauge and event name it, and what to do.

    After its end all is well again without a restart, and no record is missing.
    """
    path, what, remedy = FAULTS[fault]
    trial.well()
    before = len(trial.daemon.reported("daemon_not_ready"))
    with trial.fault(fault):
        why = trial.says(path, what)
        assert remedy in why
        assert trial.daemon.get("/readyz")[0] == 503, "what does not live is not ready either"
        assert "dwcp_ready 0.0" in trial.daemon.get("/metrics")[1]
        if path == "/livez":
            assert "dwcp_live 0.0" in trial.daemon.get("/metrics")[1]
        else:
            assert "restart the daemon" not in why or lasts_hopelessly_long(why)
        if what != "the loop hangs":  # which tells nothing any more: for that there are probe, gauge and watchdog
            trial.daemon.until(lambda: trial.daemon.reported("daemon_not_ready")[before:])
            trial.daemon.until(lambda: what in str(trial.daemon.reported("daemon_not_ready")[before:]))
    trial.well()
    trial.daemon.until(lambda: len(trial.daemon.reported("daemon_ready_again")) == len(trial.daemon.reported("daemon_not_ready")))


def test_a_disk_that_hangs_until_the_memory_is_full(trial: Trial) -> None:
    """The source is paused then, and empty polls are no progress while records wait.

    At last a restart is asked for, and the watchdog is not fed any more. After the hang everything is read, once.
    """
    trial.well()
    with trial.fault("hanging disk"):
        trial.send(200)
        trial.says("/readyz", "the source is paused until open rows and events are written")
        assert "no record was read for" in trial.daemon.get("/readyz")[1]
        assert trial.daemon.reported("source_paused")
        trial.says("/livez", "nothing becomes durable")
        trial.fed()
        threading.Event().wait(WATCHDOG_S)  # three feeds, if there are any
        assert trial.fed() == 0
    trial.well()


def test_what_cannot_be_mended_by_a_restart_does_not_ask_for_one(trial: Trial) -> None:
    """A full disk is reported while it lasts, and the watchdog is fed: the daemon goes on by itself when there is space."""
    trial.well()
    with trial.fault("full disk"):
        trial.send(200)
        trial.says("/readyz", "the source is paused")
        trial.daemon.until(lambda: trial.daemon.reported("checkpoint_failed")[5:])
        assert "the source is paused" in trial.daemon.get("/readyz")[1], "an attempt makes no room: memory would grow with each"
        threading.Event().wait(HOPELESS_HERE * WATCHDOG_S)
        trial.daemon.until(lambda: trial.daemon.get("/livez")[0] == 200)  # a busy machine may stop the loop for so long, a full disk never
    trial.well()


def test_a_disk_that_hangs_does_not_hold_up_the_end(trial: Trial) -> None:
    """SIGTERM while a checkpoint hangs: the process ends, and reports by message and exit code that the state was not written."""
    trial.well()
    with trial.fault("hanging disk"):
        trial.says("/readyz", "nothing becomes durable")
        assert trial.daemon.stop() == 4
    failed = trial.daemon.reported("checkpoint_failed")[-1]
    assert "the disk does not answer" in failed["problem"]
    assert "disk of the state directory" in failed["remedy"]
    assert trial.daemon.reported("daemon_stopped")


def test_a_server_that_takes_connections_and_never_answers(run: Callable[..., Any]) -> None:
    """A port with another server, or a broker that hangs: the daemon is alive, not ready, and names the server."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        daemon = run(address)
        daemon.until(lambda: daemon.reported("kafka_unreachable"))
        said = f"{address} accepts connections and does not answer"
        why = daemon.until(lambda: (answer := daemon.get("/readyz"))[0] == 503 and said in answer[1] and answer[1])
        assert why.startswith("the source is not connected: ")
        assert daemon.reported("kafka_unreachable")[0]["servers"] == address
        assert daemon.get("/livez") == (200, "ok\n"), "no restart mends it"
        assert "dwcp_lag_records NaN" in daemon.get("/metrics")[1], "unknown, and not 0"
        assert daemon.stop() == 0


def test_a_broker_that_stops_answering(kafka_module: ModuleType, run: Callable[..., Any]) -> None:
    """Its connections stay open. The stop shows, and so does the return, without a restart.

    If the stop outlasts the session, the group has reassigned the partitions. What no checkpoint held is read again, and is in the buffer
    once.
    """
    with kafka_module.Broker() as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
        producer.send("dwcp.telemetry", record(0)).get(60)
        options = "[kafka.options]\nrequest_timeout_ms = 4000\nsession_timeout_ms = 6000\nheartbeat_interval_ms = 500\n"
        options += "[state]\ncheckpoint_interval_s = 0.2\n"
        daemon = run(broker.bootstrap, more=options)
        daemon.until(lambda: daemon.reported("daemon_ready"))
        daemon.until(lambda: "dwcp_buffer_rows 1.0" in daemon.get("/metrics")[1])
        daemon.until(lambda: daemon.get("/readyz") == (200, "ok\n"))
        os.kill(broker._process.pid, signal.SIGSTOP)
        daemon.until(lambda: daemon.get("/readyz")[0] == 503)
        assert daemon.get("/livez")[0] == 200
        daemon.until(lambda: daemon.reported("kafka_unreachable"))
        os.kill(broker._process.pid, signal.SIGCONT)
        producer.send("dwcp.telemetry", record(1)).get(60)
        daemon.until(lambda: "dwcp_buffer_rows 2.0" in daemon.get("/metrics")[1])
        daemon.until(lambda: daemon.get("/readyz") == (200, "ok\n"))
        assert daemon.stop() == 0
        assert daemon.reported("daemon_stopped")[0]["rows"] == 2
        producer.close()


def child_of(daemon: Any) -> int:
    """Return the training child when the kernel knows that it ends with the daemon."""
    of = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
    child = int(daemon.until(lambda: of.read_text().split())[0])
    own = os.getpriority(os.PRIO_PROCESS, daemon.process.pid)
    daemon.until(lambda: os.getpriority(os.PRIO_PROCESS, child) > own)  # what it does next
    return child


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # dead, and its new parent has not looked yet
    except FileNotFoundError:
        return True


def test_a_training_that_hangs(run: Callable[..., Any], kafka_broker: str, kafka_topic: Callable[..., str]) -> None:
    """A training that is stopped by SIGSTOP is killed at its time limit. That costs one training, and the stream goes on.

    If the daemon is killed, a stopped training ends with it, instead of training beside the next one for an hour.
    """
    topic, producer = kafka_topic(), KafkaProducer(bootstrap_servers=kafka_broker)
    limit = "[training]\nschedule = ''\nrows_min = 20\nnew_rows_min = 20\ncooldown_s = 0\ntime_limit_s = {}\n"
    faults = {"constants": {"daemon.training.child.TERMINATION_S": 0.2}}
    more = "[state]\ncheckpoint_interval_s = 0.2\n"
    daemon = run(kafka_broker, faults=faults, topic=topic, more=more + limit.format(3600))
    for second in range(100):
        producer.send(topic, record(second))
    producer.flush()
    child = child_of(daemon)
    os.kill(child, signal.SIGSTOP)
    daemon.reload(daemon.config.read_text().replace("time_limit_s = 3600", "time_limit_s = 0.1"))
    assert "took longer than the limit" in daemon.until(lambda: daemon.reported("training_failed"))[0]["problem"]
    assert gone(child)
    producer.send(topic, record(100)).get(60)
    daemon.until(lambda: 'dwcp_records_total{outcome="consumed"} 101.0' in daemon.get("/metrics")[1])
    daemon.until(lambda: daemon.get("/readyz") == (200, "ok\n"))
    daemon.reload(daemon.config.read_text().replace("time_limit_s = 0.1", "time_limit_s = 3600"))
    daemon.until(lambda: len(daemon.reported("config_reloaded")) == 2)
    trainings = len(daemon.reported("training_started"))
    for second in range(101, 200):  # on what the first has failed on, none is tried again
        producer.send(topic, record(second))
    daemon.until(lambda: len(daemon.reported("training_started")) > trainings)
    child = child_of(daemon)
    os.kill(child, signal.SIGSTOP)
    daemon.process.kill()
    daemon.process.wait()
    wait_for(lambda: gone(child), "the end of the stopped child")
    producer.close()
