"""The name by which a Kafka group knows this daemon again after a restart (static membership, KIP-345).

Without it a daemon that was killed and starts again is a stranger: its partitions stay with the dead member until the session time-out,
45 s. The name belongs to a state directory and member, of which only one process runs at a time (daemon/lock.py).
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final

from daemon.errors import StateError
from model.documents import write_bytes
from model.segments import sync_folder

_NAME: Final = re.compile(r"dwcp-[A-Za-z0-9_]{1,64}-[0-9a-f]{16}")


def instance_id(state: Path, member: str) -> str:
    """The name in the state directory's file instance-MEMBER, which is made where it is not there or is damaged: a new name costs one
    session time-out. Raises StateError where the directory cannot be written."""
    path = state / f"instance-{member}"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = path.read_bytes().decode(errors="replace").strip() if path.exists() else ""
        if _NAME.fullmatch(known):
            return known
        name = f"dwcp-{member}-{secrets.token_hex(8)}"
        write_bytes(path, f"{name}\n".encode())
        sync_folder(state)
    except OSError as error:
        raise StateError.unwritable(state, error) from error
    return name
