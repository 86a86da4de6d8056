"""One record, one meaning: every reader of telemetry over the same bytes, and no input that two of them read differently.

    make bench-differential        (or: python benchmarks/differential.py --quick)

Inputs come from a grammar of records with mutations, and from the mutator of testkit.hostile; the same seed makes the same inputs. Each
goes through the decoder (record by record, alone, and in chunks of good ones), the published JSON Schema over Python's own JSON parser,
NDJSON by file, by pipe and by Apache Kafka (its own broker), and the Go client. A CSV line goes through decoder, file and pipe, and, as the
record that it describes, through all readers of JSON. Compared are the decision, the time as float64, the numbers as float32 and the texts,
bit for bit. What the schema declares as undefined (size, nesting, bounds of times as text) is counted separately. For a difference, the
smallest input is printed with all readings. Values with a newline do not go through file and pipe.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from harness import Bar, in_process, parser, report, say
from parts.differential_run import new_topic
from parts.record_readers import build_go
from parts.stream import broker

INPUTS: Final = 1_000_000
QUICK: Final = 20_000
PROCESSES: Final = 2


def measure(inputs: int, seed: int) -> list[dict[str, Any]]:
    """Return the findings of all processes. Each has a share of the inputs, a seed and a topic of its own."""
    with broker() as kafka, tempfile.TemporaryDirectory(prefix="dwcp-bench-") as folder, ThreadPoolExecutor(PROCESSES) as pool:
        binary = build_go(Path(folder))
        jobs = []
        for number in range(PROCESSES):
            topic = f"differential-{number}"
            new_topic(kafka.bootstrap, topic)
            share = inputs // PROCESSES + (inputs % PROCESSES if number == 0 else 0)
            jobs.append({"bootstrap": kafka.bootstrap, "topic": topic, "go": str(binary), "seed": 1000 * seed + number, "inputs": share})
        return list(pool.map(lambda job: in_process("parts.differential_run", job), jobs))


def total(found: list[dict[str, Any]], name: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for one in found:
        counts.update(one[name])
    return dict(sorted(counts.items()))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--inputs", type=int, default=None, help=f"how many (default: {INPUTS:,})")
    options.add_argument("--seed", type=int, default=1, help="another one makes other inputs (default: 1)")
    chosen = options.parse_args()
    found = measure(chosen.inputs or (QUICK if chosen.quick else INPUTS), chosen.seed)
    for one in found:
        for example in one["examples"]:
            say(f"read in two ways: {example}")
    inputs, differences = total(found, "inputs"), sum(one["differences"] for one in found)
    figures = {
        "inputs": inputs, "outcomes": total(found, "outcomes"), "compared": total(found, "compared"),
        "schema_does_not_say": total(found, "schema_does_not_say"), "seed": chosen.seed,
    }  # fmt: skip
    return report("differential", figures, [Bar("inputs", sum(inputs.values()), ">=", INPUTS), Bar("differences", differences, "<=", 0)])


if __name__ == "__main__":
    sys.exit(main())
