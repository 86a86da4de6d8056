"""Versions are read beside the loop: one that takes long, or for ever, holds up nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.ingest.loader import Loader, StillReadingError
from daemon.operator.observer import Observer
from model.registry.versions import Registry
from testkit.versions import publish

VERSION = "v20260101_000000"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that the work waits for; it is set in any case."""
    event = threading.Event()
    yield event
    event.set()


def test_work_is_begun_once_and_asked_for_until_it_is_done(gate: threading.Event) -> None:
    """Not done in time is an error of its own, and the next call does not wait where one has waited in vain."""
    loader, begun = Loader(), []

    def work() -> int:
        begun.append(1)
        gate.wait()
        return 7

    for _ in range(3):
        with pytest.raises(StillReadingError):
            loader.result("key", work, 0.0)
    assert (loader.busy, loader.is_running("key")) == (True, True)
    gate.set()
    assert loader.result("key", work, 60.0) == 7
    assert (begun, loader.busy, loader.is_running("key")) == ([1], False, False)
    loader.close()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), TimeoutError("its own")])
def test_what_the_work_raises_is_raised(error: Exception) -> None:
    """And then it is forgotten: the next call begins anew."""
    loader = Loader()

    def failing() -> Any:
        raise error

    with pytest.raises(type(error)) as raised:
        loader.result("key", failing, 60.0)
    assert raised.value is error
    assert loader.result("key", lambda: 1, 60.0) == 1
    loader.close()


def test_a_disk_that_hangs_holds_up_a_version_and_not_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """A pass goes on without it; it goes live with the pass after it is read, which no call has waited for."""
    publish(tmp_path, VERSION)
    reported: list[str] = []
    models = Models(Registry(tmp_path / "models"), Journal(tmp_path / "journal"), Observer(lambda event, _: reported.append(event)), 0.0)
    real = models._load
    monkeypatch.setattr(models, "_load", lambda version: gate.wait() and real(version))
    monkeypatch.setattr("daemon.ingest.live_model.PASS_S", 0.0)
    for _ in range(3):
        assert models.follow() is None
    assert (models.loader.busy, reported, models.current()) == (True, [], VERSION)
    gate.set()
    live = models.follow(now=True)
    assert live is not None
    assert (live.version, reported) == (VERSION, ["model_live"])
    models.close()
