"""The supervisor of the training child. The child is the real `python -m model.job`, but for outputs that it never gives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.operator.observer import Observer
from daemon.state.snapshot import Written
from daemon.training.child import Ended, Trainer
from daemon.training.command import environment
from daemon.training.cycle import Training
from daemon.training.outcomes import Outcome
from daemon.training.progress import Progress
from daemon.training.publisher import Publisher
from daemon.training.schedule import WallSchedule
from daemon.training.settings import TrainingConfig
from daemon.training.triggers import TrainingPolicy
from drift.messages import IncidentChange, SignalChange
from features.telemetry import Partition
from model.buffer.rows import BufferRows, BufferWriter
from model.registry.versions import Registry
from model.spec.job import JobSpec
from model.spec.settings import TrainingSettings
from model.spec.verdict import GatePolicy

VERSION = "v20260101_000000"


@pytest.fixture
def segments(tmp_path: Path) -> list[Path]:
    """One sealed segment of 40 rows: far too few to train on, which the child finds out without TensorFlow."""
    (tmp_path / "buffer").mkdir()
    writer = BufferWriter(tmp_path / "buffer", Partition("t", 0))
    times = (1.7e9 + 60.0 * np.arange(40)).astype(np.float64)
    rows = BufferRows(np.arange(40), times, np.ones((40, 11), np.float32), np.zeros((40, 6), np.int16), np.zeros(40, np.int32))
    writer.append(rows)
    taken = writer.detach(["a|b|metro"], [["x"]] * 6)
    assert taken is not None
    return [tmp_path / "buffer" / str(writer.seal(taken).name)]


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    made = Trainer(tmp_path / "work", time_limit_s=300.0)
    yield made
    made.cancel()


def job(trainer: Trainer, tmp_path: Path, **changed: Any) -> JobSpec:
    fields: dict[str, Any] = {
        "job_id": VERSION,
        "version": VERSION,
        "created_at_s": 1.0,
        "reason": "first",
        "snapshot": str(trainer.folder(VERSION) / "snapshot"),
        "candidate": str(tmp_path / "candidate"),
    }
    return JobSpec(**(fields | changed))


def awaited(trainer: Trainer) -> Ended:
    """The end of the child. The time limit of the test is that of pytest."""
    while (ended := trainer.ended()) is None:
        time.sleep(0.02)
    return ended


def pid_of(trainer: Trainer) -> int:
    assert trainer._child is not None
    return trainer._child.process.pid


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_child_that_ends_by_itself(trainer: Trainer, tmp_path: Path, segments: list[Path]) -> None:
    """Its result is read, once; its progress came as it went; its snapshot is gone, and did not hang on the buffer's own files."""
    trainer.start(job(trainer, tmp_path), segments)
    assert trainer.running
    segments[0].unlink()  # retention goes on meanwhile
    stages = set()
    while (ended := trainer.ended()) is None:
        running = trainer.progress()
        if running is not None and running.progress is not None:
            stages.add(running.progress.stage)
            assert running.seconds + running.limit_left_s == pytest.approx(300.0)
        time.sleep(0.01)
    assert ended.result is not None
    assert (ended.result.status, ended.result.rows, ended.problem) == ("too_little_data", 40, None)
    assert not trainer.running
    assert trainer.ended() is None
    assert trainer.progress() is None
    assert stages <= {"read", "features"}
    assert "read" in stages
    assert not (trainer.folder(VERSION) / "snapshot").exists()


def test_only_the_folders_of_the_last_trainings_stay(trainer: Trainer, tmp_path: Path) -> None:
    """A daemon trains for years: what its trainings leave behind is bounded. One that is repeated under its name counts as the newest."""
    for number in (0, 1, 2, 0, 3, 4, 5):
        name = f"v20260101_00000{number}"
        trainer.start(job(trainer, tmp_path, job_id=name, snapshot=str(trainer.folder(name) / "snapshot")), [])
        trainer.cancel()
    assert sorted(path.name[-1] for path in (tmp_path / "work").iterdir()) == ["0", "2", "3", "4", "5"]


def test_a_training_that_fails_says_why(trainer: Trainer, tmp_path: Path, segments: list[Path]) -> None:
    """The child's own words: here, a parent that is not a version."""
    (tmp_path / "parent").mkdir()
    trainer.start(job(trainer, tmp_path, parent=str(tmp_path / "parent")), segments)
    ended = awaited(trainer)
    assert ended.result is not None
    assert ended.result.status == "failed"
    assert ended.problem is not None
    assert ended.problem.startswith("read: ")


