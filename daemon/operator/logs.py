"""Logging: the daemon's events and the messages of libraries, in one form, and without floods."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import structlog

LIBRARIES: Final = ("kafka", "apscheduler")
"""Loggers of libraries whose repeated messages are dropped."""
REPEAT_S: Final = 60.0
"""Seconds in which the same message of a library passes once."""


class Repeated(logging.Filter):
    """Lets a message of a library pass once in REPEAT_S, whatever its arguments.

    The Kafka client reports ten times a second that a topic is missing. The event that says what to do would be lost among them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message passes."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        now_s, key = self._clock(), (record.name, str(record.msg))
        if now_s - self._passed_s.get(key, now_s - REPEAT_S) < REPEAT_S:
            return False
        if len(self._passed_s) > 1000:  # messages whose text was formatted before it came here
            self._passed_s.clear()
        self._passed_s[key] = now_s
        return True


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Configure the loggers of the daemon and of libraries.

    Args:
        level: "debug", "info", "warning" or "error".
        form: "json" lines, "console" with colours, or "auto": console on a terminal, else JSON.
        stream: None: standard output.
    """
    out = stream or sys.stdout
    console = form == "console" or (form == "auto" and out.isatty())
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.addFilter(Repeated())
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=renderer))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(getattr(logging, level.upper()))
    for noisy in LIBRARIES:  # what matters is logged as events
        logging.getLogger(noisy).setLevel(logging.ERROR)
