"""A child that has no reason to live without the process that started it."""

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
PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """Ends this process with the process `parent`. A training whose daemon is gone has nobody to publish it, and would be started again
    beside itself.

    Linux kills it, even where it hangs or is stopped, as soon as the thread that started it is gone: the daemon's main one. The look at
    the parent is for a daemon that died before this was asked for, and for other systems.
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
