"""The parts of the demo that its own five minutes do not show: a missing broker, a folder that is used again, its messages."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from daemon.commands.demo.command import MARKER, _empty, demo_spec
from daemon.commands.demo.report import Story, make_report
from daemon.commands.demo.screen import Screen
from daemon.commands.score import ByPhase
from daemon.errors import DaemonError

Cli = Callable[..., tuple[int, str, str]]


def test_a_demo_without_a_broker(cli: Cli, no_broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported at once and again. After the time limit the exit code is 5, with what to do."""
    monkeypatch.setattr("daemon.commands.demo.command.BROKER_LIMIT_S", 6.0)
    code, out, err = cli("demo", "--kafka", no_broker)
    assert code == 5
    assert err.count(f"no broker at {no_broker}") >= 2
    assert f"{no_broker}: no broker within 6 s" in err
    assert "start one with make kafka, or correct --kafka" in err
    assert out == ""


def test_a_demo_whose_broker_goes_away() -> None:
    """Nothing is waited for longer than the limit, and any sign of life restarts the wait."""
    story = Story(0.0)
    assert not story.without_broker(False, limit_s=60.0)
    story._connected_s -= 61.0
    assert story.without_broker(False, limit_s=60.0)
    assert story.no_broker
    assert not story.without_broker(True, limit_s=60.0)
    assert not story.no_broker


def test_an_earlier_demos_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is emptied, even if it is the working directory. Links in it are removed and not followed."""
    outside = tmp_path / "outside"
    (outside / "precious").mkdir(parents=True)
    folder = tmp_path / "demo"
    _empty(folder)
    (folder / "state").mkdir()
    (folder / "state/x").write_text("x")
    (folder / "file").write_text("x")
    (folder / "link").symlink_to(outside)
    monkeypatch.chdir(folder)
    _empty(Path())
    assert [path.name for path in folder.iterdir()] == [MARKER]
    assert (outside / "precious").exists()


def test_a_folder_that_no_demo_has_made(tmp_path: Path) -> None:
    """Nothing in it is touched; nor is a file in its place."""
    (tmp_path / "precious").write_text("x")
    with pytest.raises(DaemonError, match="was not made by a demo; give another folder with --folder"):
        _empty(tmp_path)
    with pytest.raises(DaemonError, match=r"precious: cannot be emptied and used .*; give another folder with --folder"):
        _empty(tmp_path / "precious")
    assert (tmp_path / "precious").read_text() == "x"


def test_times_of_the_story() -> None:
    """They run from the planted drift to alert and new version, in simulated and wall seconds; None for an event that did not happen."""
    story = Story(1000.0)
    assert set(story.times().values()) == {None}
    story.first_version = "v1"
    story.advance(900.0, "v1")
    assert (story.phase, story.drift_wall_s) == ("before the drift", None)
    story.advance(1000.0, "v1")
    assert story.phase == "after the drift"
    story.detected_s, story.detected_wall_s = 1600.0, story.drift_wall_s
    story.new_version = "v2"
    story.advance(4000.0, "v2")
    assert story.phase == "after the new version"
    assert story.drift_wall_s is not None
    assert story.new_live_wall_s is not None
    story.drift_wall_s, story.detected_wall_s = story.new_live_wall_s - 50.0, story.new_live_wall_s - 40.0
    assert story.times() == {
        "detection_delay_s": 600.0,
        "drift_to_new_version_s": 3000.0,
        "drift_to_new_version_wall_s": pytest.approx(50.0),
        "alert_to_new_version_wall_s": pytest.approx(40.0),
    }


def test_what_has_not_happened_is_named() -> None:
    """The parts come in the order of the story, so that the first one shows where to look."""
    story = Story(1000.0)
    assert story.lacking()[0] == "no first version was published"
    story.first_version = "v1"
    story.advance(2000.0, "v1")
    assert story.lacking()[0] == "the planted drift was not noticed"
    story.detected_s, story.new_version = 1600.0, "v2"
    assert story.lacking() == ["no forecast came from the new version"]
    story.advance(4000.0, "v2")
    assert story.lacking() == []
    report = make_report(story, ByPhase(lambda _time_s: None), demo_spec(7), Path("demo"), 1.0, None)
    assert report["lacking"] == ["there are no forecasts to compare before and after the new version"]
    assert not report["happened"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_now_and_then_where_nothing_is_drawn(terminal: bool) -> None:
    """One every ten seconds in a log; none on a terminal, because the panel shows the same."""
    out = io.StringIO()
    spec = demo_spec(7)
    screen = Screen(Story(spec.events[0].start_s), spec, Console(file=out, force_terminal=terminal))
    screen.tick()
    assert out.getvalue() == ""
    screen._ticked_s = time.monotonic() - 10.0
    screen.tick()
    screen.tick()
    assert out.getvalue().count("history") == (0 if terminal else 1)
