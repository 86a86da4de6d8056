"""Settings that are there and cannot work: each is refused by `check-config` with its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config.load import ConfigError, load
from daemon.config.usable import check_places

Cli = Callable[..., tuple[int, str, str]]


def test_settings_that_exclude_each_other(tmp_path: Path) -> None:
    """Each is allowed alone; together nothing would ever be trained, and nobody would know why."""
    path = tmp_path / "c.toml"
    path.write_text("[training]\nrows_min = 30_000\n[buffer]\nrows_max = 20_000\n")
    with pytest.raises(ConfigError, match=r"training\.rows_min \(30000\) is more than buffer\.rows_max"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[state]\ndirectory = 'file/state'\n", "state.directory file/state: "),
        (f"[state]\ndirectory = '{'long' * 70}'\n", "File name too long; name another folder"),
        ("[models]\ndirectory = 'file'\n", "models.directory file: file is not a folder"),
        ("[events]\nfolder = 'dangling'\n", "events.folder dangling: dangling is not a folder"),
        ("[http]\nhost = '203.0.113.7'\n", "http.host '203.0.113.7' is not an address of this machine"),
        ("[http]\nhost = 'no.such.host.invalid'\n", "http.host 'no.such.host.invalid' is not an address of this machine"),
    ],
)
def test_places_that_cannot_be_used(cli: Cli, text: str, message: str) -> None:
    """A folder that is a file, and an address of another machine: exit code 3, with the setting."""
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    Path("c.toml").write_text(text)
    code, _, err = cli("check-config", "-c", "c.toml", "--no-topics")
    assert code == 3
    assert message in err.replace("\n", "")


def test_folders_that_are_not_there_yet(cli: Cli, tmp_path: Path) -> None:
    """Whoever checks before the service has made its folders gets no message about them."""
    Path("c.toml").write_text(f"[state]\ndirectory = '{tmp_path}/a/b/c'\n[http]\nport = 0\nhost = 'localhost'\n")
    assert cli("check-config", "-c", "c.toml", "--no-topics")[0] == 0
    assert not (tmp_path / "a").exists()


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there and may not be written. (Root may write anywhere: the refusal is put in.)"""
    config = tmp_path / "c.toml"
    config.write_text(f"[state]\ndirectory = '{tmp_path}'\n")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=rf"state\.directory {tmp_path}: this user may not write there"):
        check_places(load(config))
