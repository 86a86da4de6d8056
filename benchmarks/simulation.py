"""Seeded simulation: a daemon of real parts under a simulated clock, source and disk; each seed is another storm of faults.

    make bench-simulation        (or: python benchmarks/simulation.py --first 417 --seeds 1     repeats one seed)

A seed chooses batches, the interleaving of partitions, and for each of up to four lives when calls to the disk fail, when the process ends,
and whether it ends by kill -9 or by a power cut, which loses what was not fsynced (testkit.disk.storm). A last life without faults reads
the rest. In every fourth seed there are more links than may be kept, so that some are always evicted. Then offsets, features, detectors,
regions, alerts and buffer must equal those of an undisturbed run, byte for byte.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from harness import Bar, in_process, parser, report, say
from parts.consistency import differing
from parts.version import SMALL
from testkit import remains, rig, scripted
from testkit.disk import storm

LIVES_MAX: Final = 4
SAY_EVERY: Final = 100
ROOM: Final[dict[str, dict[str, dict[str, Any]]]] = {"for all links": {}, "for few links": {"links": {"max": 2}}}
"""Configuration by the room for links of each partition, which has three or four."""


def room_of(seed: int) -> str:
    return "for few links" if seed % 4 == 0 else "for all links"


def survive(home: Path, seed: int) -> tuple[list[int], str]:
    """Run one seed's lives over a home with a live version. Returns the exit codes, and what broke the promise, if anything."""
    chosen, sections = random.Random(seed), ROOM[room_of(seed)]
    codes = []
    for life in range(chosen.randint(1, LIVES_MAX)):
        struck = storm.Storm(home / "state", seed * LIVES_MAX + life)
        script = {"seed": chosen.randrange(2**31), "batch_max": chosen.choice((40, 150, 600))}
        codes.append(rig.run(home, prepare=struck.arm, sections=sections, **script))
        if codes[-1] not in (0, storm.KILLED) and not remains.reported(home, "ended"):
            return codes, f"exit code {codes[-1]}: {(home / 'log').read_text()[-2000:]}"
    if rig.run(home, sections=sections, seed=seed, batch_max=300) != 0:
        return codes, f"no way out: {(home / 'log').read_text()[-2000:]}"
    return codes, ""


def simulate(seeds: range, models: Path, folder: Path) -> dict[str, Any]:
    """Return the figures of a range of seeds. models: a folder with a live version."""
    undisturbed = {}
    for room, sections in ROOM.items():
        shutil.copytree(models, folder / f"undisturbed {room}" / "models")
        rig.daemon_over(scripted.ScriptedSource(seed=1, batch_max=100), rig.config(folder / f"undisturbed {room}", **sections)).run()
        undisturbed[room] = remains.outcome(folder / f"undisturbed {room}")
    ends: Counter[int] = Counter()
    failing: list[int] = []
    for count, seed in enumerate(seeds, start=1):
        home = folder / f"seed-{seed}"
        shutil.copytree(models, home / "models")
        codes, broken = survive(home, seed)
        ends.update(codes)
        if not broken and (names := differing(remains.outcome(home), undisturbed[room_of(seed)])):
            broken = f"differs in {', '.join(names)}"
        if broken:
            failing.append(seed)
            say(f"seed {seed}: {broken}\nrepeat it: python benchmarks/simulation.py --first {seed} --seeds 1 --keep FOLDER")
        else:
            shutil.rmtree(home)
        if count % SAY_EVERY == 0:
            say(f"{count} seeds, {len(failing)} failing")
    lives = {"ended": ends[0], "struck": ends[137], "refused_to_start": ends.total() - ends[0] - ends[137]}
    return {
        "seeds": len(seeds),
        "first_seed": seeds.start,
        "failing": len(failing),
        "failing_seeds": failing[:20],
        "lives": lives,
        "alerts": {room: len(left.alerts) for room, left in undisturbed.items()},
    }


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=2000)
    options.add_argument("--first", type=int, default=int(time.time()), help="the first seed (default: the time); it is printed")
    options.add_argument("--keep", type=Path, help="folder in which the homes of failing seeds stay")
    given = options.parse_args()
    seeds = range(given.first, given.first + (20 if given.quick else given.seeds))
    with tempfile.TemporaryDirectory(prefix="dwcp-simulation-") as name:
        folder = given.keep or Path(name)
        folder.mkdir(exist_ok=True, parents=True)
        in_process("parts.version", {"models": f"{name}/made/models", "architecture": SMALL})
        figures = simulate(seeds, Path(name) / "made" / "models", folder)
    return report("simulation", figures, [Bar("seeds", figures["seeds"], ">=", 1000), Bar("failing", figures["failing"], "<=", 0)])


if __name__ == "__main__":
    sys.exit(main())
