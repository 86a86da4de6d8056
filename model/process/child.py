"""Environment of a training child: its job, its progress, and libraries that read no files of the user."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from model.process.bytecode import before_starting_again
from model.registry.plain_file import read_plain_bytes

Spec = TypeVar("Spec")
Emit = Callable[[dict[str, Any]], None]
SPEC_MOST_BYTES: Final = 16 << 20
"""Largest job or run file that is read: a hundred times what one has whose regions are in four countries, each with its holidays."""
_NOWHERE: Final = os.path.join(os.devnull, "keras")  # noqa: PTH118 - a text for the environment


def read_spec(module: str, arguments: list[str], decode: Callable[[bytes], Spec]) -> tuple[Path, Spec, int | None] | None:
    """Read the arguments and the job of a child: `python -m MODULE FILE.json [PID]`.

    Args:
        module: "model.job" or "model.run".
        arguments: The command line's.
        decode: Raises ValueError if the document cannot be used.

    Returns:
        The file, what is in it, and the process id if one is given. None, with a line on standard error, if it cannot be used.
    """
    kind = module.removeprefix("model.")
    if len(arguments) not in (1, 2) or not all(pid.isdigit() for pid in arguments[1:]):
        print(f"usage: python -m {module} {kind.upper()}.json [PID]", file=sys.stderr)
        return None
    path = Path(arguments[0])
    try:
        return path, decode(read_plain_bytes(path, SPEC_MOST_BYTES)), int(arguments[1]) if len(arguments) == 2 else None
    except (OSError, ValueError) as error:
        print(f"{path} is not a {kind} that can start: {error}", file=sys.stderr)
        return None


def prepare_libraries() -> None:
    """Set the environment that Keras and TensorFlow read at their import. Call it before they are imported.

    Keras reads and writes ~/.keras/keras.json. A damaged one, or one that names another backend or precision, would end each training or
    change it; here it finds none and can write none.
    """
    os.environ["KERAS_HOME"] = _NOWHERE
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # an operator learns nothing from its banner and warnings


def be_nicer_than(parent: int, nice: int) -> None:
    """Set this process's niceness to that of the process `parent` plus `nice`. A process that starts again does not add it twice."""
    wanted = os.getpriority(os.PRIO_PROCESS, parent) + nice
    os.setpriority(os.PRIO_PROCESS, 0, max(wanted, os.getpriority(os.PRIO_PROCESS, 0)))


def progress_output() -> Emit:
    """Return the function that writes a line of progress to standard output. Everything else that is printed goes to standard error."""
    try:
        descriptor = os.dup(1)
    except OSError:  # closed: nobody reads the progress
        descriptor = os.open(os.devnull, os.O_WRONLY)
    progress = os.fdopen(descriptor, "w", encoding="utf-8")
    with suppress(OSError):
        os.dup2(2, 1)
    before_starting_again(lambda: os.dup2(descriptor, 1))

    def emit(event: dict[str, Any]) -> None:
        progress.write(json.dumps(event, allow_nan=False) + "\n")
        progress.flush()

    return emit


def described(error: BaseException) -> str:
    """Return kind and message of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'without a message'}"
