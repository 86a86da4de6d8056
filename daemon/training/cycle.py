"""From "training is due" to "the candidate is published or refused": the steps of one training, as the loop comes by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from daemon.ingest.live_model import Models
from daemon.operator.observer import Observer
from daemon.state.snapshot import Written
from daemon.training.child import Ended, Trainer
from daemon.training.progress import Running
from daemon.training.schedule import Schedule
from daemon.training.triggers import Decision, TrainingFacts, TrainingPolicy, decide_training
from drift.messages import IncidentChange
from model.buffer.segments import SegmentError
from model.judge.gate import GatePolicy, Verdict
from model.process.child import described
from model.registry.candidates import Candidate, Recovered
from model.registry.versions import RegistryError
from model.spec.architecture import Architecture, Lstm
from model.spec.job import JobSpec, TrainingSettings
from model.version.documents import DocumentError

PROBLEMS: Final = (RegistryError, DocumentError, OSError)
"""What a models folder does when a disk is full, or a person has changed it: one training fails, and the stream goes on."""
UNNAMED: Final = "none"
LEFT_OUT: Final = "its rows are left out of trainings; restore it in the folder buffer from a copy to have them back"
ROW_AHEAD_S: Final = 360.0
"""Seconds by which a row may be ahead of now: a record's limit (300), and how old a reading of the clock may be (60)."""
ASKED_MAX: Final = 1000
"""Incidents that are told what becomes of the next training: the newest."""
Answer = Literal["started", "published", "refused", "failed"]
PROGRESS_EVERY_S: Final = 30.0
"""Between two lines of the log about one training, which takes minutes and may take an hour: at most 110 of them then."""
LAST_PUBLICATION_S: Final = 3.0
"""When the daemon stops. A version that is not published then is trained again."""


@dataclass
class Memory:
    """What training remembers over a restart; rows count accepted records of this process's state."""

    rows: int = 0
    rows_trained: int = 0
    drift_at_rows: int | None = None
    ended_s: float | None = None
    failed: bool = False
    announced: str | None = None
    choice: int = 0
    """Number of the last choice of a person that was announced."""
    asked: list[list[Any]] = field(default_factory=list)
    """Incidents that no training has answered, each with the rows at which it opened."""


@dataclass(frozen=True, slots=True)
class Publication:
    """How one ended. live: whether CURRENT names it; problem: why old versions could not be deleted."""

    live: bool
    problem: str | None = None


@dataclass(frozen=True)
class TrainingConfig:
    """What a job is told. gap_multiple: as the features have it."""

    policy: TrainingPolicy
    settings: TrainingSettings
    gate: GatePolicy
    gap_multiple: float
    drift_time_budget_s: float | None = None
    architecture: Architecture = field(default_factory=Lstm)
    keep_versions: int = 10


