"""CHOICE, the file beside CURRENT that holds a person's last decision on the live version: a rollback, a pin, or the end of one.

Two lines: a JSON object, and the signature of that line if there is a signing key. A version that is made live by its publication carries a
number in its manifest, and a choice carries one too. Numbers only rise, so that an older state cannot be put back: see `stand`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from model.registry.durable import atomic_write
from model.version.documents import DocumentError, parse_document, read_plain
from model.version.metadata import VERSION_PATTERN

if TYPE_CHECKING:  # `cryptography` is imported where a key is configured: 11 MB
    from model.version.signing import SigningKey, VerifyKey

CURRENT_NAME: Final = "CURRENT"
CHOICE_NAME: Final = "CHOICE"
MOST_CHOICE_BYTES: Final = 4096
SCHEMA_VERSION: Final = 1
MOST_TIME_S: Final = 2**53
"""Largest time, UTC seconds: every reader of JSON has exact integers up to here."""
MOST_AHEAD: Final = 100 * 366 * 86_400
"""Largest lead of a number over the reader's clock, seconds: a century, since that clock may stand at 1970. A number is about the seconds
of the clock at which it was assigned. The limit rises with the clock, so that there is always a higher number than any accepted one."""
Kind = Literal["rolled_back", "pinned", "unpinned"]
Order = tuple[int, str]
"""Number and name of a version that is or was live. Versions of older releases have the number 0, and their names in order."""


class StandingError(ValueError):
    """The version that CURRENT names must not be live. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A person's last decision: which version is live. time_s: UTC seconds. Trainings publish over it only if it is "unpinned"."""

    kind: Kind
    version: str
    number: int
    time_s: float

    @property
    def pins(self) -> bool:
        return self.kind != "unpinned"


@dataclass(frozen=True, slots=True)
class Standing:
    """The live version. number: the higher one of its manifest's and its choice's. choice: the one that is in force, if there is one."""

    version: str
    number: int = 0
    choice: Choice | None = None

    @property
    def order(self) -> Order:
        return self.number, self.version


def stand(version: str | None, number: int, choice: Choice | None, seen: Order) -> Standing:
    """Return the live version for a reader who has the public key.

    A person's pin counts, whatever CURRENT names: that can be written without the key.

    Args:
        version: that CURRENT names; None if it names none that is signed.
        number: of its signed manifest, 0 if it has none.
        choice: the signed one, if there is one.
        seen: the newest that this reader has ever accepted.

    Raises:
        StandingError: if it is older than what was seen and no person chose it since.
    """
    if choice is not None and choice.number > number and choice.number >= seen[0] and (choice.pins or choice.version == version):
        standing = Standing(choice.version, choice.number, choice)
    elif version is not None:
        standing = Standing(version, number)
    else:
        raise StandingError(f"{CURRENT_NAME} does not name a version that can be used")
    if standing.version == seen[1] and standing.number < seen[0]:
        raise StandingError(f"the choice that made {standing.version} live (number {seen[0]}) is gone or older")
    if standing.order < seen:
        raise StandingError(
            f"{standing.version} is older than {seen[1]}, which was live here already, and nobody who has the signing key went back to it"
        )
    return standing


def write_choice(folder: Path, choice: Choice, key: SigningKey | None) -> None:
    """Replace CHOICE in a models folder, whole or not at all. Raises OSError."""
    line = json.dumps({"schema": SCHEMA_VERSION, **asdict(choice)}).encode()
    atomic_write(folder / CHOICE_NAME, line + b"\n" + (b"" if key is None else key.sign(line)), shared=True)


def read_choice(folder: Path, key: VerifyKey | None) -> Choice | None:
    """Return CHOICE of a models folder; None if there is none. Raises DocumentError if it is damaged or not signed by the key.

    key: None: the signature is not checked.
    """
    path = folder / CHOICE_NAME
    if not path.is_symlink() and not path.exists():
        return None
    line, _, signature = read_plain(path, MOST_CHOICE_BYTES).partition(b"\n")
    if key is not None and (problem := key.problem(line, signature)) is not None:
        raise DocumentError(f"the signature of {CHOICE_NAME} {problem}")
    return _parsed(parse_document(CHOICE_NAME, line))


def _parsed(document: dict[str, Any]) -> Choice:
    schema = document.get("schema")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise DocumentError(f"{CHOICE_NAME} was written by a newer release (schema {schema}, this one reads {SCHEMA_VERSION})")
    try:
        choice = msgspec.convert(document, Choice)
    except msgspec.ValidationError as error:
        raise DocumentError(f"{CHOICE_NAME} is not a choice ({error})") from error
    if not VERSION_PATTERN.fullmatch(choice.version) or not is_number(choice.number) or not abs(choice.time_s) < MOST_TIME_S:
        raise DocumentError(f"{CHOICE_NAME} names no version, or has a number or a time out of range")
    return choice


def is_number(value: object) -> bool:
    """Return whether a value can be the number of a version or a choice."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= time.time() + MOST_AHEAD
