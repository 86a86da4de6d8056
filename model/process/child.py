"""What makes a process a training child: its progress, and libraries that neither need nor heed files of the user."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from model.process.bytecode import before_starting_again

Emit = Callable[[dict[str, Any]], None]
_NOWHERE: Final = os.path.join(os.devnull, "keras")  # noqa: PTH118 - a text for the environment


def prepare_libraries() -> None:
    """Set what Keras and TensorFlow read at their import. Call it before.

    Keras reads and writes ~/.keras/keras.json: one that is damaged, or that names another backend or precision, would end each training or
    change it. Here it finds none, and can write none.
    """
    os.environ["KERAS_HOME"] = _NOWHERE
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its banner and warnings are no news to an operator


def be_nicer_than(parent: int, nice: int) -> None:
    """Add to the niceness of the process `parent` and take the sum: a process that is started anew does not add it twice."""
    wanted = os.getpriority(os.PRIO_PROCESS, parent) + nice
    os.setpriority(os.PRIO_PROCESS, 0, max(wanted, os.getpriority(os.PRIO_PROCESS, 0)))


def progress_output() -> Emit:
    """Return the function that writes a line of progress. It gets standard output for itself: what libraries print there goes to standard
    error from now on."""
    try:
        descriptor = os.dup(1)
    except OSError:  # closed: nobody wants to know
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
    """The kind and the words of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'without a message'}"