def test_a_child_that_refuses_its_job(trainer: Trainer, tmp_path: Path, segments: list[Path]) -> None:
    """It leaves no result; exit code and last words are reported."""
    (tmp_path / "candidate/something").mkdir(parents=True)
    trainer.start(job(trainer, tmp_path), segments)
    ended = awaited(trainer)
    assert ended.result is None
    assert ended.problem is not None
    assert "ended with exit code 2 and left no result; its last words: " in ended.problem
    assert "already exists" in ended.problem


def test_no_code_of_the_working_directory_runs(
    trainer: Trainer, tmp_path: Path, segments: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder `model` or a module of a library where the operator works is not what the child imports, whatever PYTHONPATH says; and it
    works in its own folder, so that no matplotlibrc is found either."""
    trap = tmp_path / "operator"
    (trap / "model").mkdir(parents=True)
    for name in ("model/__init__.py", "model/job.py", "numpy.py", "msgspec.py", "sitecustomize.py"):
        (trap / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write(__name__)\n")
    monkeypatch.chdir(trap)
    for path in ("", ".", f":{trap.name}", "../operator"):
        monkeypatch.setenv("PYTHONPATH", path)
        trainer.start(job(trainer, tmp_path), segments)
        assert Path(f"/proc/{pid_of(trainer)}/cwd").resolve() == trainer.folder(VERSION)
        ended = awaited(trainer)
        assert ended.result is not None, ended.problem
        assert ended.result.status == "too_little_data"
        assert not (tmp_path / "ran").exists()


def test_a_job_with_relative_paths(tmp_path: Path, segments: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's folders may be named relative to where it was started; the child works elsewhere and finds them."""
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(Path("relative/work"), time_limit_s=300.0)
    try:
        trainer.start(job(trainer, Path("models")), segments)
        ended = awaited(trainer)
    finally:
        trainer.cancel()
    assert ended.result is not None, ended.problem
    assert (ended.result.status, ended.result.rows) == ("too_little_data", 40)


def test_a_childs_variables() -> None:
    """The child gets the absolute entries of PYTHONPATH alone, and nothing that systemd means for the daemon."""
    own = {"PYTHONPATH": ":/a:b:./c:/d", "NOTIFY_SOCKET": "x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/h"}
    assert environment(own) == {"PYTHONPATH": "/a:/d", "HOME": "/h"}
    assert environment({"PYTHONPATH": "."}) == {}


def test_a_child_that_crashes(trainer: Trainer, tmp_path: Path, segments: list[Path]) -> None:
    """The kernel may kill it: the signal is reported, and another training can start under the same name."""
    trainer.start(job(trainer, tmp_path), segments)
    os.kill(pid_of(trainer), signal.SIGKILL)
    ended = awaited(trainer)
    assert ended.problem is not None
    assert "was killed by signal 9 and left no result" in ended.problem
    trainer.start(job(trainer, tmp_path), segments)
    result = awaited(trainer).result
    assert result is not None
    assert result.status == "too_little_data"


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped, so that only SIGKILL helps"])
def test_time_limit(tmp_path: Path, segments: list[Path], monkeypatch: pytest.MonkeyPatch, stopped: bool) -> None:
    """A child that takes too long is ended, whatever it does about SIGTERM."""
    monkeypatch.setattr("daemon.training.child.TERMINATION_S", 0.2)
    trainer = Trainer(tmp_path / "work", time_limit_s=0.0)
    trainer.start(job(trainer, tmp_path), segments)
    pid = pid_of(trainer)
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    ended = awaited(trainer)
    assert ended.problem == "took longer than the limit of 0 s and was killed"
    assert gone(pid)
    assert not trainer.running


def test_cancel(trainer: Trainer, tmp_path: Path, segments: list[Path]) -> None:
    """The daemon stops: the child is gone when this returns."""
    assert trainer.cancel() is None
    trainer.start(job(trainer, tmp_path), segments)
    pid = pid_of(trainer)
    ended = trainer.cancel()
    assert ended is not None
    assert (ended.result, ended.problem) == (None, "cancelled")
    assert gone(pid)
    assert trainer.ended() is None


def test_never_two_at_once(trainer: Trainer, tmp_path: Path, segments: list[Path]) -> None:
    """A second start is an error of the caller."""
    trainer.start(job(trainer, tmp_path), segments)
    with pytest.raises(RuntimeError, match="runs already"):
        trainer.start(job(trainer, tmp_path), segments)


def test_the_child_goes_first_and_cannot_speak_for_the_daemon(
    trainer: Trainer, tmp_path: Path, segments: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When memory runs out the kernel takes the child; and systemd's socket and watchdog are the daemon's alone."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("DWCP_TEST_STAYS", "1")
    trainer.start(job(trainer, tmp_path), segments)
    process = Path(f"/proc/{pid_of(trainer)}")
    environment = (process / "environ").read_bytes()
    assert b"DWCP_TEST_STAYS=1" in environment
    assert b"NOTIFY_SOCKET" not in environment
    assert b"WATCHDOG_" not in environment
    assert (process / "oom_score_adj").read_text().strip() == "1000"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo garbage; printf '\\377\\n'; echo '[1]'; echo '{\"stage\": \"x\"}'; exit 0", "ended with exit code 0 and left no result"),
        ("echo '{\"job_id\": 5}' > $(dirname $5)/result.json", "ended with exit code 0 and left no result"),
        ("head -c 100 /dev/urandom > $(dirname $5)/result.json; echo the disk is broken >&2; exit 1", "last words: the disk is broken"),
        ("for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 3", "exit code 3 and left no result; its last words: line 3 / line 4"),
    ],
)
def test_garbage(
    trainer: Trainer, tmp_path: Path, segments: list[Path], monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    """Output that the real child never gives: neither progress nor result takes it for something else, and the problem is reported."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\n{script}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr("daemon.training.command.sys.executable", str(stand_in))
    trainer.start(job(trainer, tmp_path), segments)
    stages = set()
    while (ended := trainer.ended()) is None:
        running = trainer.progress()
        stages.add(running.progress if running is not None else None)
        time.sleep(0.01)
    assert ended.problem is not None
    assert problem in ended.problem
    assert stages <= {None, Progress("x")}


def test_a_child_that_floods_its_pipe(tmp_path: Path, segments: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for its reader, who keeps the newest line alone, and is ended at its limit like any other."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\nexec yes \'{"stage": "x"}\'\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr("daemon.training.command.sys.executable", str(stand_in))
    trainer = Trainer(tmp_path / "work", time_limit_s=300.0)
    trainer.start(job(trainer, tmp_path), segments)
    while (running := trainer.progress()) is None or running.progress != Progress("x"):
        time.sleep(0.02)
    trainer.time_limit_s = 0.0
    assert awaited(trainer).problem == "took longer than the limit of 0 s and was killed"


def test_what_a_killed_daemon_left_is_removed(tmp_path: Path) -> None:
    """Snapshots hold disk space that nobody would ever free."""
    left = tmp_path / "work" / VERSION / "snapshot"
    left.mkdir(parents=True)
    (left / "segment.parquet").write_bytes(bytes(100))
    Trainer(tmp_path / "work", 1.0)
    assert list((tmp_path / "work").iterdir()) == []


class Reported:
    """The events that were reported."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.observer = Observer(lambda event, fields: self.events.append((event, fields)))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """A Training over a registry without a version, and the events that it reports."""
    reported = Reported()
    registry = Registry(tmp_path / "models")
    registry.recover()
    models = Models(registry, Journal(tmp_path / "journal"), reported.observer, 0.0)
    config = TrainingConfig(policy=TrainingPolicy(10, 10, 10, 60.0), settings=TrainingSettings(), gate=GatePolicy(), gap_multiple=5.0)
    trainer, schedule = Trainer(tmp_path / "work", 300.0), WallSchedule("", None)
    publisher = Publisher(registry, reported.observer, time.monotonic)
    training = Training(config, trainer, publisher, models, schedule, reported.observer)
    yield training, reported
    training.close()


def written(segments: list[Path]) -> Written:
    return Written(1, {}, tuple(segments), 40, {}, 0.0)


def test_a_refused_candidate_leaves_the_stream_alone(made: Any, segments: list[Path]) -> None:
    """Due, checkpoint, start, end: too little data is not a failure, and the cool-down begins."""
    training, reported = made
    training.observe(40)
    training.decide(1000.0)
    assert training.wants_checkpoint
    training.start(written(segments), 1000.0)
    while training.busy:
        training.follow(1500.0)
        time.sleep(0.02)
    assert reported.names() == ["training_due", "training_started", "training_finished", "model_refused"]
    assert "rows" in reported.events[-1][1]["reasons"][0] or "windows" in reported.events[-1][1]["reasons"][0]
    assert (training.memory.ended_s, training.memory.failed, training.memory.rows_trained) == (1500.0, False, 40)
    training.decide(1501.0)
    assert "cool-down" in training.decision.waiting_for


def test_a_training_that_runs_is_told_of(made: Any, segments: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then, for as long as the child lives, whether it says something or hangs: with its seconds, and those that it has left."""
    training, reported = made
    monkeypatch.setattr("daemon.training.cycle.PROGRESS_EVERY_S", 0.05)
    training.observe(40)
    training.decide(1000.0)
    training.start(written(segments), 1000.0)
    child = pid_of(training.trainer)
    os.kill(child, signal.SIGSTOP)
    while reported.names().count("training_progress") < 4:
        training.follow(1500.0)
        time.sleep(0.01)
    os.kill(child, signal.SIGCONT)
    progress = [fields for name, fields in reported.events if name == "training_progress"]
    seconds = [fields["seconds"] for fields in progress]
    assert seconds == sorted(seconds)
    assert all(fields["version"] == progress[0]["version"] and fields["limit_left_s"] <= 300.0 for fields in progress)


@pytest.mark.parametrize("damage", ["is missing", "cut short", "zeros in the middle"])
def test_a_damaged_segment_ends_no_training(made: Any, segments: list[Path], damage: str) -> None:
    """Its rows are left out, it is reported by its name in the buffer with what to do, and the training has the rows of all others."""
    training, reported = made
    now_s = 2e9  # after the rows: those of the future are left out
    sound = segments[0]
    damaged = sound.with_name(sound.name.replace("t-0-", "t-1-"))
    content = bytearray(sound.read_bytes())
    if damage == "zeros in the middle":
        content[100:400] = bytes(300)
    if damage != "is missing":
        damaged.write_bytes(content[: -100 if damage == "cut short" else None])
    training.observe(80)
    training.decide(now_s)
    training.start(written([sound, damaged]), now_s)
    while training.busy:
        training.follow(now_s)
        time.sleep(0.02)
    (unsound,) = [fields for name, fields in reported.events if name == "segment_unsound"]
    assert unsound["segment"] == damaged.name
    assert "restore it" in unsound["remedy"]
    (finished,) = [fields for name, fields in reported.events if name == "training_finished"]
    assert finished["rows"] == 40


def test_a_training_that_cannot_start(made: Any, segments: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a failed training, and does not end the daemon: reported, cooled down for twice as long, then tried again."""
    training, reported = made
    monkeypatch.setattr("daemon.training.child.snapshot", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    training.observe(40)
    training.decide(1000.0)
    training.start(written(segments), 1000.0)
    assert reported.names() == ["training_due", "training_failed"]
    assert "No space left" in reported.events[-1][1]["problem"]
    assert not training.busy
    training.decide(1060.0)
    assert "cool-down" in training.decision.waiting_for
    training.decide(1121.0)
    assert training.decision.start


def test_a_child_that_failed_is_not_repeated_on_the_same_rows(made: Any, segments: list[Path]) -> None:
    """It would fail again, and without a cool-down for ever: a replay, whose stream stands still meanwhile, would never end."""
    training, reported = made
    (training._models.registry.root / VERSION).mkdir()  # a live version that no training can start from
    (training._models.registry.root / "CURRENT").write_text(f"{VERSION}\n")
    training.observe(0, [opened()])
    training.observe(40)
    end_of_a_training(training, segments)
    assert reported.names()[-2:] == ["training_started", "training_failed"]
    training.decide(9000.0)
    assert training.decision.waiting_for == "rows since the drift, 0 of 10"
    training.observe(10)
    training.decide(9000.0)
    assert training.decision.reason == "drift"


def test_closing_cancels_a_training(made: Any, segments: list[Path], tmp_path: Path) -> None:
    """And leaves no half candidate."""
    training, reported = made
    training.observe(40)
    training.decide(1000.0)
    training.start(written(segments), 1000.0)
    training.close()
    assert reported.names()[-1] == "training_cancelled"
    assert not training.trainer.running
    assert [path.name for path in (tmp_path / "models").iterdir()] == []


def opened() -> IncidentChange:
    return IncidentChange("opened", "id", 0, "region", "network", "eu", 2.0, 1.0, 1.0, (), (), ("eu",), 1, (), 3, 9, "")


def test_an_incident_is_answered_by_a_training_that_has_seen_it(made: Any, segments: list[Path]) -> None:
    """Which takes note of it off; of two incidents before it, the first counts."""
    training, _ = made
    training.observe(40)
    training.observe(0, [opened()])
    training.observe(10)
    training.observe(0, [opened()])
    assert training.memory.drift_at_rows == 40
    end_of_a_training(training, segments)
    assert training.memory.drift_at_rows is None


@pytest.mark.parametrize("change", [{"scope": "link"}, {"group": "data"}, {"kind": "closed"}])
def test_one_bad_link_or_a_fault_of_the_data_asks_for_no_training(made: Any, change: dict[str, str]) -> None:
    """The model is not what is wrong."""
    training, _ = made
    training.observe(40)
    training.observe(0, [replace(opened(), **change)])
    assert training.memory.drift_at_rows is None
    assert training.memory.asked == []


def test_what_has_recovered_and_what_the_model_follows_ask_for_no_training(made: Any) -> None:
    """A change must last, and show in forecasts of the next row. Of two incidents the one that lasts still asks."""
    training, _ = made
    training.observe(40)
    training.observe(0, [opened()])
    training.observe(10)
    training.observe(0, [replace(opened(), id="other")])
    training.observe(0, [replace(opened(), kind="closed", outcome="recovered")])
    assert training.memory.drift_at_rows == 50
    training.observe(0, [replace(opened(), id="other", kind="closed", outcome="settled")])
    assert training.memory.drift_at_rows == 50
    training.observe(0, [replace(opened(), id="other", kind="closed", outcome="recovered")])
    assert (training.memory.drift_at_rows, training.memory.asked) == (None, [])
    for kind, detector, asks in (("opened", "level", False), ("updated", "cusum", True)):
        signals = (SignalChange("rtt_ms", "shift", 1, 3, 4.0, 18.0, (detector,)),)
        training.observe(0, [replace(opened(), id="third", kind=kind, signals=signals)])
        assert bool(training.memory.asked) is asks
    training.observe(0, [replace(opened(), id="third", kind="closed", outcome="fleet")])
    assert training.memory.asked == []


def test_an_incident_hears_of_the_training_that_it_asked_for(made: Any, segments: list[Path]) -> None:
    """That it started, and how it ended; one that opens meanwhile hears of the next."""
    training, _ = made
    (training._models.registry.root / VERSION).mkdir()  # a live version that no training can start from
    (training._models.registry.root / "CURRENT").write_text(f"{VERSION}\n")
    training.observe(0, [opened()])
    training.observe(40)
    outcomes = end_of_a_training(training, segments, meanwhile=lambda: training.observe(0, [replace(opened(), id="later")]))
    version = outcomes[0].version
    assert outcomes == [Outcome("started", version, ("id",)), Outcome("failed", version, ("id",))]
    assert training.memory.asked == [["id", 0], ["later", 40]]


def test_one_that_opens_during_the_training_of_another_asks_for_the_next(made: Any, segments: list[Path]) -> None:
    """The first is answered by the running one, the second is not."""
    training, _ = made
    training.observe(0, [opened()])
    training.observe(40)
    second = replace(opened(), id="second")
    end_of_a_training(training, segments, meanwhile=lambda: (training.observe(5), training.observe(0, [second])))
    assert training.memory.asked == [["second", 45]]
    assert training.memory.drift_at_rows == 45


def test_an_incident_that_opens_during_a_training_is_answered_by_the_next(made: Any, segments: list[Path]) -> None:
    """The running one has not seen its rows."""
    training, _ = made
    training.observe(40)
    end_of_a_training(training, segments, meanwhile=lambda: (training.observe(5), training.observe(0, [opened()])))
    assert training.memory.drift_at_rows == 45


def end_of_a_training(training: Training, segments: list[Path], meanwhile: Callable[[], object] = lambda: None) -> list[Outcome]:
    training.decide(1000.0)
    outcomes = training.start(written(segments), 1000.0)
    meanwhile()
    while training.busy:
        outcomes += training.follow(1500.0)
        time.sleep(0.02)
    return outcomes
