"""Ends a child whose parent is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Final

from model.spec.job import EXIT_FAILED

PARENT_POLL_S: Final = 1.0
"""Seconds between two looks at the parent."""
PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """End this process when the process `parent` ends: without a daemon nobody publishes a training, and the next daemon starts it anew.

    Linux kills this process, even if it hangs or is stopped, as soon as the thread that started it is gone: the daemon's main one. The
    parent is polled as well, for one that died before this call and for other systems.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_FAILED)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os._exit(EXIT_FAILED)

    threading.Thread(target=look, daemon=True).start()
