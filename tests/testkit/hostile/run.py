"""Hostile input in a process of its own, which may crash: damaged messages, and what became of them.

    python -m testkit.hostile.run '{"what": "decoder", "form": "json", "messages": 100000, "seed": 1}'
    python -m testkit.hostile.run '{"what": "documents", "messages": 20000, "seed": 1, "folder": "empty", "version": "one"}'
    python -m testkit.hostile.run '{"what": "huge", "bytes": 100000000}'
    python -m testkit.hostile.run '{"what": "links", "messages": 1000000, "links_max": 100000, "folder": "empty"}'
    python -m testkit.hostile.run '{"what": "atheris", "messages": 50000, "seed": 1, "folder": "empty", "version": "one"}'

The last line of output is one JSON object. `crashes` counts undocumented exceptions and broken promises. `rss_growth_mb` is measured from
a tenth of the run, when everything is loaded, to its end.
"""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, overload

REPORTED_MAX: Final = 10
INSTRUMENTED: Final = (
    "streams.records.decode", "streams.records.csv_form", "streams.records.validate", "streams.records.dead_letters",
    "model.version.documents", "model.version.manifest", "model.version.metadata", "model.spec.job", "daemon.ingest.journal", "msgspec",
)  # fmt: skip
_SEPARATOR: Final = b"\x1e"
"""Between the messages of a batch that atheris makes: ASCII's record separator."""


