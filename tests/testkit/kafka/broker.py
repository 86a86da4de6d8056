"""Apache Kafka for tests and people: one KRaft broker on loopback, resolved with Maven, in a folder of its own.

It needs Java 17 and Maven. The jars (44 MB) are resolved once into .cache/kafka of the repository. This file uses nothing but the standard
library, so that it runs before anything is installed.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import hashlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import TextIO

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).resolve().parents[3] / ".cache" / "kafka"
START_TIMEOUT_S = 300.0  # 4-6 s on an idle machine; tests share slow ones
STOP_TIMEOUT_S = 120.0
PORTS = range(20_000, 30_000)
"""Ports below those of outgoing connections on Linux (net.ipv4.ip_local_port_range: from 32,768)."""
_claims: list[TextIO] = []
"""Locked files, one for each port that this process was given."""
COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

SERVER_PROPERTIES = """\
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
num.partitions=4
offsets.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
message.max.bytes=33554432
log.retention.check.interval.ms=1000
log.retention.ms=-1
log.initial.task.delay.ms=1000
"""
"""Options of every node. Records are kept whatever time they carry; retention is checked each second where a topic asks for it."""
ALONE = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""
USER, PASSWORD = "dwcp", "correct-horse"
SECURE_PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
ssl.keystore.type=PKCS12
ssl.keystore.location={folder}/broker.p12
ssl.keystore.password={password}
"""

LOG4J2 = """\
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=CONSOLE
appender.console.type=Console
appender.console.name=CONSOLE
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c %m%n
"""


class UnavailableError(RuntimeError):
    """Java or Maven is missing, or the jars cannot be resolved."""


def missing_tools() -> list[str]:
    """Return the needed programs that are not on the PATH."""
    return [tool for tool in ("java", "mvn") if shutil.which(tool) is None]


def resolve_jars(cache: Path = CACHE) -> Path:
    """Return the folder with Kafka's jars. The first call for this pom.xml resolves them, one process at a time."""
    if missing := missing_tools():
        raise UnavailableError(f"{' and '.join(missing)} not found on the PATH: install Java 17 and Maven to run Apache Kafka")
    folder = cache / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        partial = cache / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(POM), COPY_JARS, "-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
        maven = subprocess.run(command, capture_output=True, text=True, check=False)
        if maven.returncode != 0:
            raise UnavailableError(f"Maven could not resolve Apache Kafka:\n{(maven.stdout + maven.stderr)[-2000:]}")
        partial.rename(folder)  # a resolution that was killed half way never looks complete
    return folder


def new_cluster_id() -> str:
    """Return 22 characters, Kafka's form of a UUID."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")  # an id may not begin with "-"


def free_port() -> int:
    """Return a free loopback port that stays free until this process ends.

    No other test run gets it, and the system never uses one of PORTS for an outgoing connection.
    """
    folder = Path(tempfile.gettempdir()) / "dwcp-ports"
    folder.mkdir(exist_ok=True)
    for port in random.Random().sample(PORTS, len(PORTS)):
        claim = (folder / str(port)).open("w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
    raise RuntimeError(f"no port of {PORTS.start} to {PORTS.stop} is free")


def _die_with_parent() -> None:
    """End the broker, with its 300 MB, when the test run is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG


class Node:
    """A process of Apache Kafka with a folder of its own. Data and port survive `stop` and `kill`.

    Args:
        port: its address after the start.
        properties: its configuration, with `{folder}` in place of its folder.
        cluster: id that all nodes of a cluster share.
    """

    def __init__(self, port: int, properties: str, *, cluster: str | None = None, heap_mb: int = 512) -> None:
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        self._properties, self._cluster, self._heap_mb = properties, cluster or new_cluster_id(), heap_mb
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the node and wait until it answers. Raises RuntimeError, with the end of its log, if it does not."""
        self.launch()
        self.await_start()

    def launch(self) -> None:
        """Start the node without waiting: nodes of a cluster start at the same time."""
        jars = resolve_jars()
        if not (self.folder / "data").is_dir():
            self._format(jars)
        with self._log().open("ab") as log:
            self._process = subprocess.Popen(
                self._java(jars, "kafka.Kafka", str(self.folder / "server.properties")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )

    def await_start(self) -> None:
        """Wait until the node answers. Raises RuntimeError, with the end of its log, if it does not."""
        assert self._process is not None
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                    return
            except OSError:
                time.sleep(0.05)
        log = self._log().read_text(errors="replace")[-2000:]
        self.stop()
        raise RuntimeError(f"Apache Kafka did not start within {START_TIMEOUT_S:.0f} s on port {self.port}; the end of its log:\n{log}")

    def stop(self) -> None:
        """Stop the node in order. Its data stays for the next start."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Kill the node as a power cut does: nothing is closed or handed over."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop the node and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _log(self) -> Path:
        return self.folder / "broker.log"

    def _java(self, jars: Path, *arguments: str) -> list[str]:
        # The client compiler alone: a broker that lives for minutes starts in half the time and is not slower to talk to.
        log4j2 = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        memory = [f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *memory, log4j2, "-cp", f"{jars}/*", *arguments]

    def _format(self, jars: Path) -> None:
        properties = self.folder / "server.properties"
        properties.write_text(self._properties.replace("{folder}", str(self.folder)))
        (self.folder / "log4j2.properties").write_text(LOG4J2)
        command = self._java(jars, "kafka.tools.StorageTool", "format", "-t", self._cluster, "-c", str(properties))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"formatting the broker's storage failed:\n{(done.stdout + done.stderr)[-2000:]}")


class Broker(Node):
    """A broker that is its own controller.

    Args:
        secure: also listen with SASL_SSL at `secure_bootstrap`, for USER with PASSWORD, with the certificate in `ca_file`.
    """

    def __init__(self, port: int | None = None, *, secure: bool = False) -> None:
        port = free_port() if port is None else port
        self.bootstrap = f"127.0.0.1:{port}"
        self.secure_bootstrap = f"127.0.0.1:{free_port()}" if secure else None
        text, values = SERVER_PROPERTIES + ALONE, {"port": port, "controller_port": free_port(), "folder": "{folder}"}
        if self.secure_bootstrap is not None:
            text += SECURE_PROPERTIES  # of a property given twice, the later one counts
            values |= {"secure_port": self.secure_bootstrap.rpartition(":")[2], "user": USER, "password": PASSWORD}
        super().__init__(port, text.format(**values))
        self.ca_file = self.folder / "ca.pem"

    def launch(self) -> None:
        if self.secure_bootstrap is not None and not self.ca_file.exists():
            self._make_certificate()
        super().launch()

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    def _make_certificate(self) -> None:
        store = ["-storetype", "PKCS12", "-keystore", str(self.folder / "broker.p12"), "-storepass", PASSWORD, "-alias", "broker"]
        name = ["-dname", "CN=localhost", "-ext", "SAN=ip:127.0.0.1", "-validity", "30"]
        subprocess.run(["keytool", "-genkeypair", "-keyalg", "EC", *name, *store], capture_output=True, check=True)
        subprocess.run(["keytool", "-exportcert", "-rfc", "-file", str(self.ca_file), *store], capture_output=True, check=True)
