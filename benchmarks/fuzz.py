"""Hostile input: a million damaged messages and documents, of which none crashes a reader, is lost, or is read in two ways.

    make bench-fuzz        (or: python benchmarks/fuzz.py --quick)

Two engines. `mutator` is testkit.hostile: it cuts, splices and plants tokens that parsers fail at. Its batches go through the decoder in
both forms, its files through each of the 17 readers. `atheris` is guided by coverage, over the decoder and five readers; it is left out if
it is not installed. Each message has to be accepted or rejected with a reason, once and in order, alone as in its batch. An accepted one
has values within their ranges, equal to those of Python's own parser. A rejected one is complete in its dead letter. One message has
100 MB. A daemon reads a million records of a million links (`links`, not counted as mutated). Each run is a process of its own; one that
dies counts as a crash.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from harness import CHILD_LIMIT_S, Bar, arguments, in_process, report, say
from parts.version import SMALL
from testkit.paths import PYTHONPATH

SIZES: Final = {"json": 700_000, "csv": 200_000, "documents": 85_000, "atheris": 100_000, "links": 1_000_000}
QUICK: Final = {"json": 4_000, "csv": 2_000, "documents": 1_700, "atheris": 2_000, "links": 20_000}
HUGE_BYTES: Final = 100_000_000


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job of the rig. A process that dies counts as one crash, and as no message."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-m", "testkit.hostile.run", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=CHILD_LIMIT_S)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return {"messages": 0, "crashes": 1, "told": [f"{job['what']} ended with {done.returncode}: {done.stderr[-2000:]}"]}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def jobs(folder: Path, sizes: dict[str, int], seed: int) -> dict[str, dict[str, Any]]:
    """Return the jobs by name, each with a folder of its own."""
    version = folder / "models" / in_process("parts.version", {"models": str(folder / "models"), "architecture": SMALL})["version"]
    found: dict[str, dict[str, Any]] = {form: {"what": "decoder", "form": form} for form in ("json", "csv")}
    found["documents"] = {"what": "documents", "version": str(version)}
    if importlib.util.find_spec("atheris") is not None:
        found["atheris"] = {"what": "atheris", "version": str(version)}
    for name, job in found.items():
        (folder / name).mkdir()
        job |= {"messages": sizes[name], "seed": seed, "folder": str(folder / name)}
    (folder / "links").mkdir()
    found["links"] = {"what": "links", "messages": sizes["links"], "links_max": sizes["links"] // 10, "folder": str(folder / "links")}
    return found | {"huge": {"what": "huge", "bytes": HUGE_BYTES}}


def main() -> int:
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="dwcp-bench-") as name:
        found = {}
        for what, job in jobs(Path(name), QUICK if options.quick else SIZES, seed=options.rounds).items():
            say(what)
            found[what] = run(job)
    for answer in found.values():
        for problem in answer.pop("told"):
            say(problem)
    figures = {
        "by_engine": {
            "mutator": sum(answer["messages"] for what, answer in found.items() if what not in ("atheris", "links")),
            "atheris": found["atheris"]["messages"] if "atheris" in found else 0,
        },
        "runs": found,
    }
    mutated = sum(answer["messages"] for what, answer in found.items() if what != "links")
    crashes = sum(answer["crashes"] for answer in found.values())
    flood = found["links"]
    growth_mb = max(found[form].get("rss_growth_mb", float("inf")) for form in ("json", "csv"))
    bars = [
        Bar("mutated", mutated, ">=", 1_000_000),
        Bar("crashes", crashes, "<=", 0),
        Bar("decoder_rss_growth_mb", growth_mb if growth_mb < float("inf") else None, "<=", 20),
        Bar("links_left_out", flood.get("messages", 0) - flood.get("taken", -1), "<=", 0),
        Bar("links_rss_growth_mb", flood.get("rss_growth_mb"), "<=", 50),
    ]
    return report("fuzz", figures, bars)


if __name__ == "__main__":
    sys.exit(main())
