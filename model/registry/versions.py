"""Registry of published versions: one folder each, and CURRENT, the text file that names the live one."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model.registry.candidates import CANDIDATE_PREFIX, Candidate, Recovered, remove_leftovers, remove_version, reserve
from model.registry.catalogue import REFUSAL_NAME, REFUSED_NAME, Catalogue
from model.registry.choice import CURRENT_NAME, Kind
from model.registry.current import Current, RegistryError, Seen
from model.registry.durable import sync_folder
from model.registry.plain_file import is_folder
from model.registry.removal import remove_if_possible
from model.spec.verdict import Verdict
from model.version.documents import DocumentError, write_document
from model.version.manifest import check_files, complete_manifest, read_manifest, sign_manifest, signed_manifest, verify
from model.version.metadata import VERSION_FORMAT, VERSION_PATTERN

__all__ = ["CURRENT_NAME", "REFUSAL_NAME", "REFUSED_KEPT", "REFUSED_NAME", "Recovered", "Registry", "RegistryError", "Seen"]

if TYPE_CHECKING:  # `cryptography` is imported where a key is configured: 11 MB
    from model.version.signing import SigningKey, VerifyKey

REFUSED_KEPT: Final = 5
"""Refused candidates that stay: enough to see why the last ones failed; each is about 20 MB."""
NAMES_TRIED: Final = 10_000
"""Names that are tried for a new version, each a second after the one before."""

_JOB_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Registry:
    """Folder of all versions. Any number of processes publish and read: a reader reads CURRENT, then opens the folder that it names.

    Only regular files of bounded size are read, and anything in the folder that is not a version is left alone.

    signing_key: signs published versions; None: they stay unsigned. verify_key: must have signed the live version; None: no check.
    seen: with a verify key, no version older than this becomes live; the caller may store it over a restart.
    """

    root: Path
    signing_key: SigningKey | None = None
    verify_key: VerifyKey | None = None
    seen: Seen = field(default_factory=Seen, compare=False)

    def current(self) -> str | None:
        """Return the live version; None before the first. Raises RegistryError if CURRENT cannot be read or must not be followed."""
        standing = self.live.standing()
        return None if standing is None else standing.version

    @property
    def live(self) -> Current:
        """CURRENT and CHOICE."""
        return Current(self.root, self.signing_key, self.verify_key, self.seen)

    @property
    def catalogue(self) -> Catalogue:
        """The versions in the folder, live or not."""
        return Catalogue(self.root, self.verify_key)

    def versions(self) -> list[str]:
        """Return the folders that have the name of a version, oldest first."""
        return self.catalogue.versions()

    def published(self) -> list[str]:
        """Return those of them whose manifest has the same name (and is signed, if there is a verify key), sorted by name."""
        return list(self.catalogue.numbers())

    def in_order(self) -> list[str]:
        """Return the published versions in the order of their publication."""
        return self.catalogue.in_order()

    def refused(self) -> list[str]:
        """Return the refused candidates that are kept, oldest first."""
        return self.catalogue.refused()

    def folder(self, version: str) -> Path:
        """Return the folder of a version. Raises RegistryError if there is no such version."""
        if not VERSION_PATTERN.fullmatch(version) or not is_folder(self.root / version):
            raise RegistryError(f"there is no version {version!r} in {self.root}; `dwcp-learner models list` shows them")
        return self.root / version

    def trusted_digests(self, version: str) -> dict[str, str]:
        """Return the SHA-256 of each file of a version, as it was published.

        With a verify key, all of its files must be those that were signed. Without one its manifest is trusted, and the code that loads a
        file compares the digest.

        Raises:
            RegistryError: if a file or the signature does not fit, or its manifest cannot be read.
        """
        if self.verify_key is None:
            try:
                return signed_manifest(self.folder(version)).digests()
            except (DocumentError, OSError) as error:
                remedy = "restore the version from a copy, or make another one live (models rollback VERSION)"
                raise RegistryError(f"{self.root / version} cannot be proved to be what was published: {error}; {remedy}") from error
        manifest, problems = check_files(self.folder(version), self.verify_key)
        if manifest is None or problems:
            raise RegistryError(f"{self.root / version} is not trusted: {'; '.join(problems)}")
        return manifest.digests()

    def new_version(self, now_s: float) -> str:
        """Return a name for a new version: now in UTC, or a second after the newest published or refused one if that is later."""
        moment = datetime.fromtimestamp(int(now_s), UTC)
        for version in (*self.published()[-1:], *self.refused()[-1:]):
            with suppress(ValueError, OverflowError):  # v20260230_000000 looks like a version and is no time; the year 9999 ends
                moment = max(moment, datetime.strptime(version, VERSION_FORMAT).replace(tzinfo=UTC) + timedelta(seconds=1))
        return moment.strftime(VERSION_FORMAT)

    def reserve(self, now_s: float) -> Candidate:
        """Make the folder of a new candidate, under a name that no other member of this folder gives to one: see `new_version`.

        Raises:
            RegistryError: if no name is left.
            OSError: if the folder cannot be made.
        """
        moment = datetime.strptime(self.new_version(now_s), VERSION_FORMAT)  # noqa: DTZ007 - a name
        for second in range(NAMES_TRIED):
            try:
                version = (moment + timedelta(seconds=second)).strftime(VERSION_FORMAT)
            except OverflowError:
                break
            if self._is_free(version) and (candidate := reserve(self.candidate_folder(version), version)) is not None:
                if self._is_free(version):
                    return candidate
                self.discard(candidate)  # published by another member between the two looks
        raise RegistryError(f"{self.root}: no name is free from {moment:{VERSION_FORMAT}} on; remove folders that are not versions")

    def _is_free(self, version: str) -> bool:
        return not any(os.path.lexists(folder / version) for folder in (self.root, self.root / REFUSED_NAME))

    def discard(self, candidate: Candidate) -> None:
        """Remove a candidate that will not be published."""
        try:
            remove_if_possible(candidate.folder)
        finally:
            candidate.release()

    def candidate_folder(self, job_id: str) -> Path:
        """Return where a job builds its candidate, on the registry's file system so that one rename publishes it; it is not created.

        Raises:
            ValueError: if job_id is not 1 to 100 letters, digits, '_', '.' and '-'.
        """
        if not _JOB_ID.fullmatch(job_id):
            raise ValueError(f"job id {job_id!r} is not 1 to 100 letters, digits, '_', '.' or '-', the first a letter, a digit or '_'")
        return self.root / f"{CANDIDATE_PREFIX}{job_id}"

    def publish(self, candidate: Path, version: str, make_live: bool = True) -> Path:
        """Make a candidate a version, whole or not at all, and return its folder.

        It is live then, unless a person has pinned another one: see `Current.obstacle`.

        1. Verify it. 2. Number and sign it. 3. Make its files durable. 4. Rename it to its version. 5. Make the name durable. 6. Replace
        CURRENT. A crash before 4 leaves a candidate for `recover`; one between 4 and 6 a whole version that is not live.
        It is signed here, and not where it is built: the training process never sees the key.

        Args:
            candidate: its folder.
            version: its name.
            make_live: False leaves CURRENT as it is. Such a version has no number, so that nobody without the key can make it live.

        Raises:
            RegistryError: if it is not whole, or the version exists.
            OSError: if the disk refuses.
        """
        target = self.root / version
        problems = self._publication_problems(candidate, version)
        if problems:
            raise RegistryError(f"{candidate} is not published as {version}: {'; '.join(problems)}")
        make_live = make_live and self.live.obstacle() is None
        number = self.live.next_number() if make_live else 0
        self._sign(candidate, version, number)
        _sync_tree(candidate)
        candidate.rename(target)
        sync_folder(self.root)
        if make_live and self.live.obstacle() is None and not self.live.is_after((number, version)):  # a person, or a member, was faster
            self.live.set(version)
        return target

    def refuse(self, candidate: Path, version: str, verdict: Verdict) -> Path:
        """Keep a refused candidate under refused/ with its verdict beside its files, and only the newest REFUSED_KEPT of them.

        Raises:
            RegistryError, OSError: if it cannot be kept.
        """
        if not VERSION_PATTERN.fullmatch(version):
            raise ValueError(f"{version!r} is not a version: vYYYYMMDD_HHMMSS")
        refused = self.root / REFUSED_NAME
        refused.mkdir(exist_ok=True)
        if not is_folder(refused):
            raise RegistryError(f"{refused} is not a folder, so the refused candidate cannot be kept there; remove it")
        write_document(candidate / REFUSAL_NAME, {"version": version, "verdict": verdict.to_json()})
        _sync_tree(candidate)
        candidate.rename(refused / version)
        sync_folder(refused)
        sync_folder(self.root)
        newest = {version, *self.refused()[-REFUSED_KEPT:]}
        for old in self.catalogue.ever_refused():
            if old not in newest:
                remove_version(refused / old, self.root)
        return refused / version

    def rollback(self, version: str | None = None) -> str:
        """Make another version live, by default the one published before the live one, pin it, and return its name.

        Raises:
            RegistryError: if there is none, or it is not whole any more or not signed by the verify key.
        """
        return self._choose("rolled_back", version if version is not None else self.live.predecessor(self.catalogue))

    def pin_version(self, version: str | None = None) -> str:
        """Pin a version, by default the live one, and return its name: it is live whatever is trained, until `unpin`.

        With a verify key, the live one must be named explicitly if a later version exists that was made live and no person went back:
        somebody without the key may have put the older one back, or a publication has just begun or was cut off.

        Raises:
            RegistryError: if there is no such version, it cannot be used, or it has to be named.
        """
        if version is None:
            version = self.live.beyond_doubt(self.catalogue.numbers())
        return self._choose("pinned", version)

    def withdraw(self, version: str, before: str) -> bool:
        """Make `before` live in place of `version`, without a pin. Return False if that is not live, or a person has pinned something.

        Raise RegistryError as `rollback` does.
        """
        possible = self.live.pin() is None and self.live.named() == version
        return possible and self._choose("unpinned", before) == before

    def unpin(self) -> str:
        """Let trainings publish again, and return the version that is live until then. Raise RegistryError if nothing is pinned.

        It need not be whole any more: that is a reason to end its pin.
        """
        if (pin := self.live.pin()) is None:
            raise RegistryError(f"nothing is pinned in {self.root}")
        self.live.choose("unpinned", pin.version)
        return pin.version

    def _choose(self, kind: Kind, version: str) -> str:
        if problems := verify(self.folder(version), self.verify_key):
            raise RegistryError(f"{self.root / version} cannot be made live: {'; '.join(problems)}")
        self.live.choose(kind, version)
        return version

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest `keep` (at least 1) published versions, and never a live one; return the names of the deleted ones."""
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        choice = self.live.choice()
        live = {self.live.named(), None if choice is None else choice.version}
        old = [version for version in self.in_order()[:-keep] if version not in live]
        for version in old:
            remove_version(self.root / version, self.root)
        return old

    def recover(self) -> Recovered:
        """Delete the remains of a crash: see `remove_leftovers`. Raises OSError if the folder cannot be made or read."""
        self.root.mkdir(parents=True, exist_ok=True)
        return remove_leftovers(self.root)

    def _sign(self, candidate: Path, version: str, number: int) -> None:
        try:
            complete_manifest(candidate, number=number)
            if self.signing_key is not None:
                sign_manifest(candidate, self.signing_key)
        except DocumentError as error:
            raise RegistryError(f"{candidate} is not published as {version}: {error}") from error
        if self.verify_key is not None and (problems := check_files(candidate, self.verify_key)[1]):
            raise RegistryError(f"{candidate} is not published as {version}: {'; '.join(problems)}; see models.signing_key")

    def _publication_problems(self, candidate: Path, version: str) -> list[str]:
        if os.path.lexists(self.root / version):
            return ["there is already a version of that name"]
        problems = verify(candidate)
        if not problems and read_manifest(candidate).version != version:
            problems = [f"it is version {read_manifest(candidate).version}"]
        return problems


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            descriptor = os.open(Path(root) / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(root))
