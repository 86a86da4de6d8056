"""Training: milliseconds of a step of plain Keras, of ours and of PyTorch, beside the machine's matrix rate; and a first version.

    make bench-training        (or: python benchmarks/training.py --quick)

The network has the real size, at batch 64 and 256. Plain Keras is the network as it is written (keras.layers.LSTM with dropout and
recurrent dropout, no XLA). Ours is model/training/fit/loop.py. PyTorch is its nn.LSTM of the same sizes, which has no recurrent dropout.
Every contender runs in a process of its own, one after the other, in several rounds; ratios are taken within a round. The first step, which
traces, is reported separately. A second run has one thread each: there CPU time is compared, which holds on a shared machine. Wall times do
not: PyTorch loses most when a core is taken away (seen: five times the CPU time).

A first version on 15,000 rows is a whole job of the daemon, a process of its own: with the default network, and with the published sizes.
"""

from __future__ import annotations

import math
import statistics
import sys
from typing import Any, Final

from harness import FOLDER, Bar, arguments, environment, in_process, median_of_ratios, report, say
from model.spec.architecture import Architecture, Lstm, Relative
from model.spec.job import plain

ENVIRONMENT: Final = ".venv-torch"
"""Virtual environment with PyTorch, of its own because it brings three gigabytes of CUDA."""
LOCK: Final = FOLDER / "torch.lock"
CONTENDERS: Final = ("plain", "ours", "pytorch")
BATCHES: Final = (64, 256)
QUICK_SIZES: Final = {"lstm_units": (32, 24, 16), "dense_units": (16, 16), "head_units": 8}

FIRST_ROWS: Final = 15_000
FIRST: Final[dict[str, Architecture]] = {"default": Relative(), "published": Lstm()}

Found = dict[str, list[dict[str, Any]]]
"""Result of each contender, and of "rate", in each round."""


def step_gflop(architecture: Architecture, batch: int) -> float:
    """Return the multiplications and additions of the LSTMs in a step, 1e9: forward, and twice that for gradients. 9.4 at batch 64."""
    weights = sum(
        4 * units * (inputs + units)
        for inputs, units in zip((architecture.features, *architecture.lstm_units), architecture.lstm_units, strict=False)
    )
    return 3 * 2 * batch * architecture.window_rows * weights / 1e9


def measure(sizes: dict[str, Any], steps: int, rounds: int, threads: int) -> Found:
    """Return the results of each contender, and of "rate", in each round. threads: of each contender; 0: its default."""
    torch = environment(ENVIRONMENT, LOCK)
    job = {"sizes": sizes, "steps": steps, "batches": BATCHES, "threads": threads}
    found: Found = {}
    for number in range(rounds):
        found.setdefault("rate", []).append(in_process("parts.matrix_rate", {"repetitions": 5, "threads": threads}))
        for name in CONTENDERS:
            if name == "pytorch":
                ran = in_process("parts.torch_step", job, torch)
            else:
                ran = in_process("parts.training_step", job | {"contender": name})
            found.setdefault(name, []).append(ran)
            reported = ", ".join(f"{ran[str(batch)]['ms']:.0f} ms ({ran[str(batch)]['cpu_ms']:.0f} CPU) at {batch}" for batch in BATCHES)
            say(f"round {number + 1}, {threads or 'all'} threads: {name:<8}{reported}")
    return found


def values(found: Found, name: str, batch: int, field: str) -> list[float]:
    return [ran[str(batch)][field] for ran in found[name]]


def first_versions(quick: bool) -> dict[str, Any]:
    """Return what a first version of each architecture took."""
    made = {}
    for name, architecture in FIRST.items():
        settings = {"epochs": 1, "epoch_windows_max": 256} if quick else {}
        job = {"architecture": plain(architecture), "rows": FIRST_ROWS // 10 if quick else FIRST_ROWS, "settings": settings}
        made[name] = in_process("parts.first_version", job)
        say(f"first version, {name}: {made[name]}")
    return made


def figures(found: Found, architecture: Architecture, field: str) -> dict[str, Any]:
    """Return the medians over the rounds. field: "ms" or "cpu_ms", what is compared."""
    rates = {name: statistics.median(ran[name] for ran in found["rate"]) for name in found["rate"][0]}
    reported: dict[str, Any] = {"matrix_gflop_per_s": rates, "rounds": len(found["rate"])}
    for batch in BATCHES:
        gflop = step_gflop(architecture, batch)
        ms = {name: statistics.median(values(found, name, batch, field)) for name in CONTENDERS}
        reported[f"batch_{batch}"] = {
            f"step_{field}": ms,
            "share_of_matrix_rate": {name: gflop / (ms[name] / 1e3) / rates["square"] for name in CONTENDERS},
            "first_step_s": {name: statistics.median(values(found, name, batch, "first_s")) for name in CONTENDERS},
            "gflop": gflop,
            "speedup": median_of_ratios(values(found, "plain", batch, field), values(found, "ours", batch, field)),
            "vs_pytorch": median_of_ratios(values(found, "ours", batch, field), values(found, "pytorch", batch, field)),
        }
    return reported


def bars(reported: dict[str, Any]) -> list[Bar]:
    """Return the bars of steps, by wall time with the default number of threads, and those of a first version, its ratio by CPU time."""
    return [
        *(Bar(f"speedup_{batch}", reported[f"batch_{batch}"]["speedup"], ">=", 1.15) for batch in BATCHES),
        *(
            Bar(f"vs_pytorch_{batch}", reported[f"batch_{batch}"]["vs_pytorch"], "<=", most)
            for batch, most in zip(BATCHES, (2.0, 1.4), strict=True)
        ),
        Bar("first_version_s", reported["first_version"]["default"]["wall_s"], "<=", 180.0),
        Bar("first_version_to_published", reported["first_version_to_published"], "<=", 0.35),
    ]


def main() -> int:
    options = arguments(__doc__)
    architecture = Lstm(**QUICK_SIZES) if options.quick else Lstm()  # type: ignore[arg-type]
    sizes, steps = plain(architecture), 5 if options.quick else 20
    found = measure(sizes, steps, options.rounds, threads=0)
    alone = measure(sizes, steps, math.ceil(options.rounds / 2), threads=1)
    reported = figures(found, architecture, "ms")
    reported["one_thread"] = figures(alone, architecture, "cpu_ms")
    reported["first_version"] = first = first_versions(options.quick)
    reported["first_version_to_published"] = first["default"]["cpu_s"] / first["published"]["cpu_s"]
    return report("training", reported, bars(reported), {"torch": found["pytorch"][0]["torch"]})


if __name__ == "__main__":
    sys.exit(main())
