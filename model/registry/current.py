"""CURRENT, the text file that names the live version, and CHOICE beside it: the rules of which version is live and who may change it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model.registry.catalogue import Catalogue
from model.registry.choice import (
    CHOICE_NAME,
    CURRENT_NAME,
    Choice,
    Kind,
    Order,
    Standing,
    StandingError,
    is_number,
    read_choice,
    stand,
    write_choice,
)
from model.registry.durable import atomic_write, sync_folder
from model.registry.plain_file import folders_in, is_folder, read_plain_bytes, reason_of
from model.version.documents import DocumentError
from model.version.manifest import read_manifest, signed_manifest
from model.version.metadata import VERSION_PATTERN

if TYPE_CHECKING:  # `cryptography` is imported where a key is configured: 11 MB
    from model.version.signing import SigningKey, VerifyKey

MOST_CURRENT_BYTES: Final = 64
"""Limit of CURRENT, bytes: four times a version's name."""
_ROLLBACK: Final = "choose one with `dwcp-learner models rollback VERSION`"


class RegistryError(Exception):
    """A version cannot be published, found or made live. The message names the version, the folder and what to do."""


@dataclass
class Seen:
    """The newest version that was ever accepted as live. An older one is accepted only if a person chose it."""

    order: Order = (0, "")

    def rise(self, order: Order) -> None:
        self.order = max(self.order, order)


