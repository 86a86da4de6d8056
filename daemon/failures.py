"""Errors that end a command: one line for a person (what happened, where, what to do) and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Final

from daemon.config.load import ENV_DELIMITER, ENV_PREFIX, ConfigError
from daemon.errors import EXIT_CONFIG, EXIT_SOURCE, DaemonError
from daemon.output import OutputError
from daemon.plain_text import plain, printable
from model.registry.versions import RegistryError
from streams.kafka.sink import SinkError
from streams.source import SourceError

FAILURES: Final = (ConfigError, DaemonError, SourceError, SinkError, RegistryError, OSError, ValueError)
"""Errors that a person can mend."""
EXPECTED: Final = (ConfigError, DaemonError, SourceError, SinkError, RegistryError, OutputError)
"""Errors whose message is complete: what, where, and what to do."""
LEVEL_VARIABLE: Final = f"{ENV_PREFIX}LOG{ENV_DELIMITER}LEVEL"
_PROJECT: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = ("daemon", "drift", "features", "model", "streams")


def report(error: BaseException) -> int:
    """Print an error to standard error. With log.level debug its traceback comes first.

    Returns:
        The exit code.
    """
    from rich.console import Console

    if wants_traceback():
        sys.stderr.write("".join(traceback.format_exception(error)))
    try:
        Console(stderr=True).print(f"[bold red]error:[/bold red] {plain(describe(error), lines=True)}", highlight=False, soft_wrap=True)
    except Exception:  # noqa: BLE001 - the message has to come out
        print(f"error: {printable(describe(error), lines=True)}", file=sys.stderr)
    if isinstance(error, DaemonError):
        return error.exit_code
    return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_SOURCE if isinstance(error, (SourceError, SinkError)) else 1


def describe(error: BaseException) -> str:
    """Return the message of an error. For an unexpected one its type, its place and how to see the traceback are added."""
    place, is_ours = _place(error)
    if isinstance(error, EXPECTED) or (type(error) is ValueError and is_ours and str(error)):
        return str(error)
    text = _one_line(f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error))
    todo = f"if the cause is not clear, run it again with {LEVEL_VARIABLE}=debug and report the traceback"
    return f"{type(error).__name__}: {text or 'without a message'} (in {place}); {todo}"


def wants_traceback() -> bool:
    """Return whether the log level is debug."""
    return os.environ.get(LEVEL_VARIABLE, "").lower() == "debug" or logging.getLogger().level == logging.DEBUG


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _place(error: BaseException) -> tuple[str, bool]:
    """Return the last line of our packages in the traceback, and whether the error was raised there."""
    frames = traceback.extract_tb(error.__traceback__)
    for index in range(len(frames) - 1, -1, -1):
        path = Path(frames[index].filename)
        if path.is_relative_to(_PROJECT) and path.relative_to(_PROJECT).parts[0] in _PACKAGES:
            return f"{path.relative_to(_PROJECT)}:{frames[index].lineno}", index == len(frames) - 1
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no known place", False
