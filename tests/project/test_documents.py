"""Promises of the documents about the tree: every path, name, command and link that they mention exists."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from daemon.config.load import Config
from features.definition import FEATURES
from testkit.versions import publish

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("daemon", "drift", "features", "model", "streams")
SOURCES: Final = (*PACKAGES, "benchmarks", "clients", "docs", "examples", "systemd", "tests")
GUIDES: Final = ("README.md", "CONTRIBUTING.md", "docs/*.md", "examples/README.md", "systemd/README.md")
"""Documents whose every name is checked. CHANGELOG.md speaks of names that have gone, too."""
DOCUMENTS: Final = tuple(sorted(str(path.relative_to(ROOT)) for pattern in GUIDES for path in ROOT.glob(pattern)))
LINE_MAX: Final = 140

_GENERATED: Final = re.compile(r"<!-- figures:.*?<!-- /figures -->", re.DOTALL)
_BLOCK: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_CODE: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", re.MULTILINE)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH: Final = re.compile(r"(?:[\w.-]+/)*[\w.-]+\.(?:py|go|toml|json|md|svg|service|sysusers|lock|xml)|(?:[\w.-]+/)+[\w.-]*")
_NAME: Final = re.compile(r"[A-Za-z]\w*(?:\.[A-Za-z]\w*)*")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def written(document: str) -> str:
    """The text without generated tables, whose names are those of benchmarks."""
    return _GENERATED.sub(lambda block: "\n" * block[0].count("\n"), text_of(document))


def code_in(document: str) -> list[str]:
    """Return the texts in backticks outside of blocks."""
    return _CODE.findall(_BLOCK.sub("", written(document)))


def commands_in(document: str) -> Iterator[str]:
    """Lines of shell blocks, and what stands in backticks."""
    yield from code_in(document)
    for _, language, block in _BLOCK.findall(written(document)):
        if language == "sh":
            yield from block.splitlines()


@cache
def source_text() -> str:
    """Everything but the documents: code, configuration, schemas, the Makefile."""
    kinds = {".py", ".go", ".toml", ".json", ".mod", ".service", ".sysusers"}
    files = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*")) if path.suffix in kinds and path.is_file()]
    files += [ROOT / "Makefile", ROOT / "pyproject.toml"]
    return "\n".join(path.read_text(encoding="utf-8") for path in files if path.name != Path(__file__).name)


@cache
def names_in_the_source() -> frozenset[str]:
    """Features too, which are made of other names, and metrics as they are scraped: a counter's name ends in _total."""
    names = {*re.findall(r"[A-Za-z_]\w*", source_text()), *FEATURES}
    return frozenset(names | {f"{name}_total" for name in names if name.startswith("dwcp_")})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_are_short(document: str) -> None:
    """Generated tables aside: their width is that of their figures."""
    lines = written(document).splitlines()
    assert [f"{number}: {len(line)}" for number, line in enumerate(lines, 1) if len(line) > LINE_MAX] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_table_has_a_sentence_before_it(document: str) -> None:
    """Which says what to look at; and every document has one between its title and its first part."""
    lines = [line for line in _BLOCK.sub("", text_of(document)).splitlines() if line.strip() and not line.startswith("<!--")]
    tables = [index for index, line in enumerate(lines) if line.startswith("|") and not lines[index - 1].startswith("|")]
    assert [lines[index] for index in tables if lines[index - 1].startswith("#")] == []
    assert not lines[1].startswith(("#", "|"))


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md", "clients/go/README.md"])
def test_links_lead_somewhere(document: str) -> None:
    """Files and headings, within the repository."""
    broken = []
    for link in map("".join, _LINK.findall(_BLOCK.sub("", text_of(document)))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert broken == []


def headings(path: Path) -> set[str]:
    """The anchors of a document, as GitHub makes them of its headings."""
    text = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(text)}


@pytest.mark.parametrize("document", [*DOCUMENTS, "clients/go/README.md"])
def test_paths_exist(document: str) -> None:
    """A path with a folder of this repository, from its root or from the document's folder; a file name alone exists somewhere."""
    missing = []
    for command in commands_in(document):
        for word in command.split():
            path = word.strip("\"'(),;:").partition("::")[0]
            if _PATH.fullmatch(path) and ours(path) and not exists(path, (ROOT / document).parent):
                missing.append(path)
    assert missing == []


