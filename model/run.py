"""One offline training as a process of its own: `python -m model.run RUN.json [PID]`. It ends with the process PID, if one is given.

In: a run file (RunSpec) that names a recording's segments. Out: the folder of the run with all its files, and one JSON line per step of
progress on standard output, the last of which has the outcome. SIGINT ends the training and keeps its best weights; a second one ends
the process. Exit code 0: the folder is whole. 1: it failed; standard error has the reason. 2: the run file cannot be used.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model.buffer.rows import read_segments
from model.buffer.segments import SUFFIX
from model.process.bytecode import before_starting_again, start_again_without_damaged
from model.process.child import Emit, described, prepare_libraries, progress_output, read_spec
from model.process.parent import die_with
from model.registry.removal import remove_whatever
from model.spec.job import EXIT_BAD_JOB, EXIT_DONE, EXIT_FAILED, plain
from model.spec.run import RunSpec
from model.training.dataset import LastOfEachLink, prepare

if TYPE_CHECKING:
    from model.training.fit.progress import Progress

STAGES: Final = {
    "read": "reading the recording",
    "import": "loading TensorFlow",
    "build": "building the network",
    "export": "exporting and writing the reports",
}
"""The text shown during a stage. The other stages are short, or report their own progress."""


class Interruption:
    """True once the process got SIGINT. A second SIGINT ends the process."""

    def __init__(self) -> None:
        self.wanted = False
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, _number: int, _frame: object) -> None:
        self.wanted = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __call__(self) -> bool:
        return self.wanted


def main(arguments: list[str]) -> int:
    """Run the training in the file named by the first argument, and return the exit code."""
    if (asked := read_spec("model.run", arguments, RunSpec.from_json)) is None:
        return EXIT_BAD_JOB
    _, spec, parent = asked
    if parent is not None:
        die_with(parent)
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
    """Run every stage in order, and return FINISHED or INTERRUPTED."""

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        if name in STAGES:
            emit({"stage": STAGES[name]})
        yield

    with stage("read"):
        table = read_segments(sorted(Path(spec.snapshot).glob(f"*{SUFFIX}")))
        policy = LastOfEachLink(spec.shares, spec.architecture.window_rows, spec.horizon_rows)
        dataset = prepare(
            table, policy, spec.gap_multiple, horizons=spec.architecture.ahead.horizons, local_time=spec.local_time.local_time()
        )
    with stage("import"):
        from model.training.run import train_recording  # 7 to 14 s and 690 MB
    folder = Path(spec.folder)
    folder.mkdir()
    before_starting_again(lambda: remove_whatever(folder))
    return train_recording(spec, dataset, stage, lambda progress: emit(_message(progress)), interrupted)


def _message(progress: Progress) -> dict[str, Any]:
    values = plain(progress)
    return {"stage": "train", "epoch_ended": values["validation_loss"] is not None, **values}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
