"""Errors that end a command with a message for a person, and the exit code of each."""

from __future__ import annotations

from typing import ClassVar


class DaemonError(Exception):
    """What, where, and what to do. exit_code: of the process that ends with it."""

    exit_code: ClassVar[int] = 1


class StateError(DaemonError):
    """The state directory cannot be used as it is."""

    exit_code = 4
