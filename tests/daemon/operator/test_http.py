"""/livez, /readyz, /metrics and the page, asked over a real connection."""

from __future__ import annotations

import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from daemon.errors import DaemonError
from daemon.operator.http import HttpServer
from daemon.operator.observer import Observer


class Health:
    """The answers that the server gives."""

    def __init__(self) -> None:
        self.not_live: list[str] = []
        self.not_ready: list[str] = []


@pytest.fixture
def served() -> Iterator[tuple[HttpServer, Health, Observer]]:
    health, observer = Health(), Observer()
    server = HttpServer("127.0.0.1", 0, observer, lambda: health.not_live, lambda: health.not_live + health.not_ready, lambda: None)
    server.start()
    yield server, health, observer
    server.close()


def get(server: HttpServer, path: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    try:
        with urllib.request.urlopen(server.address + path, timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_live_and_ready_are_two_questions(served: tuple[HttpServer, Health, Observer]) -> None:
    """A daemon that waits for its broker lives and is not ready; one that makes no progress is neither. The answer says why."""
    server, health, _ = served
    assert get(server, "/livez")[::2] == get(server, "/readyz?verbose")[::2] == (200, "ok\n")
    health.not_ready = ["the source is not connected", "the state cannot be written: No space left on device"]
    assert get(server, "/livez")[0] == 200
    assert get(server, "/readyz")[::2] == (503, "the source is not connected\nthe state cannot be written: No space left on device\n")
    health.not_live = ["no progress for 61 s"]
    assert get(server, "/livez")[::2] == (503, "no progress for 61 s\n")


def test_metrics_are_what_prometheus_reads(served: tuple[HttpServer, Health, Observer]) -> None:
    """Events are counted by name, with the type of each metric."""
    server, _, observer = served
    observer.emit("source_resumed")
    observer.went_live("v20260101_000000")
    status, content_type, body = get(server, "/metrics")
    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert families["dwcp_events"].type == "counter"
    samples = {(sample.name, *sample.labels.values()): sample.value for family in families.values() for sample in family.samples}
    assert samples["dwcp_events_total", "source_resumed"] == 1
    assert samples["dwcp_model_live", "v20260101_000000"] == 1


def test_another_path_says_which_there_are(served: tuple[HttpServer, Health, Observer]) -> None:
    """404, with those that exist."""
    assert get(served[0], "/else")[::2] == (404, "try /, /livez, /readyz or /metrics\n")


def test_only_questions_are_answered(served: tuple[HttpServer, Health, Observer]) -> None:
    """Nothing can be changed over HTTP."""
    request = urllib.request.Request(served[0].address + "/livez", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(request, timeout=30)


def test_a_silent_client_holds_up_nobody(served: tuple[HttpServer, Health, Observer]) -> None:
    """Each connection has a thread of its own."""
    server, _, _ = served
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))):
        assert get(server, "/livez")[0] == 200


def connect(server: HttpServer) -> socket.socket:
    host, port = server.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def is_closed(client: socket.socket) -> bool:
    """Waits for what the server does with it."""
    try:
        return client.recv(100) == b""
    except ConnectionError:  # it had not read all that was sent
        return True


def has_connections() -> bool:
    """Return whether any connection has a thread."""
    return any("process_request_thread" in thread.name for thread in threading.enumerate())


def until_done() -> None:
    """Waits until no connection has a thread any more."""
    while has_connections():
        time.sleep(0.01)


@pytest.mark.parametrize("sent", [b"GET /me", b"GET /metrics HTTP/1.0\r\nX: "])
def test_a_client_that_resets_its_connection_leaves_no_traceback(
    served: tuple[HttpServer, Health, Observer], capfd: pytest.CaptureFixture[str], sent: bytes
) -> None:
    """A probe that is killed is not an event of the daemon."""
    client = connect(served[0])
    client.sendall(sent)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    while not has_connections():  # what is reset before is not even accepted
        time.sleep(0.01)
    client.close()
    until_done()
    assert capfd.readouterr().err == ""


def test_a_defect_of_ours_leaves_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """It is on standard error; only errors of clients are left out."""
    server = HttpServer("127.0.0.1", 0, Observer(), lambda: [f"{1 // 0}"], list, lambda: None)
    server.start()
    with connect(server) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert client.recv(100) == b""
    until_done()
    assert "ZeroDivisionError" in capfd.readouterr().err
    server.close()


def test_a_head_is_answered_without_a_body(served: tuple[HttpServer, Health, Observer]) -> None:
    """Some probes ask so; the length is that of the answer to a GET."""
    server, health, _ = served
    health.not_ready = ["no broker"]
    for path, status in ((b"/livez", b"200"), (b"/readyz", b"503")):
        with connect(server) as client:
            client.sendall(b"HEAD " + path + b" HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.split()[1] == status
        assert b"Content-Length: " + (b"3" if status == b"200" else b"10") in answer
        assert answer.endswith(b"\r\n\r\n")


def test_whoever_asks_is_answered_beside_clients_that_trickle(served: tuple[HttpServer, Health, Observer]) -> None:
    """There are 16 connections at most: one more takes the place of the oldest that has asked nothing yet."""
    server, _, _ = served
    until_done()
    before = threading.active_count()
    slow = [connect(server) for _ in range(20)]
    for client in slow:
        with suppress(OSError):
            client.sendall(b"GET /li")
    assert all(map(is_closed, slow[:4]))
    while threading.active_count() > before + 16:  # those four threads are about to end
        time.sleep(0.01)
    for number in range(40):
        assert get(server, "/livez")[0] == 200
        if number % 4 == 0:  # and they come again
            slow.append(connect(server))
    for client in slow:
        client.close()
    until_done()


def test_a_client_that_does_not_read_its_answer_gives_way(served: tuple[HttpServer, Health, Observer]) -> None:
    """After all that ask nothing: answers that nobody fetches hold their threads too."""
    server, _, observer = served
    until_done()
    for number in range(4000):  # an answer that fits no buffer
        observer.registry.register(Gauge(f"padding_{number}", "x" * 2000, registry=None))
    deaf = []
    for _ in range(16):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(server.address.rsplit(":", 1)[1])))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        deaf.append(client)
    silent = connect(server)
    for _ in range(20):
        assert get(server, "/livez")[0] == 200
    silent.close()
    for client in deaf:
        client.close()
    until_done()


def test_an_address_that_is_taken(served: tuple[HttpServer, Health, Observer]) -> None:
    """It is an error at the start, not later."""
    port = int(served[0].address.rsplit(":", 1)[1])
    with pytest.raises(DaemonError, match="in use"):
        HttpServer("127.0.0.1", port, Observer(), list, list, lambda: None)


def test_a_server_that_never_started_can_be_closed() -> None:
    """The daemon ends in the middle of its start when another part refuses."""
    HttpServer("127.0.0.1", 0, Observer(), list, list, lambda: None).close()


def test_nothing_that_is_served_may_load_or_run_anything(served: tuple[HttpServer, Health, Observer]) -> None:
    """Names of regions come from producers."""
    with urllib.request.urlopen(served[0].address + "/", timeout=30) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
