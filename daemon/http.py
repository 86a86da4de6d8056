"""/livez, /readyz and /metrics for orchestrators and Prometheus, a page for a person; on loopback unless told otherwise."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from daemon.errors import DaemonError
from daemon.observe import Observer
from daemon.page import CONTENT_SECURITY_POLICY, render

TIMEOUT_S: Final = 10.0
"""A client that connects and says nothing holds its thread no longer."""
CONNECTIONS_MAX: Final = 16
"""At once: a scrape and a probe take milliseconds, and one that sends a byte now and then holds its thread for as long as it likes."""

Check = Callable[[], list[str]]
"""Gives the reasons why something is not well; empty: all is well."""


class HttpServer:
    """Serves in a thread of its own. Raises DaemonError, with the setting to change, where the address cannot be bound."""

    def __init__(self, host: str, port: int, observer: Observer, live: Check, ready: Check) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT_S

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, generate_latest(observer.registry), CONTENT_TYPE_LATEST)
                elif path in ("/livez", "/readyz"):
                    reasons = live() if path == "/livez" else ready()
                    self._answer(503 if reasons else 200, ("\n".join(reasons) or "ok").encode() + b"\n", "text/plain; charset=utf-8")
                elif path == "/":
                    self._answer(200, render(observer, live(), ready()).encode("utf-8", "replace"), "text/html; charset=utf-8")
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

        self._server = _listen(host, port, Handler)
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

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Closes one that is too many at once, and with it those that have had their time: whoever asks next is answered."""
        assert isinstance(request, socket.socket)
        now_s = time.monotonic()
        with self._lock:
            full = len(self._open) >= CONNECTIONS_MAX
            if not full:
                self._open[request] = now_s
            for slow in [other for other, since_s in self._open.items() if full and now_s - since_s > TIMEOUT_S]:
                with suppress(OSError):
                    slow.shutdown(socket.SHUT_RDWR)
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """A client that goes away in the middle is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _listen(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
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
