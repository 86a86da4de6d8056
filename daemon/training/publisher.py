"""The models folder during a training: the folder of the candidate, its publication, and the removal of the remains of crashes.

Publication and removal run on a separate thread: 20 MB are read and written, and the folder may hold files of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from daemon.operator.observer import Observer
from daemon.training.child import Ended
from model.process.child import described
from model.registry.candidates import Candidate, Recovered
from model.registry.versions import Registry, RegistryError
from model.spec.verdict import Verdict
from model.version.documents import DocumentError

PROBLEMS: Final = (RegistryError, DocumentError, OSError)
"""Errors of a models folder when a disk is full, or a person has changed it: one training fails, and the stream goes on."""
LAST_PUBLICATION_S: Final = 3.0
"""Seconds that a publication has to end when the daemon stops. A version that is not published then is trained again."""


@dataclass(frozen=True, slots=True)
class Publication:
    """The end of a publication.

    Args:
        ended: the training that made the candidate.
        live: whether CURRENT names the version.
        problem: why the version was not published; None if it was.
        cleaning_problem: why old versions could not be deleted; None if they could.
    """

    ended: Ended
    live: bool = False
    problem: str | None = None
    cleaning_problem: str | None = None


class Publisher:
    """At most one candidate at a time. All methods are called from the loop's thread."""

    def __init__(self, registry: Registry, observer: Observer, clock: Callable[[], float]) -> None:
        """Start without a candidate. clock: monotonic seconds."""
        self._registry, self._observer, self._clock = registry, observer, clock
        self.since_s: float | None = None
        """Time at which the running publication began, monotonic seconds; None if none is running."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publisher")
        self._publishing: Future[Publication] | None = None
        self._candidate: Candidate | None = None
        """Candidate of the training that runs or was the last; its lock shows other members that somebody builds there."""
        self._cleaning: Future[Recovered] | None = None

    @property
    def hangs(self) -> bool:
        """True if a thread is at work in the models folder."""
        return self._publishing is not None or (self._cleaning is not None and not self._cleaning.done())

    def clean(self) -> None:
        """Begin to delete the remains of crashes in the models folder, on another thread: it may be much."""
        self._cleaning = self._thread.submit(self._registry.recover)

    def reserve(self, now_s: float) -> Candidate:
        """Return a new candidate's folder, with the version's name. now_s: UTC seconds.

        Raises:
            RegistryError, OSError: the models folder cannot be used.
        """
        self._candidate = self._registry.reserve(now_s)
        return self._candidate

    def publish(self, ended: Ended, keep_versions: int) -> None:
        """Begin to verify and publish the candidate. keep_versions: number of versions that stay."""
        self.since_s = self._clock()
        self._publishing = self._thread.submit(self._publish, ended, keep_versions)

    def follow(self) -> Publication | None:
        """Report the end of the removal, and return the publication that has ended since the last call, if any."""
        if self._cleaning is not None and self._cleaning.done():
            self._report_cleaning(self._cleaning)
            self._cleaning = None
        if self._publishing is None or not self._publishing.done():
            return None
        publication, self._publishing, self.since_s = self._publishing.result(), None, None
        if publication.problem is None:
            self._release()
        else:
            self.discard()
        return publication

    def keep_refused(self, ended: Ended, verdict: Verdict) -> None:
        """Keep a refused candidate with its reasons."""
        version = ended.spec.version
        try:
            self._registry.refuse(Path(ended.spec.candidate), version, verdict)
            self._release()
        except PROBLEMS as error:
            self.discard()
            self._observer.emit("publication_failed", version=version, problem=f"the refused candidate is not kept: {error}")

    def discard(self) -> None:
        """Delete the candidate, if there is one."""
        if self._candidate is not None:
            self._registry.discard(self._candidate)
            self._candidate = None

    def close(self) -> Publication | None:
        """Wait for a publication, which takes less than a second unless its disk hangs, and return it."""
        self._thread.shutdown(wait=False)
        at_work: list[Future[Any]] = [future for future in (self._cleaning, self._publishing) if future is not None]
        futures.wait(at_work, LAST_PUBLICATION_S)
        return self.follow()

    def _publish(self, ended: Ended, keep_versions: int) -> Publication:
        version = ended.spec.version
        try:
            self._registry.publish(Path(ended.spec.candidate), version)
            live = self._registry.live.named() == version
        except Exception as error:  # noqa: BLE001 - whatever lies in the folder, it must not end the loop
            return Publication(ended, problem=str(error) if isinstance(error, PROBLEMS) else described(error))
        try:
            self._registry.prune(keep_versions)
        except PROBLEMS as error:
            return Publication(ended, live, cleaning_problem=str(error))
        except Exception as error:  # noqa: BLE001 - the same, and the version is there
            return Publication(ended, live, cleaning_problem=described(error))
        return Publication(ended, live)

    def _report_cleaning(self, future: Future[Recovered]) -> None:
        try:
            problems = future.result().problems
        except Exception as error:  # noqa: BLE001 - whatever lies in the folder, it must not end the loop
            problems = [f"{self._registry.root} cannot be cleaned ({described(error)})"]
        for problem in problems:
            self._observer.emit("cleaning_failed", problem=problem)

    def _release(self) -> None:
        if self._candidate is not None:
            self._candidate.release()
            self._candidate = None
