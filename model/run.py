"""One offline training as a process of its own: `python -m model.run RUN.json [PID]`, which ends with the process PID.

In: a run file (RunSpec) that names a recording's segments. Out: the folder of the run with all its files, and one JSON line per step of
progress on standard output, the last of which says how it ended. SIGINT ends the training and keeps its best weights; a second one ends
the process. Exit code 0: the folder is whole. 1: it failed, and standard error says why. 2: the run file is no run.
"""

from __future__ import annotations

import math
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model.buffer.rows import read_segments
from model.buffer.segments import SUFFIX
from model.process.bytecode import before_starting_again, start_again_without_damaged
from model.process.child import Emit, described, prepare_libraries, progress_output
from model.process.parent import die_with
from model.registry.plain_file import read_plain_bytes
from model.registry.removal import remove_whatever
from model.spec.job import EXIT_BAD_JOB, EXIT_DONE, EXIT_FAILED
from model.spec.run import FINISHED, INTERRUPTED, RunSpec

if TYPE_CHECKING:
    from model.training.fit.loop import Progress

RUN_MOST_BYTES: Final = 1 << 20
"""A hundred times a run file."""


class Interruption:
    """Whether somebody wants the training to end."""

    def __init__(self) -> None:
        self.wanted = False
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, _number: int, _frame: object) -> None:
        self.wanted = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __call__(self) -> bool:
        return self.wanted


def main(arguments: list[str]) -> int:
    """Runs the run of the file named by the first argument, and gives the exit code."""
    if len(arguments) not in (1, 2) or not all(pid.isdigit() for pid in arguments[1:]):
        print("usage: python -m model.run RUN.json [PID]", file=sys.stderr)
        return EXIT_BAD_JOB
    try:
        spec = RunSpec.from_json(read_plain_bytes(Path(arguments[0]), RUN_MOST_BYTES))
    except (OSError, ValueError) as error:
        print(f"{arguments[0]} is not a run that can start: {error}", file=sys.stderr)
        return EXIT_BAD_JOB
    if len(arguments) == 2:
        die_with(int(arguments[1]))
    interruption = Interruption()
    prepare_libraries()
    emit = progress_output()
    try:
        status = run(spec, emit, interruption)
    except Exception as error:  # noqa: BLE001 - whatever it was, the command shows what it was
        start_again_without_damaged(error)
        traceback.print_exc()
        print(f"the training failed: {described(error)}", file=sys.stderr)
        return EXIT_FAILED
    emit({"stage": "done", "status": status})
    return EXIT_DONE


def run(spec: RunSpec, emit: Emit, interrupted: Callable[[], bool]) -> str:
    """Every stage in order; gives FINISHED or INTERRUPTED."""
    emit({"stage": "reading the recording"})
    table = read_segments(sorted(Path(spec.snapshot).glob(f"*{SUFFIX}")))
    emit({"stage": "loading TensorFlow"})
    from model.training import files as version_files  # 7 to 14 s and 690 MB
    from model.training import (
        offline,  # 7 to 14 s and 690 MB
        run_files,  # 7 to 14 s and 690 MB
    )

    folder = Path(spec.folder)
    folder.mkdir()
    before_starting_again(lambda: remove_whatever(folder))
    emit({"stage": "building the network"})
    made = offline.run_offline(
        table,
        spec.settings,
        spec.architecture,
        gap_multiple=spec.gap_multiple,
        horizon_rows=spec.horizon_rows,
        shares=spec.shares,
        on_progress=lambda progress: emit(_message(progress)),
        log_path=folder / version_files.TRAINING_LOG,
        interrupted=interrupted,
    )
    status = INTERRUPTED if interrupted() else FINISHED
    emit({"stage": "exporting and writing the reports"})
    run_files.write(made, spec, status)
    return status


def _message(progress: Progress) -> dict[str, Any]:
    values = {name: None if not math.isfinite(value) else value for name, value in asdict(progress).items()}
    return {"stage": "train", "epoch_ended": values["validation_loss"] is not None, **values}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
