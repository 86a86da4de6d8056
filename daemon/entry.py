"""The command dwcp-learner from its first import to its exit code. Every exception becomes one line for a person."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from daemon.output import OutputError, discard_output, prepare_streams
from model.process.bytecode import start_again_without_damaged


class CarriedError(Exception):
    """Carries an error past Typer, which reads an EOFError as the end of a person's input and prints "Aborted."."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def main(command: Callable[[], object] | None = None) -> None:
    """Run a command and exit.

    Args:
        command: what to run. None: the command line.

    Raises:
        SystemExit: always after an exception, which becomes one line on standard error and an exit code.
    """
    prepare_streams()
    try:
        try:
            (command or _command_line)()
        finally:
            sys.stdout.flush()  # a full disk has to be noticed while it can still be reported
    except BaseException as error:  # noqa: BLE001 - the last place that can report it
        sys.exit(_exit_code(error.error if isinstance(error, CarriedError) else error))


def _command_line() -> None:
    from daemon.cli import app  # takes a second: Ctrl-C and a damaged installation are handled during it too

    app()


def _exit_code(error: BaseException) -> Any:
    if isinstance(error, SystemExit):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, OutputError):
        discard_output()
        if error.reader_is_gone:  # such as `| head`: nothing to report
            return 1
    start_again_without_damaged(error)
    try:
        from daemon.failures import report

        return report(error)
    except Exception:  # noqa: BLE001 - the installation itself is broken
        print(f"error: {type(error).__name__}: {' '.join(str(error).split())}; install dwcp-learner again", file=sys.stderr)
        return 1
