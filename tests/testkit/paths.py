"""Folders of the repository, and the import path of processes that use the testkit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TESTS: Final = ROOT / "tests"
STATES: Final = TESTS / "states"
"""State directories and models that older releases have left."""
PYTHONPATH: Final = os.pathsep.join(map(str, (ROOT, TESTS)))
"""Import path for `python -m testkit.NAME`. It holds the root too: without it, `import daemon` finds the folder tests/daemon."""