@dataclass(frozen=True, slots=True)
class Current:
    """The live version of a models folder. The fields are the registry's."""

    root: Path
    signing_key: SigningKey | None = None
    verify_key: VerifyKey | None = None
    seen: Seen = field(default_factory=Seen, compare=False)

    def standing(self) -> Standing | None:
        """Return the live version, with the person's choice that is in force; None before the first version. Raises RegistryError."""
        if self.verify_key is None:
            return self._unsigned_standing()
        choice, named = self.choice(), None
        try:
            named = self.named()
            number = 0 if named is None else signed_manifest(self.root / named, self.verify_key).number
        except (RegistryError, DocumentError) as error:
            if choice is None or not choice.pins:
                said_of = f"{self.root / CURRENT_NAME} names {named}: " if named is not None else ""
                raise RegistryError(f"{said_of}{error}" + (f"; {_ROLLBACK}" if said_of else "")) from error
            named, number = None, 0
        if named is None and choice is None:
            return None
        try:
            standing = stand(named, number, choice, self.seen.order)
        except StandingError as error:
            raise RegistryError(
                f"{self.root}: {error}; to make it live, run `dwcp-learner models rollback {named or 'VERSION'}` with the signing key"
            ) from error
        if not is_folder(self.root / standing.version):
            raise RegistryError(f"{self.root}: {standing.version} is pinned and is not here; restore it, or {_ROLLBACK}")
        self.seen.rise(standing.order)
        return standing

    def _unsigned_standing(self) -> Standing | None:
        """Return the live version without a key: CURRENT is trusted. A choice counts if CURRENT names its version and it is newer."""
        if (named := self.named()) is None:
            return None
        choice = self.choice()
        if choice is not None and choice.version == named:
            number = 0  # a damaged manifest does not end a pin
            with suppress(DocumentError):
                number = read_manifest(self.root / named).number
            if number < choice.number:
                return Standing(named, choice.number, choice)
        return Standing(named)

    def named(self) -> str | None:
        """Return the version that CURRENT names, whether it may be live or not; None if there is no CURRENT. Raises RegistryError."""
        path = self.root / CURRENT_NAME
        try:
            version = read_plain_bytes(path, MOST_CURRENT_BYTES).decode(errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryError(f"{path} {reason_of(error)}; mend or remove it, then {_ROLLBACK}") from error
        if VERSION_PATTERN.fullmatch(version) is None or not is_folder(self.root / version):
            raise RegistryError(f"{path} names {version!r}, which is not here; {_ROLLBACK}")
        return version

    def choice(self) -> Choice | None:
        """Return the person's last choice; None if there is none, or none that can be trusted: see `choice_problem`."""
        with suppress(DocumentError):
            return read_choice(self.root, self.verify_key)
        return None

    def choice_problem(self) -> str | None:
        """Return why CHOICE is ignored, and what to do; None if there is none or nothing is wrong."""
        try:
            read_choice(self.root, self.verify_key)
        except DocumentError as error:
            return f"{self.root / CHOICE_NAME}: {error}; it has no effect: remove it, then pin or roll back again"
        return None

    def pin(self) -> Choice | None:
        """Return the choice that keeps a version live whatever is trained, if there is one. It counts even if CURRENT cannot be read."""
        choice = self.choice()
        if choice is None or not choice.pins:
            return None
        with suppress(RegistryError):
            if (standing := self.standing()) is not None:
                return choice if standing.choice == choice else None
        return choice if choice.number >= self.seen.order[0] else None

    def obstacle(self) -> str | None:
        """Return why no publication may change the live version (a pin, or a person's lost choice), and what to do; None if one may."""
        if (pin := self.pin()) is not None:
            return f"{self.root}: {pin.version} is pinned; `dwcp-learner models unpin` first"
        choice = self.choice()
        if choice is not None and choice.number >= self.seen.order[0]:
            return None  # the end of a pin
        try:
            self.standing()
        except RegistryError as error:
            return str(error) if self._saw_a_choice() else None
        return None

    def _saw_a_choice(self) -> bool:
        """Return whether the newest version that was live here was, or may have been, live by a person's choice."""
        number, version = self.seen.order
        try:
            return number > 0 and signed_manifest(self.root / version, self.verify_key).number < number
        except DocumentError:
            return True

    def beyond_doubt(self, numbers: Mapping[str, int]) -> str:
        """Return the live version. numbers: of the published ones, by name.

        Raises:
            RegistryError: if nothing is live, or if a version was published after the live one and no signed choice confirms the older one.
        """
        if (standing := self.standing()) is None:
            raise RegistryError(f"nothing is live in {self.root}, so there is nothing to pin; name a version")
        newest = max(numbers.items(), key=lambda entry: entry[1], default=("", 0))
        if self.verify_key is not None and newest[1] > standing.number:
            raise RegistryError(
                f"{self.root}: {standing.version} is live although {newest[0]} was published after it, and no signed choice says so; "
                "if nobody has put it back, name the version that is to be pinned"
            )
        return standing.version

    def predecessor(self, catalogue: Catalogue) -> str:
        """Return the version that was published before the live one. Raises RegistryError if there is none."""
        versions, current = catalogue.versions(), self.named()
        if not versions:
            raise RegistryError(f"there is no version in {self.root} yet, so there is none to go back to")
        if current is None:
            raise RegistryError(f"nothing is live in {self.root} ({CURRENT_NAME} is missing): name one of {', '.join(versions)}")
        if (before := catalogue.before(current)) is None:
            raise RegistryError(f"there is no version before {current} in {self.root} to go back to")
        return before

    def next_number(self) -> int:
        """Return the number of the next version or choice, higher than all that a reader may have seen.

        It is the clock's seconds, or one more than the highest number in the folder. Every version counts, not only the one that CURRENT
        names: that may be an older one, put back within the second in which the newest was published.

        Raises:
            RegistryError: if no reader would accept the number.
        """
        known = [self.seen.order[0], int(time.time()) - 1]
        if (choice := self.choice()) is not None:
            known.append(choice.number)
        for name in filter(VERSION_PATTERN.fullmatch, folders_in(self.root)):
            with suppress(DocumentError):
                known.append(signed_manifest(self.root / name, self.verify_key).number)
        if not is_number(number := max(known) + 1):
            raise RegistryError(
                f"{self.root}: no number is left after {number - 1}; see that the clock is right, and remove what has that number"
            )
        return number

    def is_after(self, order: Order) -> bool:
        """Return whether CURRENT names a version that was published after this one: another member may publish at the same moment."""
        with suppress(RegistryError, DocumentError):
            if (named := self.named()) is not None:
                return (signed_manifest(self.root / named, self.verify_key).number, named) > order
        return False

    def choose(self, kind: Kind, version: str) -> None:
        """Write a person's choice. 1. CHOICE, which a reader with a key follows. 2. Its name becomes durable. 3. CURRENT, which
        everybody else follows.

        Raises:
            RegistryError: if there is a verify key and no key to sign with, or CHOICE cannot be replaced.
        """
        if self.verify_key is not None and self.signing_key is None:
            raise RegistryError(f"{self.root}: changing the live version needs the signing key; configure models.signing_key")
        choice = Choice(kind, version, self.next_number(), round(time.time(), 3))
        try:
            write_choice(self.root, choice, self.signing_key)
        except IsADirectoryError as error:
            raise RegistryError(f"{self.root / CHOICE_NAME} is a folder, so nothing can be chosen; remove it") from error
        if (problem := self.choice_problem()) is not None:
            raise RegistryError(f"{problem}; {CURRENT_NAME} is as it was")
        sync_folder(self.root)
        self.set(version)

    def set(self, version: str) -> None:
        """Replace CURRENT through a unique temporary file: `dwcp-learner models rollback` may do the same at the same moment."""
        try:
            atomic_write(self.root / CURRENT_NAME, f"{version}\n".encode(), shared=True)
        except IsADirectoryError as error:
            raise RegistryError(f"{self.root / CURRENT_NAME} is a folder, so nothing can be made live; remove it") from error
        sync_folder(self.root)
