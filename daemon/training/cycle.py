"""The steps of one training, pass by pass of the loop: from "training is due" to "the candidate is published or refused"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from daemon.ingest.live_model import Models
from daemon.operator.observer import Observer
from daemon.state.snapshot import Written
from daemon.training.child import Ended, Trainer
from daemon.training.ledger import Ledger
from daemon.training.memory import Memory
from daemon.training.outcomes import Answer, Outcome
from daemon.training.progress import Running
from daemon.training.publisher import PROBLEMS, Publication, Publisher
from daemon.training.schedule import Schedule
from daemon.training.settings import TrainingConfig
from daemon.training.triggers import Decision, TrainingFacts, decide_training
from drift.messages import IncidentChange
from model.buffer.segments import SegmentError
from model.judge.behind import Behind
from model.registry.candidates import Candidate
from model.spec.job import DRIFT, JobSpec

UNNAMED: Final = "none"
LEFT_OUT: Final = "its rows are left out of trainings; restore it in the folder buffer from a copy to have them back"
ROW_AHEAD_S: Final = 360.0
"""Seconds by which a row may be ahead of now: a record's limit (300), and the age of a reading of the clock (60)."""
BUDGET_SHARE: Final = 0.7
"""Share of `training.time_limit_s` that a training without a budget of its own gets for its epochs; the rest is for export and gate."""
PROGRESS_EVERY_S: Final = 30.0
"""Seconds between two lines of the log about one training, which takes minutes and may take an hour: at most 110 lines then."""


