"""Check settings that are valid, but cannot be used on this machine, and read the files that they name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from daemon.config.holiday_file import HolidayFileError
from daemon.config.load import Config, ConfigError
from daemon.config.local_time import local_time_spec
from model.spec.local_time import LocalTimeSpec


def check_places(config: Config) -> None:
    """Check folders and the HTTP address. A folder that does not exist yet is made by the daemon, or by its service before it.

    Raises:
        ConfigError: a folder exists and this user cannot use it, or the address is not one of this machine.
    """
    folders = {
        "state.directory": config.state.directory,
        "models.directory": config.models.directory,
        "events.folder": config.events.folder,
    }
    for setting, folder in folders.items():
        if folder is not None:
            _check_folder(setting, folder)
    if config.http.enabled:
        _check_address(config.http.host)


def local_time_of(config: Config) -> LocalTimeSpec:
    """Return the time zones and holidays, with the days of calendar files as they are now.

    Raises:
        ConfigError: a calendar file cannot be used.
    """
    section = config.local_time
    try:
        return local_time_spec(section.zone, section.zones, section.holidays, section.region_holidays)
    except HolidayFileError as error:
        raise ConfigError(f"local_time: {error}") from error


def _check_folder(setting: str, folder: Path) -> None:
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # the folder, or what is in its place, is looked at below
    except OSError as error:  # a name that is too long, a loop of links, a parent that may not be searched
        raise ConfigError(f"{setting} {folder}: {error.strerror}; name another folder, or mend this path") from error
    try:
        whole = folder.absolute()
    except FileNotFoundError:  # a path within a working directory that has been deleted: the service starts in another one
        return
    there = next(path for path in (folder, *whole.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ConfigError(f"{setting} {folder}: {there} is not a folder; name another one, or move that away")
    if there == folder and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"{setting} {folder}: this user may not write there; mend its owner and permissions, or run this as its user")


def _check_address(host: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)  # to any free port: the daemon may be running
    except (OSError, UnicodeError) as error:
        todo = "use 127.0.0.1, or 0.0.0.0 for all of them"
        raise ConfigError(f"http.host {host!r} is not an address of this machine ({error}); {todo}") from error
