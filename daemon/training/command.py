"""How a child that trains is started: with this interpreter, and with no module from where an operator happens to work."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SYSTEMD: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""systemd listens to the daemon alone."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `main` of a module of ours. -P: the working directory is not searched for modules."""
    return [str(Path(sys.executable).absolute()), "-P", "-m", "model.start", module, *arguments]


def environment(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a child's variables: this process's, without what is meant for it alone or leads to modules of the working directory."""
    kept = {name: value for name, value in own.items() if name not in SYSTEMD}
    folders = [folder for folder in kept.pop("PYTHONPATH", "").split(os.pathsep) if Path(folder).is_absolute()]
    return kept | ({"PYTHONPATH": os.pathsep.join(folders)} if folders else {})
