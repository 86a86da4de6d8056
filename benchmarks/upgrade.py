"""Upgrade: state that older releases have left is read, or refused with what to do.

make bench-upgrade
"""

from __future__ import annotations

import sys
from typing import Final

from parts.proof import prove

FILES: Final = ("tests/daemon/state/test_checkpoint.py::test_state_of_a_newer_release_is_refused", "tests/system/test_upgrade.py")
LEAST: Final = 4

if __name__ == "__main__":
    sys.exit(prove("upgrade", __doc__, FILES, LEAST))
