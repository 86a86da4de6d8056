"""/livez, /readyz and /metrics for orchestrators and Prometheus, a page for a person; on loopback unless told otherwise."""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from daemon.errors import DaemonError
from daemon.operator.facts import Facts
from daemon.operator.observer import Observer
from daemon.operator.page import CONTENT_SECURITY_POLICY, render

TIMEOUT_S: Final = 10.0
"""A client that connects and says nothing holds its thread no longer."""
CONNECTIONS_MAX: Final = 16
"""Connections that are open at once. One more takes the place of the oldest that has not asked anything yet: a probe, which asks at once,
is answered whoever else is connected."""
GIVE_WAY_S: Final = 1.0
"""Seconds that a new connection waits for the end of the one in whose place it comes; its thread wakes up within milliseconds."""
BACKLOG: Final = 128
"""Connections that the kernel keeps until they are accepted: with the usual five, a burst makes others wait for a second."""

Check = Callable[[], list[str]]
"""Gives the reasons why something is not well; empty: all is well."""


class HttpServer:
    """Serves in a thread of its own. Raises DaemonError, with the setting to change, where the address cannot be bound."""

    def __init__(self, host: str, port: int, observer: Observer, live: Check, ready: Check, facts: Callable[[], Facts | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT_S

            def do_GET(self) -> None:
                server.answers(self.connection)
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, generate_latest(observer.registry), CONTENT_TYPE_LATEST)
                elif path in ("/livez", "/readyz"):
                    reasons = live() if path == "/livez" else ready()
                    self._answer(503 if reasons else 200, ("\n".join(reasons) or "ok").encode() + b"\n", "text/plain; charset=utf-8")
                elif path == "/":
                    self._answer(200, render(observer, facts(), live(), ready()).encode("utf-8", "replace"), "text/html; charset=utf-8")
                else:
                    self._answer(404, b"try /, /livez, /readyz or /metrics\n", "text/plain; charset=utf-8")

            def do_HEAD(self) -> None:
                self.do_GET()

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Requests are no events of ours."""

        self._server = server = _listen(host, port, Handler)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, of which there are at most CONNECTIONS_MAX."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._silent: dict[socket.socket, None] = {}
        """Connections that have asked nothing yet, the oldest first."""
        self._answered: dict[socket.socket, None] = {}
        """Those that are being answered, or that have been ended to give way and whose threads are about to notice."""
        self._lock = threading.Lock()
        self._free = threading.Semaphore(CONNECTIONS_MAX)
        super().__init__(address, handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Starts a thread for a connection. If there are too many, the oldest silent one (else the oldest of all) gives way."""
        assert isinstance(request, socket.socket)
        if not self._free.acquire(blocking=False):
            self._end_oldest()
            if not self._free.acquire(timeout=GIVE_WAY_S):
                self.shutdown_request(request)
                return
        with self._lock:
            self._silent[request] = None
        super().process_request(request, client_address)

    def answers(self, request: socket.socket) -> None:
        """To be called when a connection has asked for something."""
        with self._lock:
            if request in self._silent:
                del self._silent[request]
                self._answered[request] = None

    def _end_oldest(self) -> None:
        with self._lock:
            connections = self._silent or self._answered
            oldest = next(iter(connections), None)
            if oldest is not None:
                del connections[oldest]
                self._answered[oldest] = None  # at the end: the next one to give way is another
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            counted = request in self._silent or request in self._answered
            for connections in (self._silent, self._answered):
                connections.pop(request, None)
        super().shutdown_request(request)
        if counted:
            self._free.release()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """A client that goes away in the middle is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _listen(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> _Server:
    try:
        families = {found[0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        return (_Server if socket.AF_INET in families else _Server6)((host, port), handler)
    except socket.gaierror as error:
        raise DaemonError(f"http.host {host!r}: there is no such host ({error.strerror}); give an address of this machine") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            todo = "another process listens there: give a free http.port, 0 for any, or switch it off with http.enabled = false"
        elif error.errno == errno.EACCES:
            todo = "ports below 1024 are for root: give another http.port"
        else:
            todo = "give an address of this machine as http.host"
        raise DaemonError(f"http.host {host!r}, http.port {port}: cannot be listened on ({error.strerror}); {todo}") from error