class Training:
    """Decides, starts and follows trainings. `step` is called at every pass of the loop and never waits."""

    def __init__(
        self, config: TrainingConfig, trainer: Trainer, publisher: Publisher, models: Models, schedule: Schedule, observer: Observer,
        memory: Memory | None = None, ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.config, self.trainer, self.schedule = config, trainer, schedule
        self.memory = memory or Memory()
        self.decision = Decision(False)
        self._publisher, self._models, self._observer = publisher, models, observer
        self._answering: tuple[str, ...] = ()
        """Incidents that have asked for the training that runs."""
        self._due: str | None = None
        self._rows_at_start = 0
        self._reported_seconds = 0.0
        """Age of the running training when its progress was last logged, seconds."""

    @property
    def busy(self) -> bool:
        """True if a training is due or running, or its candidate is being published."""
        return self._due is not None or self.trainer.running or self._publisher.since_s is not None

    @property
    def hangs(self) -> bool:
        """True if a thread is at work in the models folder."""
        return self._publisher.hangs

    @property
    def publishing_since_s(self) -> float | None:
        """Time at which the running publication began, monotonic seconds; None if none is running."""
        return self._publisher.since_s

    @property
    def wants_checkpoint(self) -> bool:
        """True if a training is due: it starts on the segments of the next checkpoint."""
        return self._due is not None

    def observe(
        self, rows: int, changes: Sequence[IncidentChange] = (), monitored: int = 1, behind: Sequence[Behind] = ()
    ) -> None:  # fmt: skip
        """Count accepted records, and note what may ask for a training. Call it before the checkpoint that includes them.

        Args:
            rows: accepted since the last call.
            changes: of incidents.
            monitored: number of monitored links.
            behind: where the live version is worse than what is published, the worst first.
        """
        self.memory.rows += rows
        for change in changes:
            self.memory.observe(change, monitored)
        if self.memory.observe_behind(behind=bool(behind)):
            worst = behind[0]
            live = self._models.live
            self._observer.emit(
                "version_behind", version=None if live is None else live.version, region=worst.region, link_type=worst.link_type,
                target=worst.target, worse_by=round(worst.share, 3), places=len(behind),
            )  # fmt: skip

    def step(self, now_s: float, written: Written | None, *, decides: bool) -> list[Outcome]:
        """Start the training that is due on a checkpoint, follow the one that runs, and decide whether another is due.

        Args:
            now_s: UTC seconds.
            written: the checkpoint that was written in this pass, if any.
            decides: whether another training may become due.

        Returns:
            The outcomes of this pass, in order.
        """
        outcomes = self.start(written, now_s) if written is not None else []
        outcomes += self.follow(now_s)
        if decides:
            self.decide(now_s)
        return outcomes

    def decide(self, now_s: float) -> None:
        """Mark a training as due, if it is. now_s: UTC seconds."""
        memory = self.memory
        facts = TrainingFacts(
            running=self.busy,
            has_version=self._models.known is not None and not self._models.has_other_features(self._models.known),
            rows=memory.rows,
            new_rows=memory.rows - memory.rows_trained,
            schedule_due=self.schedule.due_at(now_s),
            drift_rows=None if memory.drift_at_rows is None else memory.rows - memory.drift_at_rows,
            ended_s=memory.ended_s,
            failed=memory.failed,
            pinned=self._models.pinned is not None,
            behind_rows=None if memory.behind_at_rows is None else memory.rows - memory.behind_at_rows,
            unpaid=memory.unpaid,
        )
        self.decision = decide_training(now_s, facts, self.config.policy)
        if self.decision.start:
            self._due = self.decision.reason
            self._observer.emit("training_due", reason=self._due, rows=facts.rows, new_rows=facts.new_rows)

    def start(self, written: Written, now_s: float) -> list[Outcome]:
        """Start the training that is due, if one is, on the segments that a checkpoint names. Return the outcomes."""
        if self._due is None:
            return []
        reason, self._due = self._due, None
        self._rows_at_start = self.memory.rows
        self._answering = tuple(incident for incident, _ in self.memory.asked)  # whatever the reason, the training reads their rows
        version, parent = UNNAMED, self._parent()
        try:
            candidate = self._publisher.reserve(now_s)
            version = candidate.version
            self.trainer.start(self._spec(candidate, parent, reason, now_s), self._present(written.segments))
        except (*PROBLEMS, SegmentError, ValueError, OverflowError) as error:
            self._publisher.discard()
            return [self._failed(now_s, version, str(error), 0.0)]
        self.schedule.answered()
        self._observer.training.set(1)
        self._reported_seconds = 0.0
        self._observer.emit("training_started", version=version, reason=reason, parent=parent, rows=written.rows)
        return [self._outcome("started", version)]

    def follow(self, now_s: float) -> list[Outcome]:
        """Return the outcomes of the running training. Its progress is logged at a fixed interval, however often the child reports."""
        outcomes: list[Outcome] = []
        if (ended := self.trainer.ended()) is not None:
            self._observer.training.set(0)
            outcomes += self._ended(ended, now_s)
        if (running := self.trainer.progress()) is not None and running.seconds - self._reported_seconds >= PROGRESS_EVERY_S:
            self._reported_seconds = running.seconds
            self._observer.emit("training_progress", **running.fields())
        if (publication := self._publisher.follow()) is not None:
            outcomes.append(self._published(publication, now_s))
        return outcomes

    def progress(self) -> Running | None:
        """Return how far the running training is; None if none is running."""
        return self.trainer.progress()

    def recover(self) -> None:
        """Begin to delete the remains of crashes in the models folder."""
        self._publisher.clean()

    def reload(self, config: TrainingConfig, time_limit_s: float) -> None:
        """Use a changed configuration from the next training on."""
        self.config = config
        self.trainer.time_limit_s = time_limit_s

    def close(self) -> list[Outcome]:
        """Cancel a running training, wait for a publication, and return the outcomes."""
        if (ended := self.trainer.cancel()) is not None:
            self._publisher.discard()
            self._observer.emit("training_cancelled", version=ended.spec.version, seconds=round(ended.seconds, 1))
        if (publication := self._publisher.close()) is None:
            return []
        return [self._published(publication, publication.ended.spec.created_at_s + publication.ended.seconds)]

    def _spec(self, candidate: Candidate, parent: str | None, reason: str, now_s: float) -> JobSpec:
        """Return the job of a training. Raise RegistryError if the version that it starts from is gone."""
        settings = self.config.settings
        if reason == DRIFT:
            settings = msgspec.structs.replace(settings, time_budget_s=self.config.drift_time_budget_s)
        elif settings.time_budget_s is None:  # it is better to end a training than to have it killed
            settings = msgspec.structs.replace(settings, time_budget_s=BUDGET_SHARE * self.trainer.time_limit_s)
        return JobSpec(
            job_id=candidate.version,
            version=candidate.version,
            created_at_s=now_s,
            reason=reason,
            snapshot=str(self.trainer.folder(candidate.version) / "snapshot"),
            candidate=str(candidate.folder),
            parent=str(self._models.registry.folder(parent)) if parent is not None else None,
            settings=settings,
            gate=self.config.gate,
            architecture=self.config.architecture,
            gap_multiple=self.config.gap_multiple,
            local_time=self.config.local_time,
            latest_row_s=now_s + ROW_AHEAD_S,
        )

    def _parent(self) -> str | None:
        """Return the version that a training continues; None if there is none, or if it reads other features than this release."""
        live = self._models.current()
        if live is None or not self._models.has_other_features(live):
            return live
        self._observer.emit("features_changed", version=live)
        return None

    def _present(self, segments: Iterable[Path]) -> list[Path]:
        """Return the segments that still exist, and report the others: a training on the rest is better than none."""
        present = []
        for path in segments:
            if path.exists():
                present.append(path)
            else:
                self._observer.emit("segment_unsound", segment=path.name, problem="is missing", remedy=LEFT_OUT)
        return present

    def _ended(self, ended: Ended, now_s: float) -> list[Outcome]:
        """Publish the candidate of a training that has ended, or record why it is not published."""
        version, result = ended.spec.version, ended.result
        if self.ledger is not None:
            self.ledger.training(ended, now_s)
        for segment, problem in (result.unsound if result is not None else {}).items():
            self._observer.emit("segment_unsound", segment=segment, problem=problem, remedy=LEFT_OUT)
        if result is None or result.status == "failed":
            self._publisher.discard()
            self.memory.wait_for_more_rows(self._rows_at_start)
            return [self._failed(now_s, version, ended.problem or "no reason given", ended.seconds)]
        self._observer.emit(
            "training_finished", version=version, status=result.status, seconds=round(ended.seconds, 1), rows=result.rows,
            windows=result.windows, stage_s=result.stage_s,
        )  # fmt: skip
        self.memory.trained(now_s, self._rows_at_start, self._answering, paid=result.status == "candidate")
        if result.status == "candidate":
            self._publisher.publish(ended, self.config.keep_versions)
            return []
        verdict = result.verdict if result.status == "refused" else None
        reasons = list(verdict.reasons) if verdict is not None else [result.error or "too little data"]
        self._observer.emit("model_refused", version=version, reasons=reasons)
        if verdict is not None:
            self._publisher.keep_refused(ended, verdict)
        else:
            self._publisher.discard()
        return [self._outcome("refused", version)]

    def _published(self, publication: Publication, now_s: float) -> Outcome:
        spec, result = publication.ended.spec, publication.ended.result
        if publication.problem is not None:
            self.memory.training_failed(now_s)
            self._observer.emit("publication_failed", version=spec.version, problem=publication.problem)
            return self._outcome("failed", spec.version)
        verdict = result.verdict.to_json() if result is not None and result.verdict is not None else None
        self._observer.emit(
            "model_published", version=spec.version, reason=spec.reason, parent=spec.parent, verdict=verdict, live=publication.live
        )
        if publication.cleaning_problem is not None:
            self._observer.emit("cleaning_failed", problem=publication.cleaning_problem)
        return self._outcome("published", spec.version)

    def _failed(self, now_s: float, version: str, problem: str, seconds: float) -> Outcome:
        self.memory.training_failed(now_s)
        self._observer.emit("training_failed", version=version, problem=problem, seconds=round(seconds, 1))
        return self._outcome("failed", version)

    def _outcome(self, answer: Answer, version: str) -> Outcome:
        return Outcome(answer, version, self._answering)