class Training:
    """Decides, starts and follows trainings. `step` is called at every pass of the loop and never waits."""

    def __init__(
        self,
        config: TrainingConfig,
        trainer: Trainer,
        models: Models,
        schedule: Schedule,
        observer: Observer,
        announce: Callable[[str], None],
        answered: Callable[[str, Answer, str], None],
        memory: Memory | None = None,
    ) -> None:
        self.config, self.trainer, self.models, self.schedule = config, trainer, models, schedule
        self.registry = models.registry
        self.memory = memory or Memory()
        self.decision = Decision(False)
        self._observer, self._announce, self._answered = observer, announce, answered
        self._answering: list[str] = []
        self._due: str | None = None
        self._rows_at_start = 0
        self._told_seconds = 0.0
        """Of the running training, when it was last told how far it is."""
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publisher")
        self._publishing: tuple[Ended, Future[Publication]] | None = None
        self.publishing_since_s = 0.0
        self._candidate: Candidate | None = None
        """Of the training that runs or was the last; its lock tells other members that somebody builds there."""
        self._cleaning: Future[Recovered] | None = None

    @property
    def busy(self) -> bool:
        """A training is due, runs, or its candidate is being published."""
        return self._due is not None or self.trainer.running or self._publishing is not None

    @property
    def hangs(self) -> bool:
        """Whether a thread is at work in the models folder."""
        return self._publishing is not None or (self._cleaning is not None and not self._cleaning.done())

    @property
    def publication_s(self) -> float:
        """For how long a candidate has been verified and published; 0 where none is."""
        return time.monotonic() - self.publishing_since_s if self._publishing is not None else 0.0

    @property
    def wants_checkpoint(self) -> bool:
        """A due training starts on the segments of the next checkpoint."""
        return self._due is not None

    def took(self, rows: int) -> None:
        self.memory.rows += rows

    def heard(self, change: IncidentChange) -> None:
        """An incident of a region or of the fleet that opens asks for a training on what comes after it. One bad link says nothing of the
        model, and a fault of the data must not be learnt."""
        if change.kind != "opened" or change.scope == "link" or change.group != "network":
            return
        self.memory.asked = [*self.memory.asked, [change.id, self.memory.rows]][-ASKED_MAX:]
        if self.memory.drift_at_rows is None:
            self.memory.drift_at_rows = self.memory.rows

    def decide(self, now_s: float) -> None:
        """Marks a training as due. now_s: UTC seconds."""
        memory = self.memory
        facts = TrainingFacts(
            running=self.busy,
            has_version=self.models.known is not None and not self.models.has_other_features(self.models.known),
            rows=memory.rows,
            new_rows=memory.rows - memory.rows_trained,
            schedule_due=self.schedule.due,
            drift_rows=None if memory.drift_at_rows is None else memory.rows - memory.drift_at_rows,
            ended_s=memory.ended_s,
            failed=memory.failed,
            pinned=self.models.pinned is not None,
        )
        self.decision = decide_training(now_s, facts, self.config.policy)
        if self.decision.start:
            self._due = self.decision.reason
            self._observer.tell("training_due", reason=self._due, rows=facts.rows, new_rows=facts.new_rows)

    def start(self, written: Written, now_s: float) -> None:
        """Starts the training that is due on the segments that a checkpoint has just named."""
        if self._due is None:
            return
        reason, self._due = self._due, None
        self._rows_at_start = self.memory.rows
        self._answering = [incident for incident, _ in self.memory.asked]  # whatever the reason, it sees their rows
        version, parent = UNNAMED, self._parent()
        try:
            self._candidate = self.registry.reserve(now_s)
            version = self._candidate.version
            self.trainer.start(self._spec(self._candidate, parent, reason, now_s), self._present(written.segments))
        except (*PROBLEMS, SegmentError, ValueError, OverflowError) as error:
            self._discard()
            self._failed(now_s, version, str(error), 0.0)
            return
        self.schedule.answered()
        self._observer.training.set(1)
        self._told_seconds = 0.0
        self._observer.tell("training_started", version=version, reason=reason, parent=parent, rows=written.rows)
        self._answer("started", version)

    def _parent(self) -> str | None:
        """Return the version that a training continues; None if there is none, or it reads other features than this release computes."""
        live = self.models.current()
        if live is None or not self.models.has_other_features(live):
            return live
        self._observer.tell("features_changed", version=live)
        return None

    def _present(self, segments: Iterable[Path]) -> list[Path]:
        """Without those that somebody has deleted: the others are worth a training."""
        there = []
        for path in segments:
            if path.exists():
                there.append(path)
            else:
                self._observer.tell("segment_unsound", segment=path.name, problem="is missing", remedy=LEFT_OUT)
        return there

    def _spec(self, candidate: Candidate, parent: str | None, reason: str, now_s: float) -> JobSpec:
        """Raises RegistryError where the version that training would start from is gone."""
        settings = self.config.settings
        return JobSpec(
            job_id=candidate.version,
            version=candidate.version,
            created_at_s=now_s,
            reason=reason,
            snapshot=str(self.trainer.folder(candidate.version) / "snapshot"),
            candidate=str(candidate.folder),
            parent=str(self.registry.folder(parent)) if parent is not None else None,
            settings=replace(settings, time_budget_s=self.config.drift_time_budget_s) if reason == "drift" else settings,
            gate=self.config.gate,
            architecture=self.config.architecture,
            gap_multiple=self.config.gap_multiple,
            latest_row_s=now_s + ROW_AHEAD_S,
        )

    def recover(self) -> None:
        """Begins to delete what crashes have left in the models folder: at the start, beside the loop, for it may be much."""
        self._cleaning = self._publisher.submit(self.registry.recover)

    def follow(self, now_s: float) -> None:
        """Notices the end of the child, of a publication and of the cleaning, and tells now and then how far the child is."""
        if self._cleaning is not None and self._cleaning.done():
            self._cleaned(self._cleaning)
            self._cleaning = None
        if (ended := self.trainer.ended()) is not None:
            self._observer.training.set(0)
            self._finish(ended, now_s)
        if (running := self.trainer.progress()) is not None:
            self._tell_progress(running)
        if self._publishing is not None and self._publishing[1].done():
            ended, future = self._publishing
            self._publishing = None
            self._published(ended, future, now_s)

    def _cleaned(self, future: Future[Recovered]) -> None:
        try:
            problems = future.result().problems
        except Exception as error:  # noqa: BLE001 - whatever lies in the folder, it must not end the loop
            problems = [f"{self.registry.root} cannot be cleaned ({described(error)})"]
        for problem in problems:
            self._observer.tell("cleaning_failed", problem=problem)

    def _tell_progress(self, running: Running) -> None:
        """However much or little the child says: one that is silent shows by its seconds, and one that floods its pipe by nothing."""
        if running.seconds - self._told_seconds >= PROGRESS_EVERY_S:
            self._told_seconds = running.seconds
            self._observer.tell("training_progress", **running.fields())

    def progress(self) -> Running | None:
        """How far the training is that runs; None where none does."""
        return self.trainer.progress()

    def close(self) -> None:
        """Cancels a running training; waits for a publication, which takes less than a second, unless its disk hangs."""
        if (ended := self.trainer.cancel()) is not None:
            self._discard()
            self._observer.tell("training_cancelled", version=ended.spec.version, seconds=round(ended.seconds, 1))
        self._publisher.shutdown(wait=False)
        at_work: list[Future[Any]] = [] if self._cleaning is None else [self._cleaning]
        at_work += [] if self._publishing is None else [self._publishing[1]]
        futures.wait(at_work, LAST_PUBLICATION_S)
        if self._cleaning is not None and self._cleaning.done():
            self._cleaned(self._cleaning)
            self._cleaning = None
        if self._publishing is not None and self._publishing[1].done():
            ended, future = self._publishing
            self._publishing = None
            self._published(ended, future, ended.spec.created_at_s + ended.seconds)

    def reload(self, config: TrainingConfig, time_limit_s: float) -> None:
        """Takes a changed configuration for the next training."""
        self.config = config
        self.trainer.time_limit_s = time_limit_s

    def _finish(self, ended: Ended, now_s: float) -> None:
        result, version = ended.result, ended.spec.version
        for segment, problem in (result.unsound if result is not None else {}).items():
            self._observer.tell("segment_unsound", segment=segment, problem=problem, remedy=LEFT_OUT)
        if result is None or result.status == "failed":
            self._discard()
            self._wait_for_more_rows()
            self._failed(now_s, version, ended.problem or "no reason given", ended.seconds)
            return
        self._observer.tell(
            "training_finished", version=version, status=result.status, seconds=round(ended.seconds, 1), rows=result.rows,
            windows=result.windows, stage_s=result.stage_s,
        )  # fmt: skip
        memory = self.memory
        memory.ended_s, memory.failed, memory.rows_trained = now_s, False, self._rows_at_start
        memory.asked = [[incident, rows] for incident, rows in memory.asked if incident not in self._answering]
        if memory.drift_at_rows is not None and memory.drift_at_rows <= self._rows_at_start:
            # One that opened during the training is still unanswered.
            memory.drift_at_rows = min((rows for _, rows in memory.asked), default=None)
        if result.status == "candidate":
            self.publishing_since_s = time.monotonic()
            self._publishing = ended, self._publisher.submit(self._publish, Path(ended.spec.candidate), version)
        elif result.status == "refused":
            assert result.verdict is not None  # JobResult: refused candidates have a verdict
            self._observer.tell("model_refused", version=version, reasons=list(result.verdict.reasons))
            self._answer("refused", version)
            self._keep_refused(ended, result.verdict)
        else:
            self._discard()
            self._observer.tell("model_refused", version=version, reasons=[result.error or "too little data"])
            self._answer("refused", version)

    def _wait_for_more_rows(self) -> None:
        """The same rows would fail a child in the same way, again and again where there is no cool-down (replay)."""
        memory = self.memory
        memory.rows_trained = self._rows_at_start
        if memory.drift_at_rows is not None:
            memory.drift_at_rows = max(memory.drift_at_rows, self._rows_at_start)

    def _publish(self, candidate: Path, version: str) -> Publication:
        """On the publisher's thread: 20 MB are read and written, and whatever may lie in the folder."""
        self.registry.publish(candidate, version)
        live = self.registry.live.named() == version
        try:
            self.registry.prune(self.config.keep_versions)
        except PROBLEMS as error:
            return Publication(live, str(error))
        return Publication(live)

    def _published(self, ended: Ended, future: Future[Publication], now_s: float) -> None:
        version, result = ended.spec.version, ended.result
        try:
            publication = future.result()
        except Exception as error:  # noqa: BLE001 - whatever lies in the folder, it must not end the loop
            self.memory.failed, self.memory.ended_s = True, now_s
            self._discard()
            problem = str(error) if isinstance(error, PROBLEMS) else described(error)
            self._observer.tell("publication_failed", version=version, problem=problem)
            self._answer("failed", version)
            return
        self._let_go()
        verdict = result.verdict.to_json() if result is not None and result.verdict is not None else None
        self._observer.tell(
            "model_published", version=version, reason=ended.spec.reason, parent=ended.spec.parent, verdict=verdict, live=publication.live
        )
        self._answer("published", version)
        self.announce(version)
        if publication.problem is not None:
            self._observer.tell("cleaning_failed", problem=publication.problem)

    def announce(self, version: str) -> None:
        """Tells subscribers of a published version; one that cannot be read any more is told at the next start, if it is whole then."""
        try:
            self._announce(version)
        except PROBLEMS as error:
            self._observer.tell("publication_failed", version=version, problem=f"it is not announced: {error}")
        else:
            self.memory.announced = version

    def _keep_refused(self, ended: Ended, verdict: Verdict) -> None:
        try:
            self.registry.refuse(Path(ended.spec.candidate), ended.spec.version, verdict)
            self._let_go()
        except PROBLEMS as error:
            self._discard()
            problem = f"the refused candidate is not kept: {error}"
            self._observer.tell("publication_failed", version=ended.spec.version, problem=problem)

    def _failed(self, now_s: float, version: str, problem: str, seconds: float) -> None:
        self.memory.failed, self.memory.ended_s = True, now_s
        self._observer.tell("training_failed", version=version, problem=problem, seconds=round(seconds, 1))
        self._answer("failed", version)

    def _answer(self, answer: Answer, version: str) -> None:
        """Tells the incidents that have asked for this training what becomes of it."""
        for incident in self._answering:
            self._answered(incident, answer, version)

    def _discard(self) -> None:
        if self._candidate is not None:
            self.registry.discard(self._candidate)
            self._candidate = None

    def _let_go(self) -> None:
        if self._candidate is not None:
            self._candidate.release()
            self._candidate = None
