"""Fixtures of the tests of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.version.signing import SigningKey, VerifyKey, generate


@pytest.fixture
def keys(tmp_path: Path) -> tuple[SigningKey, VerifyKey]:
    """A new pair of keys, which lies in the folder keys."""
    private, public = generate(tmp_path / "keys")
    return SigningKey.read(private), VerifyKey.read(public)
