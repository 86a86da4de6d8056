"""The name by which a Kafka group recognises this daemon after a restart (static membership, KIP-345).

Without it a daemon that was killed and starts again is a stranger: its partitions stay with the dead member until the session time-out,
45 s. The name belongs to a state directory and member, and only one process of each runs at a time (daemon/state/lock.py).
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from daemon.errors import StateError
from model.registry.durable import atomic_write, sync_folder
from model.registry.plain_file import read_plain_bytes

MOST_BYTES: Final = 4096
"""Limit of a file with a name, bytes: a name has a hundred."""
_NAME: Final = re.compile(r"dwcp-[A-Za-z0-9_]{1,64}-[0-9a-f]{16}")
_STATE: Final = re.compile(r"state-[0-9a-f]{16}")


def instance_id(state: Path, member: str) -> str:
    """Return the name in the state directory's file instance-MEMBER.

    The file is made if it is missing or damaged: a new name costs one session time-out.

    Raises:
        StateError: the directory cannot be written.
    """
    path = state / f"instance-{member}"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = _content(path)
        if _NAME.fullmatch(known):
            return known
        name = f"dwcp-{member}-{secrets.token_hex(8)}"
        atomic_write(path, f"{name}\n".encode())
        sync_folder(state)
    except OSError as error:
        raise StateError.unwritable(state, error) from error
    return name


def state_id(state: Path) -> str:
    """Return the name of the state directory, which all members that share it have in common.

    It is in the file `name`, which is made if it is missing or damaged.

    Raises:
        StateError: the directory cannot be written.
    """
    path = state / "name"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _STATE.fullmatch(_content(path)):
            path.unlink(missing_ok=True)
            draft = state / f"name-{secrets.token_hex(4)}"
            atomic_write(draft, f"state-{secrets.token_hex(8)}\n".encode())
            with suppress(FileExistsError):  # another member was quicker, and its name counts
                path.hardlink_to(draft)
            draft.unlink()
            sync_folder(state)
        return _content(path)
    except OSError as error:
        raise StateError.unwritable(state, error) from error


def _content(path: Path) -> str:
    return read_plain_bytes(path, MOST_BYTES).decode(errors="replace").strip() if path.exists() else ""
