"""The command and the environment of a child that trains: this interpreter, and no module of the working directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SYSTEMD: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Variables for the daemon alone: systemd listens to no other process."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `main` of a module of ours. -P: the working directory is not searched for modules."""
    return [str(Path(sys.executable).absolute()), "-P", "-m", "model.start", module, *arguments]


def environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a child's variables: those of this process, without SYSTEMD and without relative folders of PYTHONPATH."""
    passed = {name: value for name, value in variables.items() if name not in SYSTEMD}
    folders = [folder for folder in passed.pop("PYTHONPATH", "").split(os.pathsep) if Path(folder).is_absolute()]
    return passed | ({"PYTHONPATH": os.pathsep.join(folders)} if folders else {})
