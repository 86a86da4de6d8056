"""Start of a training child: `python -m model.start model.job JOB.json [PID]`, or model.run.

Its imports run under guard too: see `model.process.bytecode`.
"""

from __future__ import annotations

import sys
from importlib import import_module

from model.process.bytecode import start_again_without_damaged


def main(arguments: list[str]) -> int:
    """Run `main` of the module named by the first argument with the other arguments, and return its exit code."""
    try:
        code: int = import_module(arguments[0]).main(arguments[1:])
    except Exception as error:
        start_again_without_damaged(error)
        raise
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