class Run:
    """Counts of a run, and its first problems."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.crashes = 0
        self.reported: list[str] = []
        self._warm_mb = 0.0

    def take(self, check: Callable[[], Counter[str]], where: str) -> None:
        """Run one check. An exception is counted as a crash."""
        try:
            self.counts += check()
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            self.crashes += 1
            self.counts["crashed"] += 1
            if len(self.reported) < REPORTED_MAX:
                self.reported.append(f"{where}: {traceback.format_exc()[-1500:]}")

    @property
    def messages(self) -> int:
        """Number of messages so far."""
        return self.counts.total()

    def warm(self) -> None:
        """Note the memory, if it is not noted yet: everything is loaded."""
        self._warm_mb = self._warm_mb or rss_mb()

    def answer(self, **more: Any) -> dict[str, Any]:
        """Return the result of the run, with further fields."""
        growth = {"rss_mb": rss_mb(), "rss_growth_mb": rss_mb() - self._warm_mb}
        return {"messages": self.messages, **self.counts, "crashes": self.crashes, "told": self.reported, **growth, **more}


def rss_mb() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def decoder(job: dict[str, Any]) -> dict[str, Any]:
    """Damage records for the decoder."""
    from testkit.hostile.messages import NOW_S, Mutator, batches, check_batch, csv_seeds, json_seeds

    run, form = Run(), job["form"]
    seeds = json_seeds() if form == "json" else csv_seeds()
    mutator, rng = Mutator(seeds, job["seed"]), random.Random(job["seed"])
    for batch in batches(mutator.message, seeds[0], rng):
        now_s = rng.choice((NOW_S, None))
        run.take(lambda batch=batch, now_s=now_s: check_batch(batch, form, now_s), form)  # type: ignore[misc]
        if run.messages >= job["messages"] / 10:
            run.warm()
        if run.messages >= job["messages"]:
            break
    return run.answer()


def documents(job: dict[str, Any]) -> dict[str, Any]:
    """Damage documents for their readers. Each reader gets the same number, or small documents would get nearly all of them."""
    from testkit.hostile.documents import targets
    from testkit.hostile.messages import Mutator

    run = Run()
    found = targets(Path(job["folder"]), Path(job["version"]))
    for target in found:
        mutator = Mutator(target.seeds, job["seed"])
        for _ in range(job["messages"] // len(found)):
            content = mutator.message()
            run.take(lambda target=target, content=content: Counter((target.try_one(content),)), target.name)  # type: ignore[misc]
            if run.messages >= job["messages"] / 10:
                run.warm()
    return run.answer(readers=len(found))


def coverage_guided(job: dict[str, Any]) -> dict[str, Any]:
    """Let atheris damage records and documents. It ends the process itself, so the result is printed before."""
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
        from testkit.hostile.documents import targets
        from testkit.hostile.messages import check_batch, csv_seeds, json_seeds
    by_name = {target.name: target for target in targets(Path(job["folder"]), Path(job["version"]))}
    documents = [by_name[name] for name in ("job", "result", "journal", "model manifest", "metadata")]
    corpus, run = Path(job["folder"]) / "corpus", Run()
    corpus.mkdir()
    seeds = [b"\0" + _SEPARATOR.join(json_seeds()), b"\1" + _SEPARATOR.join(csv_seeds())]
    seeds += [bytes((number,)) + seed for number, target in enumerate(documents, start=2) for seed in target.seeds]
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        kind, content = (data[0] if data else 0) % (len(documents) + 2), data[1:]
        if kind < 2:
            run.take(lambda: check_batch(content.split(_SEPARATOR), ("json", "csv")[kind]), "decoder")
        else:
            run.take(lambda: Counter((documents[kind - 2].try_one(content),)), documents[kind - 2].name)
        if run.messages >= job["messages"] / 10:
            run.warm()
        if run.messages >= job["messages"]:
            print(json.dumps(run.answer()), flush=True)
            os._exit(0)  # libFuzzer's own end would hide the exit code

    atheris.Setup([sys.argv[0], f"-seed={job['seed']}", "-max_len=4096", "-verbosity=0", "-rss_limit_mb=0", str(corpus)], one)
    atheris.Fuzz()
    raise AssertionError("the fuzzer ended by itself")


def huge(job: dict[str, Any]) -> dict[str, Any]:
    """Decode one huge message, a good record but for its size: it is rejected, and its dead letter has a bounded size."""
    from streams.records.dead_letters import dead_letter
    from streams.records.decode import decode
    from streams.source import RawBatch
    from testkit.hostile.messages import NOW_S, PARTITION, check_batch, json_seeds

    run = Run()
    good = json_seeds()[0]
    message = good[:-1] + b', "x": "' + b"x" * job["bytes"] + b'"}'
    check_batch([good])
    run.warm()
    tracemalloc.start()
    run.take(lambda: check_batch([good, message, good]), "huge")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    (rejected,) = decode(RawBatch(PARTITION, [7], [message]), None).rejected
    letter = dead_letter(rejected, PARTITION, "hostile", NOW_S).encode()
    return run.answer(message_mb=len(message) / 1e6, dead_letter_mb=len(letter) / 1e6, peak_more_mb=peak_bytes / 1e6)


class NewLinks(Sequence[bytes]):
    """Records that each belong to a new link, one a second. They are made when they are read."""

    def __init__(self, good: bytes, count: int) -> None:
        self._record, self._count = json.loads(good), count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(self._count))]
        return json.dumps(self._record | {"node_id": f"n{at}", "timestamp": 1.7e9 + at}).encode()


def links(job: dict[str, Any]) -> dict[str, Any]:
    """Run a daemon with checkpoints over a partition of ever new links.

    Memory is compared between the middle and the last third of the run, by the maximum of each: a checkpoint copies the rings.
    """
    from daemon.operator.logs import configure_logging
    from features.telemetry import Partition
    from testkit import rig, scripted
    from testkit.hostile.messages import json_seeds

    configure_logging("error", "json")
    thirds, count = [0.0, 0.0, 0.0], job["messages"]
    records = {Partition("hostile", 0): NewLinks(json_seeds()[0], count)}
    source = scripted.ScriptedSource(seed=1, batch_max=2000, records=records)

    def watch(source: Any) -> None:
        (position,) = source.positions.values()
        third = min(2, 3 * position // count)
        thirds[third] = max(thirds[third], rss_mb())

    source.on_poll = watch
    sections = {"links": {"max": job["links_max"]}, "state": {"checkpoint_interval_s": 1.0}, "log": {"level": "error"}}
    made = rig.daemon_over(source, rig.config(Path(job["folder"]), **sections))
    run = Run()
    run.take(lambda: Counter({"taken": made.run() or made.parts.training.memory.rows}), "links")
    known, observer = made.parts.group.links, made.parts.observer
    evicted = int(observer.registry.get_sample_value("dwcp_links_evicted_total") or 0)
    return run.answer(links=known, evicted=evicted) | {"rss_growth_mb": thirds[2] - thirds[1]}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(
        json.dumps(
            {"decoder": decoder, "documents": documents, "atheris": coverage_guided, "huge": huge, "links": links}[asked["what"]](asked)
        )
    )
