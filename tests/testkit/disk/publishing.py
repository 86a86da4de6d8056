"""A publisher that is killed at every system call of its work on a registry, while a reader follows CURRENT in a tight loop.

    python -m testkit.disk.publishing '{"source": "a version", "folder": "an empty one", "signed": true, "stops": "all"}'

stops: "all" is entry and exit of every call. "changing" is the entry of calls that change the disk: all states that the disk can be left
in. The last line of output is one JSON object: what was done, and which promises were broken.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import onnx

from model.registry.choice import CHOICE_NAME
from model.registry.versions import CURRENT_NAME, REFUSAL_NAME, REFUSED_KEPT, REFUSED_NAME, Registry
from model.spec.verdict import Verdict
from model.version.manifest import MANIFEST_NAME, SIGNATURE_NAME, check_files, read_manifest, sign_manifest, verify, write_manifest
from model.version.metadata import VERSION_FORMAT, VERSION_PATTERN
from model.version.signing import SigningKey, generate
from testkit.disk.durability import Durability
from testkit.disk.syscalls import Stop, run_traced

KEPT: Final = 12
"""Versions that are kept: the reader has seconds for a version that is not live any more."""
GOLDEN_EVERY: Final = 25
"""One of this many reads runs the golden samples. The others are quick, so that reads come at every moment of a publication."""
REPORTED_MAX: Final = 20
_CONTEXT: Final = multiprocessing.get_context("fork")


def as_version(source: Path, target: Path, version: str, key: SigningKey | None) -> Path:
    """Copy a version under another name."""
    old = read_manifest(source).version
    target.mkdir()
    for path in source.iterdir():
        copy = target / path.name.replace(old, version)
        if path.suffix == ".onnx":
            graph = onnx.load_from_string(path.read_bytes())
            onnx.helper.set_model_props(graph, {"version": version})
            copy.write_bytes(graph.SerializeToString())
        elif path.name not in (MANIFEST_NAME, SIGNATURE_NAME):
            copy.write_bytes(path.read_bytes().replace(old.encode(), version.encode()))
    write_manifest(target, version=version, parent=None, reason="test", created_at_s=1.0, verdict=None, libraries={})
    if key is not None:
        sign_manifest(target, key)
    return target


def follow(registry: Registry, stop: Any, answers: Any) -> None:
    """Read CURRENT and check the version that it names, until the stop is set."""
    found: Counter[str] = Counter()
    partial: list[str] = []
    known: dict[str, Any] = {}
    while not stop.is_set():
        try:
            content = (registry.root / CURRENT_NAME).read_text()
            version = content.removesuffix("\n")
            found["reads"] += 1
            if not VERSION_PATTERN.fullmatch(version) or content == version:
                partial.append(f"{CURRENT_NAME} is {content!r}")
                continue
            manifest, problems = check_files(registry.root / version, registry.verify_key)
            if found["reads"] % GOLDEN_EVERY == 0:
                found["golden"] += 1
                problems += verify(registry.root / version, registry.verify_key)
            if manifest is not None and known.setdefault(version, manifest.files) != manifest.files:
                problems.append("is another version than before")
            partial += [f"{version}: {problem}" for problem in problems]
        except OSError as error:
            partial.append(str(error))
    answers.put({**found, "versions": len(known), "partial": len(partial), "told": partial[:REPORTED_MAX]})


@dataclass
class Story:
    """A registry, the kinds of work on it, and what was wrong after a kill."""

    source: Path
    folder: Path
    key: SigningKey | None
    every_stop: bool
    kills: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    power_cut: list[str] = field(default_factory=list)
    names: Iterator[int] = field(default_factory=lambda: count(1))
    known: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry = Registry(self.folder / "models", self.key, None if self.key is None else self.key.public())
        self.registry.recover()

    def new_name(self, year: int = 2026) -> str:
        return (datetime(year, 1, 1) + timedelta(seconds=next(self.names))).strftime(VERSION_FORMAT)  # noqa: DTZ001 - a name

    def made(self, version: str) -> Path:
        """Return the candidate of a version, outside of the registry. It is made once and copied."""
        prepared = self.folder / version
        return prepared if prepared.exists() else as_version(self.source, prepared, version, None)

    def candidate(self, version: str) -> Path:
        return Path(shutil.copytree(self.made(version), self.registry.candidate_folder("job")))

    def done_with(self, version: str) -> None:
        shutil.rmtree(self.folder / version)

    # What is killed: each prepares its work, does it, and says what has to be true afterwards.

    def publishing(self) -> Callable[[], object]:
        version = next((path.name for path in self.folder.iterdir() if VERSION_PATTERN.fullmatch(path.name)), None) or self.new_name()
        if (self.registry.root / version).exists():
            self.done_with(version)
            version = self.new_name()
        candidate = self.candidate(version)
        if self.registry.live.pin() is not None:
            self.registry.unpin()
        return lambda: self.registry.publish(candidate, version)

    def refusing(self) -> Callable[[], object]:
        """Refuse one more than are kept, so that the oldest is deleted. What kills have left beyond them is removed first."""
        for old in self.registry.refused()[:-REFUSED_KEPT]:
            shutil.rmtree(self.registry.root / REFUSED_NAME / old)
        version = self.new_name()
        candidate = self.candidate(version)
        self.done_with(version)
        return lambda: self.registry.refuse(candidate, version, Verdict(False, ("worse",), 1))

    def rolling_back(self) -> Callable[[], object]:
        version = next(name for name in reversed(self.registry.versions()) if name != self.registry.current())
        return lambda: self.registry.rollback(version)

    def pruning(self) -> Callable[[], object]:
        """Prune two versions, the oldest, which were never live since the reader began."""
        while len(self.old()) < 2:
            whole = as_version(self.source, self.folder / "old", self.new_name(2020), self.key)
            whole.rename(self.registry.root / read_manifest(whole).version)
        keep = len(self.registry.versions()) - len(self.old())
        return lambda: self.registry.prune(keep)

    def old(self) -> list[str]:
        return [version for version in self.registry.versions() if version.startswith("v2020")]

    def recovering(self) -> Callable[[], object]:
        version = self.new_name(2021)
        shutil.copytree(self.candidate(version), self.registry.root / f".removing-{version}")
        (self.registry.root / f".{CURRENT_NAME}.0123456789abcdef").write_text(version)
        (self.registry.root / f".{CHOICE_NAME}.partial").write_text("{")
        self.done_with(version)
        return self.registry.recover

    # The killing.

    def killed_everywhere(self, name: str, prepare: Callable[[], Callable[[], object]]) -> None:
        """Start the work again and again, and kill it one stop later each time, until it is done."""
        for last in count(1):
            work, durability = prepare(), Durability(self.registry.root)
            stops = count(1)

            def kill_at(stop: Stop, last: int = last, durability: Durability = durability, stops: Iterator[int] = stops) -> bool:
                durability.take(stop)
                counts = self.every_stop or (stop.changes and stop.at == "entry")
                return counts and next(stops) == last

            live = self.registry.current()
            done = run_traced(work, kill_at)
            self._look(f"{name} killed at stop {last}")
            self.registry.recover()  # as the next publisher does at its start
            self._look_at_leftovers(f"{name} killed at stop {last}")
            if name not in ("publish", "rollback") and self.registry.current() != live:
                self.wrong.append(f"{name}: another version is live")
            self.registry.prune(KEPT + len(self.old()))
            if done:
                durability.finished()
                self.power_cut += [f"{name}, after a power cut: {problem}" for problem in durability.problems]
                return
            self.kills[name] += 1

    def at_once(self) -> int:
        """Run a rollback at each stop of another one, as a person's command may come while the daemon publishes.

        Returns:
            The number of stops.

        Raises:
            TraceError: one of the two failed.
        """
        for last in count(1):
            one, other = self.rolling_back(), self.registry.current()
            stops = count(1)

            def between(stop: Stop, last: int = last, other: str | None = other, stops: Iterator[int] = stops) -> bool:
                if stop.changes and next(stops) == last:
                    run_traced(lambda: self.registry.rollback(other), lambda _stop: False)
                return False

            run_traced(one, between)
            self._look(f"two rollbacks at once, at stop {last}")
            self._look_at_leftovers(f"two rollbacks at once, at stop {last}")
            if next(stops) <= last:
                return last - 1
        raise AssertionError

    def _look(self, where: str) -> None:
        """Check that CURRENT names a version, and that every version, also a refused one, is whole, signed and unchanged."""
        current = self.registry.current()
        if current is None:
            self.wrong.append(f"{where}: nothing is live")
        for version in self.registry.versions():
            manifest, problems = check_files(self.registry.root / version, self.registry.verify_key)
            if manifest is not None and self.known.setdefault(version, manifest.files) != manifest.files:
                problems.append("was published twice")
            self.wrong += [f"{where}: {version}: {problem}" for problem in problems]
        for version in self.registry.refused():
            folder = self.registry.root / REFUSED_NAME / version
            verdict = json.loads((folder / REFUSAL_NAME).read_text())["verdict"]["reasons"] if (folder / REFUSAL_NAME).exists() else None
            problems = [problem for problem in check_files(folder)[1] if REFUSAL_NAME not in problem]
            if problems or verdict != ["worse"]:
                self.wrong.append(f"{where}: refused {version}: {problems}, verdict {verdict}")

    def _look_at_leftovers(self, where: str) -> None:
        left = {path.name for path in self.registry.root.iterdir()} - {CURRENT_NAME, CHOICE_NAME, REFUSED_NAME, *self.registry.versions()}
        if left:
            self.wrong.append(f"{where}: {sorted(left)} are left")


def run(job: dict[str, Any]) -> dict[str, Any]:
    folder = Path(job["folder"])
    key = SigningKey.read(generate(folder / "keys")[0]) if job["signed"] else None
    story = Story(Path(job["source"]), folder, key, job["stops"] == "all")
    run_traced(story.publishing(), lambda _stop: False)  # not in this process: it stays one of a single thread
    stop, answers = _CONTEXT.Event(), _CONTEXT.SimpleQueue()
    reader = _CONTEXT.Process(target=follow, args=(story.registry, stop, answers), daemon=True)
    reader.start()
    works = {
        "publish": story.publishing, "rollback": story.rolling_back, "refuse": story.refusing, "prune": story.pruning,
        "recover": story.recovering,
    }  # fmt: skip
    for name, prepare in works.items():
        story.killed_everywhere(name, prepare)
        print(f"{name}: {story.kills[name]} kills", file=sys.stderr, flush=True)
    at_once = story.at_once()
    stop.set()
    seen = answers.get()
    reader.join()
    wrong = story.wrong + story.power_cut
    return {
        "kills": dict(story.kills), "at_once": at_once, "reader": seen, "wrong": wrong[:REPORTED_MAX],
        "partial": seen["partial"] + len(wrong), "power_cut": len(story.power_cut),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
