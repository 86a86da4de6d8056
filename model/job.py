"""One training as a process of its own: `python -m model.job JOB.json [PID]`, which ends with the process PID (default: its parent).

In: a job file (JobSpec) that names an immutable snapshot. Out: a candidate folder that is whole once its MANIFEST.json is there,
result.json (JobResult) beside the job file, and one JSON line per step of progress on standard output.
Exit code 0: result.json says how it ended. 1: it failed, and result.json and standard error say why. 2: the job file is no job.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from features.offline import RawTable
from model.buffer.rows import read_segments
from model.buffer.segments import SUFFIX, SegmentError
from model.process.bytecode import before_starting_again, start_again_without_damaged
from model.process.child import Emit, be_nicer_than, described, prepare_libraries, progress_output
from model.process.parent import die_with
from model.registry.plain_file import read_plain_bytes
from model.registry.removal import remove_whatever
from model.spec.job import EXIT_BAD_JOB, EXIT_DONE, EXIT_FAILED, JobResult, JobSpec, Status
from model.training.dataset import TooLittleDataError, prepare
from model.training.evaluation import judge
from model.version.predictor import Predictor

if TYPE_CHECKING:
    from model.training.fit.loop import Progress

JOB_MOST_BYTES: Final = 1 << 20
"""A hundred times a job file."""


def main(arguments: list[str]) -> int:
    """Runs the job of the file named by the first argument, and gives the exit code."""
    if len(arguments) not in (1, 2) or not all(pid.isdigit() for pid in arguments[1:]):
        print("usage: python -m model.job JOB.json [PID]", file=sys.stderr)
        return EXIT_BAD_JOB
    path = Path(arguments[0])
    try:
        spec = JobSpec.from_json(read_plain_bytes(path, JOB_MOST_BYTES))
        _require_folders(spec)
    except (OSError, ValueError) as error:
        print(f"{path} is not a job that can run: {error}", file=sys.stderr)
        return EXIT_BAD_JOB
    before_starting_again(lambda: _empty(Path(spec.candidate)))
    job = Job(spec, _prepare_process(spec, int(arguments[1]) if len(arguments) == 2 else os.getppid()))
    try:
        result = job.run()
    except Exception as error:  # noqa: BLE001 - whatever it was, the daemon gets a result that says so
        start_again_without_damaged(error)
        traceback.print_exc()
        result = job.failed(error)
        print(f"job {spec.job_id} failed in stage {job.stage!r}: {result.error}", file=sys.stderr)
    try:
        result.write(path.parent)
    except OSError as error:
        print(f"{path.parent}: the result cannot be written ({error.strerror}); free space there", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_FAILED if result.status == "failed" else EXIT_DONE


def _require_folders(spec: JobSpec) -> None:
    """Raises ValueError where the snapshot or the parent is not there, or there is something in the candidate already."""
    for name, folder in (("snapshot", spec.snapshot), ("parent", spec.parent)):
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"its {name} {folder} is no folder")
    candidate = Path(spec.candidate)
    if os.path.lexists(candidate) and (candidate.is_symlink() or not candidate.is_dir() or any(candidate.iterdir())):
        raise ValueError(f"its candidate {spec.candidate} already exists; a job builds in an empty folder")


def _empty(candidate: Path) -> None:
    """The folder itself stays: it is reserved, and its lock is the daemon's."""
    for path in candidate.iterdir() if candidate.is_dir() else ():
        remove_whatever(path)


def _prepare_process(spec: JobSpec, parent: int) -> Emit:
    """Makes this process a polite child of the process `parent`, and gives the function that writes a line of progress."""
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_DFL)  # dies at once: nothing here is worth waiting for, an ignored signal would be inherited
    die_with(parent)
    be_nicer_than(parent, spec.settings.nice)
    prepare_libraries()
    return progress_output()


@dataclass
class Job:
    """One job and how far it is."""

    spec: JobSpec
    emit: Emit
    stage: str = "start"
    stage_s: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    unsound: dict[str, str] = field(default_factory=dict)

    def run(self) -> JobResult:
        """Every stage in order. TensorFlow is imported only once it is known that there is enough to train on."""
        spec = self.spec
        with self._in("read"):
            parent = None if spec.parent is None else Predictor.load(Path(spec.parent))
            table = self._read()
        with self._in("features"):
            try:
                training_set = prepare(spec, table, None if parent is None else parent.metadata)
            except TooLittleDataError as error:
                return self._result("too_little_data", windows=error.windows, error=str(error))
        with self._in("import"):
            from model.training import candidate  # 7 to 14 s and 690 MB

            candidate.prepare_tensorflow(spec.settings)
        Path(spec.candidate).mkdir(exist_ok=True)  # the daemon has reserved it
        with self._in("build"):
            data = candidate.training_data(training_set)
            model, started_from = candidate.start(spec, training_set, data, None if parent is None else parent.metadata)
        with self._in("train"):
            fitted = candidate.fit(model, started_from, data, spec, self._report)
        with self._in("export"):
            metadata = candidate.write_version(fitted, data, training_set, spec)
        with self._in("gate"):
            evaluation = judge(training_set, Predictor.load(Path(spec.candidate)), parent, spec.gate, spec.gap_multiple)
            candidate.finish(fitted, metadata, evaluation, data, training_set, spec)
        return self._result(
            "candidate" if evaluation.verdict.accepted else "refused",
            candidate=spec.candidate,
            verdict=evaluation.verdict,
            metrics=evaluation.metrics,
            windows=training_set.windows,
            trained_until_s=training_set.trained_until_s,
        )

    def failed(self, error: Exception) -> JobResult:
        return self._result("failed", error=f"{self.stage}: {described(error)}")

    def _read(self) -> RawTable:
        """The rows of every segment that is as it was sealed. One that is not is left out and told: it must not end all trainings."""
        paths = sorted(Path(self.spec.snapshot).glob(f"*{SUFFIX}"))
        while True:
            try:
                table = read_segments(paths, until_s=self.spec.latest_row_s)
            except SegmentError as error:
                paths.remove(error.path)
                self.unsound[error.path.name] = error.problem
            else:
                self.rows = len(table)
                return table

    @contextmanager
    def _in(self, stage: str) -> Iterator[None]:
        self.stage = stage
        self._progress()
        began = time.monotonic()
        try:
            yield
        finally:
            self.stage_s[stage] = round(time.monotonic() - began, 3)

    def _report(self, progress: Progress) -> None:
        self._progress(**{name: None if not math.isfinite(value) else value for name, value in asdict(progress).items()})

    def _progress(self, **details: Any) -> None:
        self.emit({"event": "training_progress", "job_id": self.spec.job_id, "version": self.spec.version, "stage": self.stage, **details})

    def _result(self, status: Status, **details: Any) -> JobResult:
        return JobResult(
            self.spec.job_id, self.spec.version, status, rows=self.rows, stage_s=dict(self.stage_s), unsound=self.unsound, **details
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