def ours(path: str) -> bool:
    """Return whether a path belongs to this repository: others are of installations, runs and examples, and NAME is a placeholder."""
    if "NAME" in path:
        return False
    first, _, rest = path.partition("/")
    return ((bool(rest) or path.endswith("/")) and first in SOURCES) or (not rest and path.endswith(".py"))


def exists(path: str, beside: Path) -> bool:
    if "/" not in path:
        return any(found for folder in SOURCES for found in (ROOT / folder).rglob(path))
    return (ROOT / path).exists() or (beside / path).exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_exist(document: str) -> None:
    """Modules, configuration keys, classes, events, metrics and fields in backticks are names of the code."""
    unknown = []
    for code in code_in(document):
        if not _NAME.fullmatch(code) or _PATH.fullmatch(code) or "VERSION" in code:
            continue
        if "_" in code or "." in code or re.search(r"[a-z][A-Z]", code):
            known = is_module(code) or is_key(code) or all(part in names_in_the_source() for part in code.split("."))
            if not known or (code.split(".")[0] in PACKAGES and "." in code and not (is_module(code) or is_key(code))):
                unknown.append(code)
    assert unknown == []


def is_module(name: str) -> bool:
    """daemon.wiring, or a name in it: daemon.wiring.build."""
    path = ROOT / Path(*name.split("."))
    inside = path.parent.with_suffix(".py")
    return path.is_dir() or path.with_suffix(".py").exists() or (inside.exists() and path.name in inside.read_text(encoding="utf-8"))


def is_key(name: str) -> bool:
    """kafka.topic, or a section."""
    section, _, key = name.partition(".")
    model = Config.model_fields.get(section)
    if model is None or not isinstance(model.annotation, type) or not issubclass(model.annotation, BaseModel):
        return False
    return not key or key.partition(".")[0] in model.annotation.model_fields


@pytest.mark.parametrize("document", ["docs/go.md", "docs/training-guide.md", "systemd/README.md"])
def test_messages_are_those_of_the_code(document: str) -> None:
    """Each message in the first column of a table of troubles is printed by the code, values aside."""
    of_others = ("constraints exclude", "ORT API base", "loading ONNX shared", "activating (", "active (", "Watchdog timeout", "OOM killer")
    parts = source_text().replace('" \n', "").replace("\\n", " ")
    unknown = []
    for row in re.findall(r"^\| (.*?) \|", written(document), re.MULTILINE):
        for message in _CODE.findall(row):
            words = [part.strip(" :;,.()") for part in re.split(r"\d[\d.]*|…|\.\.\.|v\.\.\.|\bN\b|[:,] ", message)]
            if " " in message and not any(other in message for other in of_others) and message[0] != "-":
                unknown += [part for part in words if " " in part and part not in parts and f"dwcp-learner {part}" not in message]
    assert unknown == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_configuration_keys_exist(document: str) -> None:
    """A name that begins with a section of the configuration is a key of it."""
    sections = {name for name in Config.model_fields if not name.startswith("model_")}
    keys = [code for code in code_in(document) if _NAME.fullmatch(code) and code.count(".") and code.split(".")[0] in sections]
    assert [key for key in keys if not is_key(key) and not is_module(key)] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, "clients/go/README.md"])
def test_commands_exist(document: str) -> None:
    """`make TARGET` is a target of the Makefile, `dwcp-learner COMMAND` a command."""
    makefile = text_of("Makefile")
    benchmarks = {f"bench-{path.stem}" for path in (ROOT / "benchmarks").glob("*.py")} | {"bench-NAME"}
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) | benchmarks
    subcommands = set(re.findall(r"dwcp-learner (\w[\w-]*)", source_text()))
    unknown = []
    for command in commands_in(document):
        unknown += [found for found in re.findall(r"^\W*make ([a-z]\S*)", command) if found not in targets]
        unknown += [found for found in re.findall(r"(?:bin/|^)dwcp-learner ([a-z][\w-]*)", command) if found not in subcommands]
    assert unknown == []


