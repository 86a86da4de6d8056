"""A daemon as a process, a producer that keeps writing, and the rows of the daemon's buffer: for faults of brokers and topics."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaProducer

from model.buffer.segments import SegmentError
from testkit.remains import buffer_rows, newest
from testkit.running import Running
from testkit.waiting import LIMIT_S, wait_for

LINKS, PARTITIONS = 12, 2
START_S = 1_790_000_000.0
GAP_S = 0.004
"""Seconds between two records of a producer that keeps writing."""
SAFE = {"acks": "all", "enable_idempotence": True, "max_block_ms": 300_000, "delivery_timeout_ms": 300_000}
Row = tuple[str, float]
"""Link and time of a record. No two records have the same."""


def record(number: int) -> tuple[Row, int, bytes]:
    """Return the row, the partition and the bytes of record `number`."""
    link, time_s = number % LINKS, START_S + number // LINKS
    values = {"throughput_mbps": 50.0 + number % 7, "rtt_ms": 20.0 + number % 5, "packet_loss": 0.0, "jitter_ms": 1.0}
    document = {"timestamp": time_s, "node_id": f"n{link}", "peer_id": "p", "link_type": "metro", "region": "eu", **values}
    return (f"n{link}|p|metro", time_s), link % PARTITIONS, json.dumps(document).encode()


@dataclass
class Writer:
    """A producer of numbered records, in order. As a context manager it keeps writing.

    Args:
        bootstrap: servers.
        topic: the telemetry's.
        number: of the next record.
        sent: rows that the brokers have acknowledged.
    """

    bootstrap: str
    topic: str
    number: int = 0
    sent: list[Row] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def write(self, count: int) -> list[Row]:
        """Write `count` records at once, and return their rows when they are acknowledged."""
        before, end = len(self.sent), self.number + count
        self._write_while(lambda: self.number < end, gap_s=0.0)
        return self.sent[before:]

    def __enter__(self) -> Writer:
        """Start to write."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._write_while, args=(lambda: not self._stop.is_set(), GAP_S), name="writer", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        if kind is None:  # after a failure the brokers may be down, and nobody waits for what cannot be delivered
            self._thread.join()

    def flow(self, count: int) -> None:
        """Wait until `count` more records were passed to the client, while it keeps writing."""
        since = self.number
        wait_for(
            lambda: self.number >= since + count,
            f"{count} records more",
            alive=lambda: self._thread is not None and self._thread.is_alive(),
        )

    def transaction(self, count: int, commit: bool) -> None:
        """Write `count` records in a transaction, and commit or abort it."""
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, transactional_id=uuid.uuid4().hex, **SAFE)
        producer.init_transactions()
        producer.begin_transaction()
        rows = [self._send(producer)[0] for _ in range(count)]
        producer.flush()
        if commit:
            producer.commit_transaction()
            self.sent += rows
        else:
            producer.abort_transaction()
        producer.close()

    def _send(self, producer: KafkaProducer) -> tuple[Row, Any]:
        row, partition, value = record(self.number)
        self.number += 1
        return row, producer.send(self.topic, value, partition=partition)

    def _write_while(self, condition: Callable[[], bool], gap_s: float) -> None:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5, **SAFE)
        written = []
        while condition():
            written.append(self._send(producer))
            time.sleep(gap_s)
        producer.flush()
        for row, future in written:
            future.get(LIMIT_S)  # an error here is one of the scene, not of the daemon
            self.sent.append(row)
        producer.close()


@dataclass
class Scene:
    """A topic, a state directory, and daemons that run one after another.

    Args:
        folder: for state, models and logs.
        bootstrap: servers.
        topic: the telemetry's.
        group: consumer group.
        daemon: the running one.
        runs: number of daemons so far.
    """

    folder: Path
    bootstrap: str
    topic: str
    group: str
    daemon: Running | None = None
    runs: int = 0

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        if self.daemon is not None:
            self.daemon.kill()

    def start(self, accept_lost_records: bool = False) -> Running:
        """Start a daemon."""
        self.runs += 1
        home = self.folder / str(self.runs)
        home.mkdir(parents=True)
        accept = f"group_id = '{self.group}'\naccept_lost_records = {str(accept_lost_records).lower()}"
        state = (
            f"[state]\ndirectory = '{self.folder / 'state'}'\ncheckpoint_interval_s = 0.5\n[models]\ndirectory = '{self.folder / 'models'}'"
        )
        self.daemon = Running(home, self.bootstrap, topic=self.topic, kafka_more=accept, more=state)
        return self.daemon

    def ready(self) -> bool:
        """Return whether the daemon is ready."""
        assert self.daemon is not None
        return bool(self.daemon.reported("daemon_ready")) and self.daemon.get("/readyz")[0] == 200

    def stop(self) -> None:
        """Stop the daemon. Raises AssertionError if it does not end with exit code 0."""
        assert self.daemon is not None
        assert self.daemon.stop() == 0, self.daemon.log.read_text()[-3000:]

    def ended(self) -> tuple[int, str]:
        """Wait until the daemon has ended by itself, and return its exit code and its last message."""
        assert self.daemon is not None
        code = self.daemon.ended()
        return code, " ".join(line for line in self.daemon.log.read_text().splitlines() if not line.startswith("{"))

    def counted(self) -> Counter[str]:
        """Return the records by outcome, as the daemon counts them."""
        assert self.daemon is not None
        metrics = self.daemon.get("/metrics")[1]
        return Counter(
            {name: int(float(count)) for name, count in re.findall(r'^dwcp_records_total\{outcome="(\w+)"\} (\S+)$', metrics, re.M)}
        )

    def rows(self) -> Counter[Row]:
        """Return the rows of the newest checkpoint's segments. Raises SegmentError if a partition has a row twice."""
        links, times, *_ = buffer_rows(self.folder / "state", newest(self.folder / "state")[1])
        return Counter(zip(links, np.frombuffer(times).tolist(), strict=True))

    def until_it_holds(self, rows: list[Row]) -> None:
        """Wait until the buffer holds these rows. Raises AssertionError if one is missing, unknown or there twice."""
        assert self.daemon is not None
        missing, extra = self.settled(rows)
        assert not missing, f"of {len(rows)} rows {missing} are missing; {self.daemon.log.read_text()[-3000:]}"
        assert not extra, f"{extra} rows are there that nobody has written, or twice"

    def settled(self, rows: list[Row]) -> tuple[int, int]:
        """Wait until the buffer holds these rows.

        Returns:
            The number of missing rows, after the longest wait or the end of the daemon, and the number of unknown or repeated rows.
        """
        assert self.daemon is not None
        deadline_s = time.monotonic() + LIMIT_S
        wanted, held = Counter(rows), Counter[Row]()
        while wanted - held and time.monotonic() < deadline_s and self.daemon.process.poll() is None:
            time.sleep(0.2)
            with suppress(OSError, IndexError, SegmentError):  # a checkpoint and its segments go while they are looked at
                held = self.rows()
        return (wanted - held).total(), (held - wanted).total()
