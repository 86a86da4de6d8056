"""The models as the daemon sees them: which version is live, and the predictors of the versions that partitions are on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from daemon.journal import Journal
from daemon.observe import Observer
from model.predictor import Predictor, PredictorError
from model.registry import Registry, RegistryError

RETRY_S: Final = 30.0
"""Before a version that could not be used is tried again: a folder that is mounted late, or a disk that refused once, is back soon, and to
read 20 MB so often costs little where nothing has changed."""
ROLLBACK: Final = "dwcp-learner models rollback VERSION"


@dataclass(frozen=True, slots=True)
class Live:
    """The version that forecasts come from, and which one in a row it is (from 1)."""

    version: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a version could not be used, and when that was found, monotonic seconds."""

    problem: str
    time_s: float


class Models:
    """Follows CURRENT. Each partition moves to the live version at its next record, by a journal entry (see Partitions)."""

    def __init__(self, registry: Registry, journal: Journal, observer: Observer, follow_interval_s: float) -> None:
        self.registry = registry
        self._observer = observer
        self._follow_interval_s = follow_interval_s
        self._looked_s = -1e9
        self._loaded: dict[str, Predictor] = {}
        self._trusted: set[str] = set()
        self._failures: dict[str | None, Failure] = {}
        """By version; None: of CURRENT itself."""
        self._current: str | None = None
        self.live = Live(journal.live.version, journal.live.epoch) if journal.live is not None else None
        if self.live is not None:
            self._observer.went_live(self.live.version)

    @property
    def problem(self) -> str | None:
        """Why there are no forecasts of the live version, and what to do; None while all is well."""
        if self.live is None or self.live.version in self._loaded or (failure := self._failures.get(self.live.version)) is None:
            return None
        return (
            f"there are no forecasts, for the live version {self.live.version} cannot be loaded: {failure.problem}; see that "
            f"models.directory is there and can be read, or make another version live ({ROLLBACK}); it is tried again"
        )

    def follow(self, now: bool = False) -> Live | None:
        """Looks at CURRENT if it is time to (or `now`); gives the version that went live with this call."""
        if not now and time.monotonic() - self._looked_s < self._follow_interval_s:
            return None
        self._looked_s = time.monotonic()
        if self.problem is not None and self.live is not None:
            self.predictor(self.live.version)  # a stream that is silent asks for none
        version = self.current()
        if version is None or (self.live is not None and version == self.live.version) or self.predictor(version) is None:
            return None
        self.live = Live(version, (self.live.epoch if self.live is not None else 0) + 1)
        self._observer.went_live(version)
        self._observer.tell("model_live", version=version, epoch=self.live.epoch)
        return self.live

    def current(self) -> str | None:
        """The version that CURRENT names; where it names none that is there, or none that is trusted, the one that was live before
        (and an event)."""
        try:
            version = self.registry.current()
        except RegistryError as error:
            self._fail(None, error)
            return self._current
        self._failures.pop(None, None)
        if version is None or self._trusts(version):
            self._current = version
        return self._current

    def predictor(self, version: str) -> Predictor | None:
        """Loads a version, or gives the loaded one; None (and an event) where it cannot be used, which is found out again after RETRY_S."""
        if version not in self._loaded and self._may_try(version):
            try:
                folder = self.registry.folder(version)
                self._loaded[version] = Predictor.load(folder, digests=self.registry.trusted_digests(version))
            except (PredictorError, RegistryError, OSError, ValueError) as error:
                self._fail(version, error)
                return None
            self._failures.pop(version, None)
            for old in [known for known in self._loaded if known != version][:-1]:  # the one before is needed until partitions moved on
                del self._loaded[old]
        return self._loaded.get(version)

    def _trusts(self, version: str) -> bool:
        """Whether it is signed by the verify key, if there is one: found out once, for CURRENT is read at every pass of the loop.

        Neither forecasts nor the next training start from a version that is not: its successor would be signed.
        """
        if self.registry.verify_key is None or version in self._trusted:
            return True
        if not self._may_try(version):
            return False
        try:
            self.registry.trusted_digests(version)
        except (RegistryError, OSError) as error:
            self._fail(version, error)
            return False
        self._trusted.add(version)
        self._failures.pop(version, None)
        return True

    def _may_try(self, version: str) -> bool:
        failure = self._failures.get(version)
        return failure is None or time.monotonic() - failure.time_s >= RETRY_S

    def _fail(self, version: str | None, error: Exception) -> None:
        """Told where it is another problem than the one before: what is tried again and again is told once."""
        before, self._failures[version] = self._failures.get(version), Failure(str(error), time.monotonic())
        if before is None or before.problem != str(error):
            self._observer.tell("model_unusable", version=version, problem=str(error), remedy=ROLLBACK)
