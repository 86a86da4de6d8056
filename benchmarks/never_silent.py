"""Never silent: a stopped process, a hanging disk, a hung training, a broker that never answers. Each is reported.

make bench-never_silent
"""

from __future__ import annotations

import sys
from typing import Final

from parts.proof import prove

FILES: Final = (
    "tests/system/test_never_silent.py",
    "tests/system/test_systemd.py::test_watchdog_restarts_a_stopped_process",
    "tests/system/test_systemd.py::test_daemon_reloads_and_is_restarted_by_the_watchdog",
    "tests/daemon/operator/test_notify.py",
)
LEAST: Final = 34 + 2

if __name__ == "__main__":
    sys.exit(prove("never_silent", __doc__, FILES, LEAST))
