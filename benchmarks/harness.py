"""What all benchmarks share: the machine, versions, bars, processes, and the JSON line at the end.

    {"benchmark": NAME, "machine": {...}, "versions": {...}, "figures": {...}, "bars": [{"name", "value", "op", "limit", "holds"}]}

A bar that does not hold is a measurement, not an error: it is printed on standard error, and the exit code stays 0.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import parts  # noqa: F401 - finds the testkit

FOLDER: Final = Path(__file__).resolve().parent
CHILD_LIMIT_S: Final = 3600.0
"""Most seconds of a measurement. None takes an hour on any machine: one that does hangs."""
LIBRARIES: Final = ("numpy", "numba", "msgspec", "kafka-python", "onnxruntime", "river", "pyarrow", "tensorflow-cpu", "keras")


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit that the project sets itself.

    Args:
        name: of the figure.
        value: None if it could not be measured; the bar does not hold then.
        op: how the value has to compare with the limit.
        limit: the limit.
    """

    name: str
    value: float | None
    op: Literal["<=", ">="]
    limit: float

    @property
    def holds(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.limit if self.op == "<=" else self.value >= self.limit

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "value": rounded(self.value), "op": self.op, "limit": self.limit, "holds": self.holds}


def report(benchmark: str, figures: Mapping[str, Any], bars: Iterable[Bar], more_versions: Mapping[str, str] | None = None) -> int:
    """Print the JSON line, and on standard error the bars that do not hold. Returns the exit code, 0."""
    bars = list(bars)
    document = {
        "benchmark": benchmark,
        "machine": machine(),
        "versions": versions() | dict(more_versions or {}),
        "figures": rounded(dict(figures)),
        "bars": [bar.to_json() for bar in bars],
    }
    for bar in bars:
        if not bar.holds:
            print(f"{benchmark}: {bar.name} is {rounded(bar.value)} and should be {bar.op} {bar.limit:g}", file=sys.stderr)
    sys.stderr.flush()
    print(json.dumps(document, allow_nan=False), flush=True)
    return 0


def machine() -> dict[str, Any]:
    """Return the facts that figures depend on, without host name and paths: results are published."""
    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", information, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", information, re.MULTILINE)
    vectors = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if flags and name in flags[1].split()]
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "vector_extensions": vectors,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that matter."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}


def rounded(value: Any) -> Any:
    """Round floats, also in dicts and lists, to four significant digits: no measurement here is more precise."""
    if isinstance(value, Mapping):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        short = float(f"{value:.4g}")
        return int(short) if short.is_integer() and abs(short) >= 1000 else short
    return value


def in_process(
    module: str, job: Mapping[str, Any], python: str = sys.executable, *, limit_s: float = CHILD_LIMIT_S, aloud: bool = False
) -> dict[str, Any]:
    """Run `python -m module JOB` in the benchmarks' folder and return the JSON object of its last line.

    Each measurement gets a process of its own, so that it does not pay for imports, compiled code or memory of another.

    Args:
        module: such as parts.daemon_run.
        job: becomes the argument, as JSON.
        python: interpreter.
        limit_s: most seconds.
        aloud: show its standard error as it comes.

    Raises:
        RuntimeError: it failed; the message has the end of its output.
    """
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, "-m", module, json.dumps(job)]
    errors = None if aloud else subprocess.PIPE
    done = subprocess.run(
        command, cwd=FOLDER, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, timeout=limit_s
    )
    lines, said = done.stdout.strip().splitlines(), done.stderr or ""
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"{module} ended with exit code {done.returncode}:\n{(done.stdout + said)[-3000:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def environment(name: str, lock: Path) -> str:
    """Return the Python of a virtual environment in the repository's root with the packages of a lock. Makes it if needed."""
    folder = FOLDER.parent / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists() or ready.read_bytes() != lock.read_bytes():
        say(f"making {name} of {lock.name}")
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
        subprocess.run(install, check=True)
        ready.write_bytes(lock.read_bytes())
    return str(python)


def job_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the job of a process that `in_process` has started."""
    job: dict[str, Any] = json.loads(arguments[1])
    return job


def answer(values: Mapping[str, Any]) -> None:
    """Print the last line of such a process."""
    print(json.dumps(values), flush=True)


def median_of_ratios(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median over the rounds of above / below.

    Both values of a round are measured one after the other, so a machine that slows down between rounds does not change the ratio.
    """
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def arguments(description: str | None) -> argparse.Namespace:
    """Parse --quick and --rounds."""
    return parser(description).parse_args()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with --quick and --rounds, for a benchmark that has more options."""
    options = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it works; its figures say little")
    options.add_argument("--rounds", type=int, default=3, help="repetitions of which the median is taken, or seeds (default: 3)")
    return options


def say(text: str) -> None:
    """Print progress on standard error. Standard output is for the result."""
    print(text, file=sys.stderr, flush=True)
