"""The tables of figures in README.md and docs, written between markers from the results under docs/benchmarks.

<!-- figures:headlines -->       the figures of HEADLINES, each with what it means for a reader
<!-- /figures -->
<!-- figures:bars -->            the bars of all benchmarks, and the machines they were measured on
<!-- /figures -->
<!-- figures:ingest -->          machine, bars and figures of one benchmark
<!-- /figures -->
<!-- figures:accuracy.pairs -->  one figure that is a list of rows
<!-- /figures -->

python benchmarks/tables.py            writes the tables
python benchmarks/tables.py --check    writes nothing; exit code 1 if a table is not up to date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
ALL_BARS: Final = "bars"
ALL_HEADLINES: Final = "headlines"
_BLOCK: Final = re.compile(r"(<!-- figures:(?P<name>[a-z_.]+) -->\n).*?(<!-- /figures -->)", re.DOTALL)
_FIELD: Final = re.compile(r"\{([^}]+)\}")


class Headline(NamedTuple):
    """A figure for the README. `figure` names bars and figures in braces; {a/b} is figure b within figure a."""

    benchmark: str
    figure: str
    meaning: str


HEADLINES: Final = (
    Headline(
        "kill",
        "{kills} kills, {records} records: {lost} lost, {duplicated} counted twice",
        "It may die at any moment: nothing has to be repaired, and no record has to be sent again.",
    ),
    Headline(
        "recovery",
        "{recovery_s_10k} s from kill -9 to ready",
        "With the state of 10,000 links: after a crash nobody waits for windows to fill or detectors to calibrate.",
    ),
    Headline(
        "ingest",
        "{kafka_vs_quix} times the records per CPU second of Quix Streams",
        "A backlog costs less than a third of a stream framework's CPU time (forecasts are shed while it is read).",
    ),
    Headline(
        "memory",
        "{resident_mb/100000} MB with 100,000 links",
        "A large fleet fits beside other services; a training, a process of its own, adds up to 3.5 GB while it runs.",
    ),
    Headline(
        "alerts",
        "{false_incidents_week} false incidents a week, where the budget is 1",
        "On the whole chain, for 2,000 links, in the worst of quiet and disturbed simulated fleets. Before: 1,170.",
    ),
    Headline(
        "alerts",
        "{delay_of_steps} rows until the alert",
        "On the whole chain: a fifth of a region or more moves by two or four standard deviations; one such step in six is missed.",
    ),
    Headline(
        "drift_to_live",
        "{drift_to_live_s} s from the alert to the new version",
        "Training, gate, proof and swap on two cores; the wait for rows of the changed network follows your fleet's pace.",
    ),
    Headline(
        "accuracy",
        "{pairs_better/percent} of the forecasts beat every simple rule",
        "1 to 24 rows ahead, on seven recordings, target by target: beside the best of seven simple rules on the same rows.",
    ),
)


class TableError(Exception):
    """A marker asks for figures that do not exist. The message says which, where, and what to do."""


def documents(root: Path) -> list[Path]:
    """Return the files that may hold markers."""
    return [path for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))) if path.exists()]


def results(root: Path) -> dict[str, dict[str, Any]]:
    """Return the newest result of each benchmark by its name."""
    found = {}
    for path in sorted((root / "docs" / "benchmarks").glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        found[str(document["benchmark"])] = document
    return found


def filled(text: str, found: Mapping[str, dict[str, Any]], where: str) -> str:
    """Return the text with its blocks written anew.

    Args:
        text: a Markdown document.
        found: the results by benchmark.
        where: the document's name, for the message.

    Raises:
        TableError: a marker names figures that no result has.
    """

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name == ALL_BARS:
            return f"{match[1]}\n{all_bars(found)}\n{match[3]}"
        if name == ALL_HEADLINES:
            return f"{match[1]}\n{headlines(found, where)}\n\n{match[3]}"
        name, _, figure = name.partition(".")
        if name not in found or (figure and not _is_table(found[name]["figures"].get(figure))):
            raise _missing(match["name"], name, where)
        if figure:
            return f"{match[1]}\n{_rows(found[name]['figures'][figure])}\n\n{match[3]}"
        return f"{match[1]}\n{tables(found[name])}\n{match[3]}"

    return _BLOCK.sub(block, text)


def _missing(figures: str, benchmark: str, where: str) -> TableError:
    return TableError(f"{where}: there are no figures of {figures!r} under docs/benchmarks; run make bench-{benchmark}, or drop the marker")


def headlines(found: Mapping[str, dict[str, Any]], where: str) -> str:
    """Return the table of HEADLINES. Raises TableError if one names a figure that no result has."""
    lines = ["| figure | what it means for you | printed by |", "|---|---|---|"]
    for headline in HEADLINES:

        def shown(match: re.Match[str], benchmark: str = headline.benchmark) -> str:
            value = _named(found.get(benchmark), match[1])
            if value is None:
                raise _missing(f"{benchmark}: {match[1]}", benchmark, where)
            return value

        figure, meaning = (_FIELD.sub(shown, text) for text in headline[1:])
        lines.append(f"| **{figure}** | {meaning} | `make bench-{headline.benchmark}` |")
    return "\n".join(lines)


def _named(result: Mapping[str, Any] | None, name: str) -> str | None:
    """Return the bar or figure of this name, as it is shown; None if there is none. NAME/percent shows a share in percent."""
    if result is None:
        return None
    first, *rest = name.split("/")
    bars = {bar["name"]: bar["value"] for bar in result["bars"]}
    value = bars.get(first, result["figures"].get(first))
    if rest == ["percent"]:
        return None if value is None else f"{100 * value:.3g} %"
    for part in rest:
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return None if value is None else _shown(value)


def tables(result: Mapping[str, Any]) -> str:
    """Return machine, bars and figures of one benchmark."""
    return f"{_machine(result)}\n\n{_bars([result])}\n\n{_figures(result['figures'])}\n"


def all_bars(found: Mapping[str, dict[str, Any]]) -> str:
    """Return the bars of every benchmark, and which benchmark was measured on which machine."""
    machines: dict[str, list[str]] = {}
    for name, result in found.items():
        machines.setdefault(_machine(result), []).append(f"`{name}`")
    measured = [f"- {machine}\n  {', '.join(names)}" for machine, names in sorted(machines.items())]
    return f"{_bars(list(found.values()))}\n\n" + "\n".join(measured) + "\n"


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    return f"Measured on {machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']} GB, Python {result['versions']['python']}."


def _bars(found: list[Mapping[str, Any]]) -> str:
    lines = ["| benchmark | bar | measured | wanted | holds |", "|---|---|---:|---:|---|"]
    for result in found:
        for bar in result["bars"]:
            sign = {"<=": "≤", ">=": "≥"}[bar["op"]]
            holds = "yes" if bar["holds"] else "**no**"
            cells = (result["benchmark"], f"`{bar['name']}`", _shown(bar["value"]), f"{sign} {_shown(bar['limit'])}", holds)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(figures: Mapping[str, Any]) -> str:
    lines = ["| figure | value |", "|---|---:|"]
    lines.extend(f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in _flat(figures))
    return "\n".join(lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _rows(rows: list[Mapping[str, Any]]) -> str:
    """Return a table with a column for each key of the first row; columns of numbers stand to the right."""
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
    parser = argparse.ArgumentParser(description="Write the tables of figures into README.md and docs.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table is not up to date")
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