def test_every_folder_of_the_packages_is_described_once() -> None:
    """The table of folders in architecture.md is the tree."""
    folders = [path.parent.relative_to(ROOT).as_posix() + "/" for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    described = re.findall(r"^\| `((?:" + "|".join(PACKAGES) + r")/[\w/]*)` \|", text_of("docs/architecture.md"), re.MULTILINE)
    assert sorted(described) == sorted(folders)


def test_tables_of_figures_are_up_to_date() -> None:
    """`make docs` was run after the last benchmark."""
    tables = importlib.import_module("tables")
    found = tables.results(ROOT)
    stale = [path.name for path in tables.documents(ROOT) if (text := path.read_text("utf-8")) != tables.filled(text, found, path.name)]
    assert stale == [], "run make docs"
    assert "## Eight figures" in text_of("README.md")
    assert len(tables.HEADLINES) == 8


def test_headlines_show_bars_and_figures_with_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars by name, figures within figures by a path, shares in percent; a figure that no result has is an error."""
    tables = importlib.import_module("tables")
    figures = {"records": 1_000_000, "records_per_cpu_s": {"own": 123_456.0}, "share": 0.25, "reason": None}
    bar = {"name": "own_vs_poll", "value": 0.8, "op": "<=", "limit": 1.0, "holds": True}
    found = {"ingest": {"benchmark": "ingest", "figures": figures, "bars": [bar]}}
    text = "<!-- figures:headlines -->\n<!-- /figures -->"
    line = tables.Headline("ingest", "{own_vs_poll} of {records}", "{records_per_cpu_s/own} a second, {share/percent}")
    monkeypatch.setattr(tables, "HEADLINES", (line,))
    assert "| **0.8 of 1,000,000** | 123,456 a second, 25 % | `make bench-ingest` |" in tables.filled(text, found, "x")
    for unknown in ("{reason}", "{records_per_cpu_s/other}", "{speed}"):
        monkeypatch.setattr(tables, "HEADLINES", (tables.Headline("ingest", unknown, ""),))
        with pytest.raises(tables.TableError, match="make bench-ingest"):
            tables.filled(text, found, "x")


def test_every_benchmark_is_described_and_none_twice() -> None:
    """The first table of benchmarks.md has a row for each file of benchmarks/ that is one."""
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"harness", "tables"}
    described = re.findall(r"^\| `(\w+)` \|", written("docs/benchmarks.md"), re.MULTILINE)
    assert sorted(described) == sorted(names)


def test_the_picture_of_the_readme_is_small_and_readable_in_both_schemes() -> None:
    """docs/demo.svg is what docs/picture.py draws: it loads nothing, and its colours follow the reader's scheme."""
    content = (ROOT / "docs" / "demo.svg").read_bytes()
    assert len(content) < 60_000
    root = ElementTree.fromstring(content)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"prefers-color-scheme:dark" in content
    assert b"href" not in content
    assert "](docs/demo.svg)" in text_of("README.md")


def test_the_picture_is_drawn_from_what_a_demo_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small state directory in the daemon's own formats: rows of two links, an incident, two versions."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    picture = importlib.import_module("picture")
    old, new = "v20261123_101500", "v20261123_111500"
    publish(tmp_path, old)
    publish(tmp_path, new, seed=1)
    manifest = tmp_path / "models" / new / "MANIFEST.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"parent": old}))
    since_s, live_s = 1_795_000_000.0, 1_795_003_600.0
    (tmp_path / "state" / "events").mkdir(parents=True)
    reported = {"incident": "i", "scope": "region", "links": ["a", "b"], "since_s": since_s, "opened_s": since_s + 540}
    events = [
        {"type": "dwcp.drift.opened", "time": "2026-11-18T10:15:40Z", "subject": "eu-west-1", "data": reported},
        *(
            {"type": "dwcp.drift.retraining", "time": time, "data": {"incident": "i", "version": new}}
            for time in (utc(since_s), utc(live_s))
        ),
    ]
    (tmp_path / "state" / "events" / "drift.ndjson").write_text("\n".join(map(json.dumps, events)))
    (tmp_path / "state" / "buffer").mkdir()
    rows = [
        {"time_s": since_s + 60.0 * minute, "rtt_ms": 20.0 + minute % 2, "throughput_mbps": 80.0, "region": "eu-west-1", "link": link}
        for minute in range(-119, 110)
        for link in ("a", "b")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "state" / "buffer" / "t-0.parquet")
    run = picture.read_run(tmp_path)
    assert (run.since_s, run.live_s, run.versions, run.link) == (since_s, live_s, (old, new), "a")
    before = [value for time_s, value in run.error if time_s < since_s]
    assert sum(before) / len(before) == pytest.approx(1.0), "the unit is the error before the change"
    assert [len(close_up) for close_up in run.close_ups] == [30, 30]
    ElementTree.fromstring(picture.draw(run))
    (tmp_path / "state" / "events" / "drift.ndjson").write_text(json.dumps(events[0]))
    with pytest.raises(ValueError, match="make demo"):
        picture.read_run(tmp_path)


def utc(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat()
