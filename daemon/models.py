"""The models as the daemon sees them: which version is live, and the predictors of the versions that partitions are on."""

from __future__ import annotations

import time
from dataclasses import dataclass

from daemon.journal import Journal
from daemon.observe import Observer
from model.predictor import Predictor, PredictorError
from model.registry import Registry, RegistryError


@dataclass(frozen=True, slots=True)
class Live:
    """The version that forecasts come from, and which one in a row it is (from 1)."""

    version: str
    epoch: int


class Models:
    """Follows CURRENT. Each partition moves to the live version at its next record, by a journal entry (see Partitions)."""

    def __init__(self, registry: Registry, journal: Journal, observer: Observer, follow_interval_s: float) -> None:
        self.registry = registry
        self._observer = observer
        self._follow_interval_s = follow_interval_s
        self._looked_s = -1e9
        self._loaded: dict[str, Predictor | None] = {}
        self._unusable: set[str] = set()
        self._trusted: dict[str, bool] = {}
        self._current: str | None = None
        self.live = Live(journal.live.version, journal.live.epoch) if journal.live is not None else None
        if self.live is not None:
            self._observer.went_live(self.live.version)

    def follow(self, now: bool = False) -> Live | None:
        """Looks at CURRENT if it is time to (or `now`); gives the version that went live with this call."""
        if not now and time.monotonic() - self._looked_s < self._follow_interval_s:
            return None
        self._looked_s = time.monotonic()
        version = self.current()
        if version is None or version in self._unusable or (self.live is not None and version == self.live.version):
            return None
        if self.predictor(version) is None:
            self._unusable.add(version)
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
            if str(error) not in self._unusable:
                self._unusable.add(str(error))
                self._observer.tell("model_unusable", version=None, problem=str(error), remedy="dwcp-learner models rollback VERSION")
            return self._current
        if version is None or self._trusts(version):
            self._current = version
        return self._current

    def predictor(self, version: str) -> Predictor | None:
        """Loads a version, or gives the loaded one; None (and an event) where it cannot be used."""
        if version not in self._loaded:
            try:
                folder = self.registry.folder(version)
                self._loaded[version] = Predictor.load(folder, digests=self.registry.trusted_digests(version))
            except (PredictorError, RegistryError, OSError, ValueError) as error:
                self._observer.tell("model_unusable", version=version, problem=str(error), remedy="roll back: dwcp-learner models rollback")
                self._loaded[version] = None
            for old in [known for known in self._loaded if known != version][:-1]:  # the one before is needed until partitions moved on
                del self._loaded[old]
        return self._loaded[version]

    def _trusts(self, version: str) -> bool:
        """Whether it is signed by the verify key, if there is one: found out once, for CURRENT is read at every pass of the loop.

        Neither forecasts nor the next training start from a version that is not: its successor would be signed.
        """
        if self.registry.verify_key is None:
            return True
        if version not in self._trusted:
            try:
                self.registry.trusted_digests(version)
                self._trusted[version] = True
            except RegistryError as error:
                self._trusted[version] = False
                self._observer.tell("model_unusable", version=version, problem=str(error), remedy="dwcp-learner models rollback VERSION")
        return self._trusted[version]
