"""The published versions: one folder each, and CURRENT, the text file that names the live one."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model.documents import DocumentError, write_document
from model.gate import Verdict
from model.manifest import check_files, read_manifest, sign_manifest, verify
from model.metadata import VERSION_FORMAT, VERSION_PATTERN
from model.segments import sync_folder

if TYPE_CHECKING:  # `cryptography` is imported where a key is configured: 11 MB
    from model.signing import SigningKey, VerifyKey

CURRENT_NAME: Final = "CURRENT"
REFUSED_NAME: Final = "refused"
REFUSAL_NAME: Final = "REFUSED.json"
REFUSED_KEPT: Final = 5
"""Enough to see why the last candidates failed; each is about 20 MB."""

_CANDIDATE_PREFIX: Final = ".candidate-"
_REMOVING_PREFIX: Final = ".removing-"
_CURRENT_PARTIAL: Final = f".{CURRENT_NAME}."
_JOB_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)


class RegistryError(Exception):
    """A version cannot be published, found or made live. The message says which, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Registry:
    """The folder of all versions. One process publishes; any number of others read CURRENT, then open the folder that it names.

    signing_key: signs what is published; None: it stays unsigned. verify_key: what is made live must be signed by it; None: any is taken.
    """

    root: Path
    signing_key: SigningKey | None = None
    verify_key: VerifyKey | None = None

    def current(self) -> str | None:
        """The live version; None before the first. Raises RegistryError where CURRENT cannot be read or names nothing that is there."""
        path = self.root / CURRENT_NAME
        try:
            with path.open("rb") as file:
                version = file.read(64).decode(errors="replace").strip()
            there = VERSION_PATTERN.fullmatch(version) is not None and (self.root / version).is_dir()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryError(
                f"{path} cannot be read ({error.strerror}); mend or remove it, then `dwcp-learner models rollback VERSION`"
            ) from error
        if not there:
            raise RegistryError(f"{path} names {version!r}, which is not here; choose one with `dwcp-learner models rollback VERSION`")
        return version

    def versions(self) -> list[str]:
        """All published versions, oldest first."""
        return _versions_in(self.root)

    def refused(self) -> list[str]:
        """The refused candidates that are kept, oldest first."""
        return _versions_in(self.root / REFUSED_NAME)

    def folder(self, version: str) -> Path:
        """Raises RegistryError where there is no such version."""
        if not VERSION_PATTERN.fullmatch(version) or not (self.root / version).is_dir():
            raise RegistryError(f"there is no version {version!r} in {self.root}; `dwcp-learner models list` shows them")
        return self.root / version

    def trusted_digests(self, version: str) -> dict[str, str]:
        """SHA-256 of each file of a version, as it was published.

        With a verify key all of its files must be those that were signed; without one its manifest is believed, and whoever loads a file
        compares that. Raises RegistryError where it is not signed so, or has no manifest that can be read.
        """
        if self.verify_key is None:
            try:
                return read_manifest(self.folder(version)).digests()
            except (DocumentError, OSError) as error:
                remedy = "restore the version from a copy, or make another one live (models rollback VERSION)"
                raise RegistryError(f"{self.root / version} cannot be proved to be what was published: {error}; {remedy}") from error
        manifest, problems = check_files(self.folder(version), self.verify_key)
        if manifest is None or problems:
            raise RegistryError(f"{self.root / version} is not trusted: {'; '.join(problems)}")
        return manifest.digests()

    def new_version(self, now_s: float) -> str:
        """A name for a new version: now in UTC, or a second after the newest name ever given where the clock stands before that."""
        moment = datetime.fromtimestamp(int(now_s), UTC)
        for version in (*self.versions(), *self.refused()):
            with suppress(ValueError):  # v20260230_000000 looks like a version and is no time
                moment = max(moment, datetime.strptime(version, VERSION_FORMAT).replace(tzinfo=UTC) + timedelta(seconds=1))
        return moment.strftime(VERSION_FORMAT)

    def candidate_folder(self, job_id: str) -> Path:
        """Where a job builds its candidate, on the registry's file system so that one rename publishes it; not created here.

        Raises ValueError where job_id is not 1 to 100 letters, digits, '_', '.' and '-'.
        """
        if not _JOB_ID.fullmatch(job_id):
            raise ValueError(f"job id {job_id!r} is not 1 to 100 letters, digits, '_', '.' or '-', the first a letter, a digit or '_'")
        return self.root / f"{_CANDIDATE_PREFIX}{job_id}"

    def publish(self, candidate: Path, version: str) -> Path:
        """Makes a candidate the live version, whole or not at all, and gives its folder.

        1. Verify it. 2. Sign it. 3. Make its files durable. 4. Rename it to its version. 5. Make the name durable. 6. Replace CURRENT.
        A crash before 4 leaves a candidate for `recover`; one between 4 and 6 a whole version that is not live.
        It is signed here, and not where it is built: the training process never sees the key.
        Raises RegistryError where it is not whole or the version exists; OSError where the disk refuses.
        """
        target = self.root / version
        problems = self._publication_problems(candidate, version)
        if problems:
            raise RegistryError(f"{candidate} is not published as {version}: {'; '.join(problems)}")
        self._sign(candidate, version)
        _sync_tree(candidate)
        candidate.rename(target)
        sync_folder(self.root)
        self._set_current(version)
        return target

    def refuse(self, candidate: Path, version: str, verdict: Verdict) -> Path:
        """Keeps a refused candidate under refused/ with its verdict beside its files, and only the newest REFUSED_KEPT of them."""
        if not VERSION_PATTERN.fullmatch(version):
            raise ValueError(f"{version!r} is no version: vYYYYMMDD_HHMMSS")
        refused = self.root / REFUSED_NAME
        refused.mkdir(exist_ok=True)
        write_document(candidate / REFUSAL_NAME, {"version": version, "verdict": verdict.to_json()})
        _sync_tree(candidate)
        candidate.rename(refused / version)
        sync_folder(refused)
        sync_folder(self.root)
        for old in self.refused()[:-REFUSED_KEPT]:
            self._remove(refused / old)
        return refused / version

    def rollback(self, version: str | None = None) -> str:
        """Makes an older (or any other) version live again, by default the one published before the live one; gives its name.

        Raises RegistryError where there is none, or where it is not whole any more or not signed by the verify key.
        """
        if version is None:
            version = self._before_current()
        problems = verify(self.folder(version), self.verify_key)
        if problems:
            raise RegistryError(f"{self.root / version} cannot be made live: {'; '.join(problems)}")
        self._set_current(version)
        return version

    def prune(self, keep: int) -> list[str]:
        """Deletes all but the newest `keep` versions, and never the live one; gives the names of the deleted ones."""
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        live = self.current()
        old = [version for version in self.versions()[:-keep] if version != live]
        for version in old:
            self._remove(self.root / version)
        return old

    def recover(self, jobs: Collection[str] = ()) -> list[str]:
        """Deletes what a crash left: candidates of other jobs than `jobs`, half-deleted versions, a half-written CURRENT."""
        in_use = {self.candidate_folder(job_id).name for job_id in jobs}
        removed = []
        self.root.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.root.iterdir()):
            if path.name.startswith((_CANDIDATE_PREFIX, _REMOVING_PREFIX)) and path.name not in in_use:
                shutil.rmtree(path)
                removed.append(path.name)
            elif path.name.startswith(_CURRENT_PARTIAL):
                path.unlink(missing_ok=True)
        return removed

    def _before_current(self) -> str:
        versions, current = self.versions(), self.current()
        if not versions:
            raise RegistryError(f"there is no version in {self.root} yet, so there is none to go back to")
        if current is None:
            raise RegistryError(f"nothing is live in {self.root} ({CURRENT_NAME} is missing): name one of {', '.join(versions)}")
        earlier = [known for known in versions if known < current]
        if not earlier:
            raise RegistryError(f"there is no version before {current} in {self.root} to go back to")
        return earlier[-1]

    def _sign(self, candidate: Path, version: str) -> None:
        if self.signing_key is not None:
            try:
                sign_manifest(candidate, self.signing_key)
            except DocumentError as error:
                raise RegistryError(f"{candidate} is not published as {version}: {error}") from error
        if self.verify_key is not None and (problems := check_files(candidate, self.verify_key)[1]):
            raise RegistryError(f"{candidate} is not published as {version}: {'; '.join(problems)}; see models.signing_key")

    def _publication_problems(self, candidate: Path, version: str) -> list[str]:
        if (self.root / version).exists():
            return ["there is already a version of that name"]
        problems = verify(candidate)
        if not problems and read_manifest(candidate).version != version:
            problems = [f"it is version {read_manifest(candidate).version}"]
        return problems

    def _set_current(self, version: str) -> None:
        """Through a file of its own: `dwcp-learner models rollback` may do the same at the same moment."""
        partial = self.root / f"{_CURRENT_PARTIAL}{secrets.token_hex(8)}"
        with partial.open("w", encoding="utf-8") as file:
            file.write(f"{version}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            partial.rename(self.root / CURRENT_NAME)
        except IsADirectoryError as error:
            partial.unlink()
            raise RegistryError(f"{self.root / CURRENT_NAME} is a folder, so nothing can be made live; remove it") from error
        sync_folder(self.root)

    def _remove(self, folder: Path) -> None:
        """Renamed first, and for good: no reader ever finds half a version under its name, nor does one after a power cut."""
        doomed = self.root / f"{_REMOVING_PREFIX}{folder.name}"
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        sync_folder(self.root)
        if folder.parent != self.root:
            sync_folder(folder.parent)
        shutil.rmtree(doomed)


def _versions_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if VERSION_PATTERN.fullmatch(path.name) and path.is_dir())


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            descriptor = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(root))
