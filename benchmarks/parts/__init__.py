"""Parts of the benchmarks that run in separate processes, and the stream that they read. The tests' rigs serve here too: `testkit`."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]  # in this order: the folder tests/daemon is not the package daemon
