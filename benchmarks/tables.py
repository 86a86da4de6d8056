"""Writes the tables of figures into README.md and docs, between markers, from the results under docs/benchmarks.

<!-- figures:ingest -->          bars and figures of one benchmark
<!-- /figures -->
<!-- figures:bars -->            the bars of all of them
<!-- /figures -->
<!-- figures:accuracy.pairs -->  one figure that is a list of rows
<!-- /figures -->

python benchmarks/tables.py            writes
python benchmarks/tables.py --check    only says which files are not up to date: exit code 1
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
ALL_BARS: Final = "bars"
_BLOCK: Final = re.compile(r"(<!-- figures:(?P<name>[a-z_.]+) -->\n).*?(<!-- /figures -->)", re.DOTALL)


class TableError(Exception):
    """A marker asks for figures that are not there. The message says which, where, and what to do."""


def documents(root: Path) -> list[Path]:
    """The files that may hold markers."""
    return [path for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))) if path.exists()]


def results(root: Path) -> dict[str, dict[str, Any]]:
    """What each benchmark printed last, by its name."""
    found = {}
    for path in sorted((root / "docs" / "benchmarks").glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        found[str(document["benchmark"])] = document
    return found


def filled(text: str, found: Mapping[str, dict[str, Any]], where: str) -> str:
    """The text with its blocks written anew. Raises TableError for a name that no result has."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name == ALL_BARS:
            return f"{match[1]}\n{all_bars(found)}\n{match[3]}"
        name, _, figure = name.partition(".")
        if name not in found or (figure and not _is_table(found[name]["figures"].get(figure))):
            raise TableError(
                f"{where}: there are no figures of {match['name']!r} under docs/benchmarks; run make bench-{name}, or drop the marker"
            )
        if figure:
            return f"{match[1]}\n{_rows(found[name]['figures'][figure])}\n\n{match[3]}"
        return f"{match[1]}\n{tables(found[name])}\n{match[3]}"

    return _BLOCK.sub(block, text)


def tables(result: Mapping[str, Any]) -> str:
    """Machine, bars and figures of one benchmark."""
    return f"{_machine(result)}\n\n{_bars([result])}\n\n{_figures(result['figures'])}\n"


def all_bars(found: Mapping[str, dict[str, Any]]) -> str:
    """The bars of every benchmark, and the machines they were measured on."""
    machines = sorted({_machine(result) for result in found.values()})
    return f"{_bars(list(found.values()))}\n\n" + "\n".join(machines) + "\n"


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    return f"Measured on {machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']} GB, Python {result['versions']['python']}."


def _bars(found: list[Mapping[str, Any]]) -> str:
    lines = ["| bar | measured | wanted | holds |", "|---|---:|---:|---|"]
    for result in found:
        for bar in result["bars"]:
            sign = {"<=": "≤", ">=": "≥"}[bar["op"]]
            holds = "yes" if bar["holds"] else "**no**"
            lines.append(f"| `{bar['name']}` | {_shown(bar['value'])} | {sign} {_shown(bar['limit'])} | {holds} |")
    return "\n".join(lines)


def _figures(figures: Mapping[str, Any]) -> str:
    lines = ["| figure | value |", "|---|---:|"]
    lines.extend(f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in _flat(figures))
    return "\n".join(lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _rows(rows: list[Mapping[str, Any]]) -> str:
    """A table with a column for each key of the first row; columns of numbers stand to the right."""
    columns = list(rows[0])
    marks = ["---" if isinstance(rows[0][column], str) else "---:" for column in columns]
    lines = [
        " | ".join(column.replace("_", " ") for column in columns),
        "|".join(marks),
        *(" | ".join(_shown(row[column]) for column in columns) for row in rows),
    ]
    return "\n".join(f"|{line}|" if line.startswith("-") else f"| {line} |" for line in lines)


def _flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}: ")
        elif not _is_table(value):
            yield f"{before}{name}", value


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).replace("|", "\\|")
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the tables of figures into README.md and docs.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a table is not up to date")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    stale = []
    try:
        found = results(options.root)
        for path in documents(options.root):
            text = path.read_text(encoding="utf-8")
            new = filled(text, found, path.name)
            if new != text:
                stale.append(path.name)
                if not options.check:
                    path.write_text(new, encoding="utf-8")
    except (TableError, KeyError, ValueError) as error:
        print(f"tables: {error}", file=sys.stderr)
        return 1
    if options.check and stale:
        print(f"not up to date: {', '.join(stale)}; run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
