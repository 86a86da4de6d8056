"""Publication under kills: a publisher that is killed at every system call of its work, and a reader that must not notice.

    make bench-publish        (or: python benchmarks/publish.py --quick)

The version has a small network, because each kill costs its verification. Publication, rollback, refusal, pruning and recovery are each
started until they were killed at the entry and the exit of each call, unsigned and signed. The reader follows CURRENT in a tight loop and
checks every file that it names. After each kill the next publisher starts, and everything is checked again. `power_cut` counts what became
visible, or was deleted, before the fsync that it needs, deduced from the calls.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import CHILD_LIMIT_S, Bar, arguments, in_process, report, say
from parts.version import SMALL
from testkit.disk import syscalls
from testkit.paths import PYTHONPATH


def killed(source: Path, folder: Path, signed: bool, stops: str) -> dict[str, Any]:
    """Return the findings of the rig, in a process of its own: it forks, and has to have a single thread."""
    folder.mkdir()
    job = {"source": str(source), "folder": str(folder), "signed": signed, "stops": stops}
    command = [sys.executable, "-m", "testkit.disk.publishing", json.dumps(job)]
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=CHILD_LIMIT_S)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> int:
    options = arguments(__doc__)
    if (reason := syscalls.why_not()) is not None:
        say(f"not measured: {reason}")
        return report("publish", {"not_measured": reason}, [Bar("kills", None, ">=", 500), Bar("partial", None, "<=", 0)])
    stops, runs = "changing" if options.quick else "all", {}
    with tempfile.TemporaryDirectory(prefix="dwcp-bench-") as name:
        version = in_process("parts.version", {"models": f"{name}/models", "architecture": SMALL})["version"]
        for kind in ("unsigned", "signed"):
            say(kind)
            runs[kind] = killed(Path(name) / "models" / version, Path(name) / kind, kind == "signed", stops)
    seen = list(runs.values())
    for problem in (problem for run in seen for problem in (*run["wrong"], *run["reader"]["told"])):
        say(problem)
    figures = {
        "kills": {kind: run["kills"] for kind, run in runs.items()},
        "rollbacks_in_the_middle_of_another": sum(run["at_once"] for run in seen),
        "reads": sum(run["reader"]["reads"] for run in seen),
        "reads_with_golden_samples": sum(run["reader"]["golden"] for run in seen),
        "versions_seen": sum(run["reader"]["versions"] for run in seen),
        "power_cut": sum(run["power_cut"] for run in seen),
    }
    kills = sum(sum(run["kills"].values()) for run in seen)
    return report("publish", figures, [Bar("kills", kills, ">=", 500), Bar("partial", sum(run["partial"] for run in seen), "<=", 0)])


if __name__ == "__main__":
    sys.exit(main())
