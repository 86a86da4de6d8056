"""Which version is live, for a reader with the public key: what was true once cannot be put back, and a person's word counts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.registry.choice import CHOICE_NAME, Choice, StandingError, read_choice, stand, write_choice
from model.version.documents import DocumentError
from model.version.signing import SigningKey, VerifyKey, generate
from testkit.paths import ROOT

TABLE = json.loads((ROOT / "clients/go/testdata/standing.json").read_text())
"""The Go client's tests read the same."""
NAMES = ("v20260101_000000", "v20260102_000000", "v20260103_000000")
choices = st.builds(Choice, st.sampled_from(["rolled_back", "pinned", "unpinned"]), st.sampled_from(NAMES), st.integers(1, 9), st.just(0.0))


def choice_of(fields: dict[str, Any] | None) -> Choice | None:
    return None if fields is None else Choice(**fields, time_s=0.0)


@pytest.mark.parametrize("case", TABLE, ids=[case["name"] for case in TABLE])
def test_what_is_live(case: dict[str, Any]) -> None:
    """The table of clients/go/testdata: by number, by name among versions of older releases, and by what a person has decided."""
    choice, seen = choice_of(case["choice"]), (case["seen"]["number"], case["seen"]["version"])
    if case["live"] is None:
        with pytest.raises(StandingError, match=re.escape(case["error"]) if "error" in case else None):
            stand(case["version"] or None, case["number"], choice, seen)
    else:
        assert stand(case["version"] or None, case["number"], choice, seen).order == (case["live"]["number"], case["live"]["version"])


@given(
    steps=st.lists(st.tuples(st.sampled_from(NAMES) | st.none(), st.integers(0, 9), choices | st.none()), max_size=8),
)
def test_what_is_live_never_goes_back(steps: list[tuple[str | None, int, Choice | None]]) -> None:
    """Whatever somebody puts back, in any order: the number of what is live only rises, and a version with a lower one needs a choice."""
    seen = (0, "")
    for version, number, choice in steps:
        try:
            standing = stand(version, number, choice, seen)
        except StandingError:
            continue
        assert standing.order >= seen
        assert standing.number == number or (standing.choice == choice is not None and standing.number == choice.number)
        seen = standing.order


def test_a_choice_reads_back(tmp_path: Path, keys: tuple[SigningKey, VerifyKey]) -> None:
    """Signed or not; without a file there is none."""
    assert read_choice(tmp_path, keys[1]) is None
    choice = Choice("pinned", NAMES[0], 1_796_000_000, 1_796_000_000.25)
    for key in (None, keys[0]):
        write_choice(tmp_path, choice, key)
        assert read_choice(tmp_path, None) == choice
    assert read_choice(tmp_path, keys[1]) == choice


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}\n", b"\xff\n", b"[" * 4000, b'{"schema": 2}\n', b"x" * 5000, b'{"kind": "pinned"}\n',
        b'{"kind": "other", "version": "v20260101_000000", "number": 1, "time_s": 0}\n',
        b'{"kind": "pinned", "version": "../../x", "number": 1, "time_s": 0}\n',
        b'{"kind": "pinned", "version": "v20260101_000000", "number": -1, "time_s": 0}\n',
        b'{"kind": "pinned", "version": "v20260101_000000", "number": 9007199254740992, "time_s": 0}\n',
        b'{"kind": "pinned", "version": "v20260101_000000", "number": 99000000000, "time_s": 0}\n',
        b'{"kind": "pinned", "version": "v20260101_000000", "number": 1e400, "time_s": 0}\n',
        b'{"kind": "pinned", "version": "v20260101_000000", "number": 1, "time_s": 1e300}\n',
    ],
)  # fmt: skip
def test_what_is_no_choice(tmp_path: Path, content: bytes) -> None:
    """Garbage, of another type, out of range or of a newer release: an error that names the file."""
    (tmp_path / CHOICE_NAME).write_bytes(content)
    with pytest.raises(DocumentError, match=CHOICE_NAME):
        read_choice(tmp_path, None)


def test_a_choice_that_is_not_signed_by_the_key(tmp_path: Path, keys: tuple[SigningKey, VerifyKey]) -> None:
    """Unsigned, by another key, altered by a byte: refused where a key is configured."""
    choice = Choice("pinned", NAMES[0], 7, 0.0)
    other = SigningKey.read(generate(tmp_path / "other")[0])
    for key in (None, other):
        write_choice(tmp_path, choice, key)
        with pytest.raises(DocumentError, match="the signature of CHOICE"):
            read_choice(tmp_path, keys[1])
    write_choice(tmp_path, choice, keys[0])
    path = tmp_path / CHOICE_NAME
    path.write_bytes(path.read_bytes().replace(b'"number": 7', b'"number": 8'))
    with pytest.raises(DocumentError, match="what it signs was changed"):
        read_choice(tmp_path, keys[1])
