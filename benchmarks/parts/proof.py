"""A promise that is proven by hand-built faults instead of a rate or a storm: its cases are tests, run here in full and counted."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from harness import FOLDER, Bar, arguments, report, say

LIMIT_S: Final = 3600.0


def prove(benchmark: str, description: str | None, files: Sequence[str], least: int) -> int:
    """Run test files (with --quick the last one alone) and print the line of a benchmark.

    Args:
        benchmark: its name.
        description: its module docstring.
        files: of tests.
        least: cases that have to hold, so that no promise loses its proof unnoticed. A skipped case proves nothing.

    Returns:
        The exit code: 1 if a case is broken.
    """
    found = cases(files[-1:] if arguments(description).quick else files)
    held, broken, unproven = (sum(one[outcome] for one in found) for outcome in ("held", "broken", "unproven"))
    bars = [Bar("cases", held, ">=", least), Bar("broken", broken, "<=", 0), Bar("unproven", unproven, "<=", 0)]
    return report(benchmark, {"proof": found}, bars) or int(broken > 0)


def cases(files: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each test in how many cases it held, was broken, or did not run."""
    with tempfile.TemporaryDirectory(prefix="dwcp-proof-") as name:
        results = Path(name) / "told.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={results}", *files]
        done = subprocess.run(command, cwd=FOLDER.parent, env=os.environ, stdout=subprocess.PIPE, text=True, check=False, timeout=LIMIT_S)
        if done.returncode:
            say(done.stdout[-4000:])
        if not results.exists():
            raise RuntimeError(f"pytest ended with exit code {done.returncode} before any case")
        found: dict[str, Counter[str]] = {}
        for case in ElementTree.parse(results).iter("testcase"):
            outcome = "unproven" if case.find("skipped") is not None else "held" if len(case) == 0 else "broken"
            found.setdefault(case.get("name", "").partition("[")[0].removeprefix("test_").replace("_", " "), Counter())[outcome] += 1
    return [{"what": name, **{outcome: count[outcome] for outcome in ("held", "broken", "unproven")}} for name, count in found.items()]
