"""Disk faults: disks that refuse, tear, lose and alter, and clocks that jump, at each place that makes something durable.

make bench-disk_faults
"""

from __future__ import annotations

import sys
from typing import Final

from parts.proof import prove

FILES: Final = (
    "tests/system/test_disk_faults.py",
    "tests/daemon/state/test_checkpoint.py",
    "tests/daemon/ingest/test_journal.py",
    "tests/daemon/training/test_triggers.py",
    "tests/streams/test_sinks.py",
)
LEAST: Final = 150

if __name__ == "__main__":
    sys.exit(prove("disk_faults", __doc__, FILES, LEAST))
