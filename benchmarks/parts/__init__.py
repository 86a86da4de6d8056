"""What the benchmarks run in processes of their own, and the stream that they run it on. The tests' rigs are theirs as well: `testkit`."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]  # in this order: the folder tests/daemon is not the package daemon
