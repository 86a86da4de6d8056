"""One training of the daemon as a process of its own: `python -m model.job JOB.json [PID]`.

It ends with the process PID (default: its parent).

In: a job file (JobSpec) that names an immutable snapshot. Out: a candidate folder, whole once its MANIFEST.json is there; result.json
(JobResult) beside the job file; and one JSON line per step of progress on standard output.
Exit code 0: result.json has the outcome. 1: the training failed; result.json and standard error have the reason. 2: the job file cannot be
used.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.offline import RawTable
from model.buffer.rows import read_segments
from model.buffer.segments import SUFFIX, SegmentError
from model.process.bytecode import before_starting_again, start_again_without_damaged
from model.process.child import Emit, be_nicer_than, described, prepare_libraries, progress_output, read_spec
from model.process.parent import die_with
from model.registry.removal import remove_whatever
from model.spec.job import EXIT_BAD_JOB, EXIT_DONE, EXIT_FAILED, JobResult, JobSpec, Status, plain
from model.training.dataset import NewestJudge, TooLittleDataError, prepare
from model.version.predictor import Predictor

if TYPE_CHECKING:
    from model.training.fit.progress import Progress


def main(arguments: list[str]) -> int:
    """Run the job in the file named by the first argument, and return the exit code."""
    if (asked := read_spec("model.job", arguments, _job)) is None:
        return EXIT_BAD_JOB
    path, spec, parent = asked
    before_starting_again(lambda: _empty(Path(spec.candidate)))
    job = Job(spec, _prepare_process(spec, os.getppid() if parent is None else parent))
    try:
        result = job.run()
    except Exception as error:  # noqa: BLE001 - the daemon gets a result for every error
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


def _job(document: bytes) -> JobSpec:
    """Decode a job. Raise ValueError if its snapshot or parent is missing, or if its candidate's folder is not empty."""
    spec = JobSpec.from_json(document)
    for name, folder in (("snapshot", spec.snapshot), ("parent", spec.parent)):
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"its {name} {folder} is not a folder")
    candidate = Path(spec.candidate)
    if os.path.lexists(candidate) and (candidate.is_symlink() or not candidate.is_dir() or any(candidate.iterdir())):
        raise ValueError(f"its candidate {spec.candidate} already exists; a job builds in an empty folder")
    return spec


def _empty(candidate: Path) -> None:
    """Empty the candidate's folder. The folder itself stays: it is reserved, and the daemon holds its lock."""
    for path in candidate.iterdir() if candidate.is_dir() else ():
        remove_whatever(path)


def _prepare_process(spec: JobSpec, parent: int) -> Emit:
    """Make this process a low-priority child of the process `parent`, and return the function that writes a line of progress."""
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_DFL)  # die at once: an ignored signal would be inherited, and nothing here needs an orderly end
    die_with(parent)
    be_nicer_than(parent, spec.settings.nice)
    prepare_libraries()
    return progress_output()


@dataclass
class Job:
    """One job and its progress.

    Args:
        stage: The one that runs, or the last.
        stage_s: Wall seconds of each stage that has ended.
        unsound: File names of segments that were left out, and why.
    """

    spec: JobSpec
    emit: Emit
    stage: str = "start"
    stage_s: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    unsound: dict[str, str] = field(default_factory=dict)

    def run(self) -> JobResult:
        """Run every stage in order. TensorFlow is imported only once it is known that there is enough to train on."""
        spec = self.spec
        with self._in("read"):
            parent = None if spec.parent is None else Predictor.load(Path(spec.parent))
            table = self._read()
        with self._in("features"):
            before = None if parent is None else parent.metadata
            try:
                dataset = prepare(
                    table,
                    NewestJudge(spec, before),
                    spec.gap_multiple,
                    before,
                    spec.architecture.ahead.horizons,
                    spec.local_time.local_time(),
                )
            except TooLittleDataError as error:
                return self._result("too_little_data", windows=error.windows, error=str(error))
        with self._in("import"):
            from model.training.run import train_candidate  # 7 to 14 s and 690 MB
        Path(spec.candidate).mkdir(exist_ok=True)  # the daemon has reserved it
        evaluation = train_candidate(spec, dataset, parent, self._in, self._report)
        return self._result(
            "candidate" if evaluation.verdict.accepted else "refused",
            candidate=spec.candidate,
            verdict=evaluation.verdict,
            metrics=evaluation.metrics,
            windows=dataset.windows,
            trained_until_s=dataset.trained_until_s,
        )

    def failed(self, error: Exception) -> JobResult:
        """Return the result of a job that the error has ended."""
        return self._result("failed", error=f"{self.stage}: {described(error)}")

    def _read(self) -> RawTable:
        """Return the rows of every sound segment. One that is damaged is left out and reported: it must not end all trainings."""
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
        self._progress(**plain(progress))

    def _progress(self, **details: Any) -> None:
        self.emit({"event": "training_progress", "job_id": self.spec.job_id, "version": self.spec.version, "stage": self.stage, **details})

    def _result(self, status: Status, **details: Any) -> JobResult:
        return JobResult(
            self.spec.job_id, self.spec.version, status, rows=self.rows, stage_s=dict(self.stage_s), unsound=self.unsound, **details
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
