"""The live version, and the predictors of the versions that partitions forecast with."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from daemon.ingest.entries import ModelLive
from daemon.ingest.journal import Journal
from daemon.ingest.loader import PASS_S, PATIENCE_S, Loader, StillReadingError
from daemon.operator.observer import Observer
from model.registry.choice import Choice, Order
from model.registry.versions import Registry, RegistryError
from model.version.predictor import Predictor, PredictorError

RETRY_S: Final = 30.0
"""Seconds until a version that could not be used is tried again: a folder that is mounted late, or a disk that refused once, is back soon,
and to read 20 MB this often costs little."""
ROLLBACK: Final = "dwcp-learner models rollback VERSION"


@dataclass(frozen=True, slots=True)
class Live:
    """The version that makes the forecasts. epoch counts the versions that went live, from 1."""

    version: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why a version could not be used. time_s: when that was found, monotonic seconds."""

    problem: str
    time_s: float
    other_features: bool = False


class Models:
    """Follows CURRENT. Each partition moves to the live version at its next record, by a journal entry (see Decisions).

    The journal remembers the newest version that was ever live here, so that an older one that is put back is refused after a restart too.
    """

    def __init__(
        self, registry: Registry, journal: Journal, observer: Observer, follow_interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Start with the version that was live before.

        Args:
            follow_interval_s: seconds between two readings of CURRENT.
            clock: monotonic seconds.
        """
        self.registry = registry
        self.loader = Loader()
        self._journal, self._observer, self._clock = journal, observer, clock
        self._follow_interval_s = follow_interval_s
        self._followed_s = -1e9
        self._loaded: dict[str, Predictor] = {}
        self._trusted: set[str] = set()
        self._failures: dict[str | None, Failure] = {}
        """The last failure of each version. Key None: the last failure to read CURRENT itself."""
        self._choice_problem: str | None = None
        self.live: Live | None = None
        self.known: str | None = None
        """The version that `current` returned last."""
        self.choice: Choice | None = None
        """The person's choice that is in force."""
        self._remembered: Order = registry.seen.order
        if (live := journal.live) is not None:
            self.live = Live(live.version, live.epoch)
            self.known = live.version
            self._remembered = live.number, live.version
            registry.seen.rise(self._remembered)
            self._observer.went_live(live.version)

    @property
    def pinned(self) -> str | None:
        """The version that stays live whatever is trained; None if a training may publish."""
        return self.choice.version if self.choice is not None and self.choice.pins else None

    @property
    def problem(self) -> str | None:
        """Reason why the live version makes no forecasts, and what to do; None while it makes them."""
        if self.live is None or self.live.version in self._loaded or (failure := self._failures.get(self.live.version)) is None:
            return None
        return (
            f"no forecasts: live version {self.live.version} cannot be loaded: {failure.problem}; see that "
            f"models.directory is there and can be read, or make another version live ({ROLLBACK}); it is tried again"
        )

    def follow(self, now: bool = False) -> Live | None:
        """Read CURRENT if it is time to, and return the version that went live with this call, if any.

        Args:
            now: read it at once, and wait until the version is loaded.
        """
        if not now and self._clock() - self._followed_s < self._follow_interval_s:
            return None
        self._followed_s = self._clock()
        wait_s = PATIENCE_S if now else PASS_S
        if self.problem is not None and self.live is not None:
            self.predictor(self.live.version, wait_s)  # load it even if the stream is silent
        version, went_live = self.current(wait_s), None
        if version is not None and (self.live is None or version != self.live.version) and self.predictor(version, wait_s) is not None:
            went_live = self.live = Live(version, (self.live.epoch if self.live is not None else 0) + 1)
            self._observer.went_live(version)
            self._observer.emit("model_live", version=version, epoch=self.live.epoch)
        self._remember()
        return went_live

    def current(self, wait_s: float = PASS_S) -> str | None:
        """Return the version that CURRENT and CHOICE make live.

        If they name a version that is missing or not trusted, that is reported, and the version that was live before is returned.

        Args:
            wait_s: how long to wait for the version's signature to be checked, seconds.
        """
        try:
            standing = self.registry.live.standing()
        except (RegistryError, OSError) as error:
            self._fail(None, error)
            return self.known
        self._failures.pop(None, None)
        if standing is None or self._trusts(standing.version, wait_s):
            self.known = None if standing is None else standing.version
            self.choice = None if standing is None else standing.choice
            self._observer.pin(self.pinned)
        self._report_choice()
        return self.known

    def predictor(self, version: str, wait_s: float = PATIENCE_S) -> Predictor | None:
        """Return the predictor of a version, loaded if necessary.

        Args:
            wait_s: how long to wait for a disk, seconds.

        Returns:
            None if the version cannot be used, which is reported; it is tried again after RETRY_S.
        """
        if version not in self._loaded and (self._may_try(version) or self.loader.is_running(version)):
            try:
                self._loaded[version] = self.loader.result(version, lambda: self._load(version), wait_s)
            except StillReadingError as error:
                if wait_s >= PATIENCE_S:
                    self._fail(version, error)
                return None
            except (PredictorError, RegistryError, OSError, ValueError) as error:
                self._fail(version, error)
                return None
            self._failures.pop(version, None)
            for old in [known for known in self._loaded if known != version][:-1]:  # partitions that have not moved on use the one before
                del self._loaded[old]
        return self._loaded.get(version)

    def has_other_features(self, version: str | None) -> bool:
        """Return whether a version reads features that this release does not compute: a training cannot continue from it."""
        failure = self._failures.get(version)
        return failure is not None and failure.other_features

    def close(self) -> None:
        """Stop loading versions."""
        self.loader.close()

    def _load(self, version: str) -> Predictor:
        return Predictor.load(self.registry.folder(version), digests=self.registry.trusted_digests(version))

    def _remember(self) -> None:
        """Write the newest version that was live into the journal, if versions are signed: an older one is refused then."""
        order = self.registry.seen.order
        if self.registry.verify_key is None or self.live is None or order == self._remembered or order[1] != self.live.version:
            return
        with suppress(OSError):  # see Journal.problem; tried again with the next call
            self._journal.append(ModelLive(self.live.epoch, self.live.version, {}, order[0]))
            self._remembered = order

    def _report_choice(self) -> None:
        """Report a choice that is damaged or not signed, once; it has no effect."""
        before, self._choice_problem = self._choice_problem, self.registry.live.choice_problem()
        if self._choice_problem is not None and self._choice_problem != before:
            self._observer.emit("choice_ignored", problem=self._choice_problem)

    def _trusts(self, version: str, wait_s: float) -> bool:
        """Return whether a version is signed by the verify key, if there is one: checked once, since CURRENT is read again and again.

        Neither forecasts nor the next training start from a version that is not: its successor would be signed.
        """
        if self.registry.verify_key is None or version in self._trusted:
            return True
        key = ("trust", version)
        if not self._may_try(version) and not self.loader.is_running(key):
            return False
        try:
            self.loader.result(key, lambda: self.registry.trusted_digests(version), wait_s)
        except (RegistryError, OSError) as error:
            if not isinstance(error, StillReadingError) or wait_s >= PATIENCE_S:
                self._fail(version, error)
            return False
        self._trusted.add(version)
        self._failures.pop(version, None)
        return True

    def _may_try(self, version: str) -> bool:
        failure = self._failures.get(version)
        return failure is None or self._clock() - failure.time_s >= RETRY_S

    def _fail(self, version: str | None, error: Exception) -> None:
        """Report a problem unless it was the last one reported: a version is tried again and again, and its problem is reported once."""
        before = self._failures.get(version)
        self._failures[version] = Failure(str(error), self._clock(), isinstance(error, PredictorError) and error.other_features)
        if before is None or before.problem != str(error):
            self._observer.emit("model_unusable", version=version, problem=str(error), remedy=ROLLBACK)
