"""/livez, /readyz and /metrics for orchestrators and Prometheus, and a page for a person; on loopback unless configured otherwise."""

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
"""Seconds after which a client that sends nothing is disconnected."""
CONNECTIONS_MAX: Final = 16
"""Most connections at once. One more replaces the oldest that has not sent a request yet: a probe, which sends one at once, is answered
whoever else is connected."""
GIVE_WAY_S: Final = 1.0
"""Seconds that a new connection waits for the end of the one it replaces, whose thread wakes up within milliseconds."""
BACKLOG: Final = 128
"""Connections that the kernel queues until they are accepted. With the usual five, a burst makes others wait for a second."""

Check = Callable[[], list[str]]
"""Returns the reasons why something is wrong; empty: all is well."""


class HttpServer:
    """An HTTP server on a thread of its own."""

    def __init__(self, host: str, port: int, observer: Observer, live: Check, ready: Check, facts: Callable[[], Facts | None]) -> None:
        """Bind the address.

        Args:
            live, ready: answers of /livez and /readyz.
            facts: returns what the page shows.

        Raises:
            DaemonError: the address cannot be bound; the message names the setting to change.
        """

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
                """Log nothing: requests are not events of the daemon."""

        self._server = server = _listen(host, port, Handler)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering, and release the address."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """A server with a thread for each connection, and at most CONNECTIONS_MAX of them."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._silent: dict[socket.socket, None] = {}
        """Connections that have not sent a request yet, oldest first."""
        self._answered: dict[socket.socket, None] = {}
        """Those that are being answered, or that were shut down to make room and whose threads are about to notice."""
        self._lock = threading.Lock()
        self._free = threading.Semaphore(CONNECTIONS_MAX)
        super().__init__(address, handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Start a thread for a connection. If there are too many, shut down the oldest silent one, else the oldest of all."""
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
        """Record that a connection has sent a request."""
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
                self._answered[oldest] = None  # at the end: the next to be shut down is another one
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
        """Ignore a client that disconnects in the middle of an answer."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _listen(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> _Server:
    try:
        families = {found[0] for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        return (_Server if socket.AF_INET in families else _Server6)((host, port), handler)
    except socket.gaierror as error:
        raise DaemonError(f"http.host {host!r}: there is no such host ({error.strerror}); use an address of this machine") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            todo = "another process listens there: use a free http.port, 0 for any, or switch it off with http.enabled = false"
        elif error.errno == errno.EACCES:
            todo = "ports below 1024 are for root: use another http.port"
        else:
            todo = "use an address of this machine as http.host"
        raise DaemonError(f"http.host {host!r}, http.port {port}: the daemon cannot listen there ({error.strerror}); {todo}") from error
