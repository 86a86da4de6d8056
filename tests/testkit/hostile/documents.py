"""Every reader of a file or batch, with good content to damage and the exceptions that it may raise."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from kafka.errors import CorruptRecordError

from daemon.config.holiday_file import HolidayFileError, read_holidays
from daemon.config.load import ConfigError, load
from daemon.errors import StateError
from daemon.ingest.entries import Alerted, Forecasting, Idle, ModelLive, Resumed
from daemon.ingest.journal import Journal
from daemon.state.checkpoint import CheckpointStore
from daemon.state.snapshot import SCHEMA_VERSION, Manifest, PartEntry
from daemon.state.state_file import read_state, write_state
from features.telemetry import COLUMNS, NUMERIC, Partition
from model.buffer.segments import SCHEMA, SegmentError, SegmentName, write_segment
from model.buffer.segments import load as load_segment
from model.registry.choice import CHOICE_NAME, Choice, read_choice, write_choice
from model.registry.versions import CURRENT_NAME, Registry, RegistryError
from model.spec.job import JobResult, JobSpec
from model.spec.verdict import Verdict
from model.version.documents import DocumentError
from model.version.golden import GOLDEN_NAME, read_golden
from model.version.manifest import MANIFEST_NAME, check_files, read_manifest
from model.version.metadata import Metadata, metadata_name
from model.version.signing import KeyFileError, SigningKey, VerifyKey, generate
from streams.files.index import IndexedFiles
from streams.source import SourceError
from testkit.hostile import record_batch
from testkit.hostile.messages import csv_seeds, json_seeds

CONFIG: Final = b"""[kafka]
bootstrap_servers = "localhost:9092"
topic = "dwcp.telemetry"
options = {security_protocol = "PLAINTEXT", request_timeout_ms = 30000}
[links]
key = ["node_id", "peer_id"]
gap_multiple = 5.0
[local_time]
zone = "Europe/Berlin"
zones = {us = "America/New_York"}
[training]
schedule = "0 3 * * 1-5"
epochs = 30
[state]
directory = "state"
member = "main"
[http]
port = 9108
enabled = true
"""
CALENDAR: Final = b"""BEGIN:VCALENDAR\r
VERSION:2.0\r
BEGIN:VEVENT\r
SUMMARY:Founder's\r
  day\r
DTSTART;VALUE=DATE:20260302\r
DTEND;VALUE=DATE:20260304\r
RRULE:FREQ=YEARLY;COUNT=3\r
EXDATE;VALUE=DATE:20270302\r
END:VEVENT\r
BEGIN:VEVENT\r
DTSTART;VALUE=DATE:20251127\r
RRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH\r
DURATION:P1D\r
END:VEVENT\r
END:VCALENDAR\r
"""


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        name: what it reads.
        seeds: good contents.
        read: reads one content.
        refusals: exceptions that it may raise; any other one is a defect.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]

    def try_one(self, content: bytes) -> str:
        """Read one content and return "accepted" or "rejected". Raises every exception that is not a refusal."""
        try:
            self.read(content)
        except self.refusals as error:
            reason = str(error)
        else:
            return "accepted"
        assert reason, f"{self.name} is refused without a reason"
        return "rejected"


def targets(folder: Path, version: Path) -> list[Target]:
    """Return all readers.

    Args:
        folder: an empty folder for their files.
        version: a whole version, for its documents.
    """
    makers = (_of_config, _of_journal, _of_checkpoint, _of_state_file, _of_segment, _of_jobs, _of_keys, _of_kafka, _of_files)
    found = [target for make in makers for target in make(_new(folder / make.__name__))]
    return found + _of_version(_new(folder / "version"), version)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _written(path: Path, read: Callable[[], object]) -> Callable[[bytes], object]:
    def read_content(content: bytes) -> object:
        path.write_bytes(content)
        return read()

    return read_content


def _of_config(folder: Path) -> list[Target]:
    path, calendar = folder / "dwcp.toml", folder / "holidays.ics"
    return [
        Target("configuration", (CONFIG,), _written(path, lambda: load(path, {})), (ConfigError,)),
        Target("calendar file", (CALENDAR,), _written(calendar, lambda: read_holidays(calendar)), (HolidayFileError,)),
    ]


def _of_journal(folder: Path) -> list[Target]:
    path, offsets = folder / "journal", {"t-0": 3}
    for entry in (
        ModelLive(1, "v20260101_000000", offsets),
        Forecasting(False, offsets),
        Idle({}),
        Resumed(offsets, 9),
        Alerted(offsets, 9),
    ):
        journal = Journal(path)
        journal.append(entry)
        journal.close()

    def read() -> None:
        content, journal = path.read_bytes(), Journal(path)
        journal.close()
        assert path.read_bytes() == content[: content.rfind(b"\n") + 1], "more than a torn last line was cut off"
        assert len(journal.entries) == content.count(b"\n"), "an entry is missing"

    return [Target("journal", (path.read_bytes(),), _written(path, read), (StateError,))]


def _of_checkpoint(folder: Path) -> list[Target]:
    name = "000000000001-main"
    process = folder / "process.npz"
    digest = write_state(
        process, {"regions": {}, "training": {}, "keys": [], "values": []}, {}
    )  # it stands in for the partition's file as well
    oldest = Manifest(1, 1, "main", 0, 1.5, digest, (PartEntry("t", 0, 7, "process.npz", digest, ()),))
    newest = msgspec.structs.replace(oldest, schema_version=SCHEMA_VERSION).sealed()

    def read(content: bytes) -> None:
        shutil.rmtree(folder / "state", ignore_errors=True)
        store = CheckpointStore(folder / "state", "main", 10**6, 1e9, lambda *_event, **_fields: None)
        (folder / "state" / "checkpoints" / name).mkdir(parents=True)
        shutil.copy(process, folder / "state" / "checkpoints" / name / "process.npz")
        (folder / "state" / "checkpoints" / name / "MANIFEST.json").write_bytes(content)
        store.open()
        store.restore_process()
        store.restore(Partition("t", 0))

    return [Target("checkpoint manifest", (msgspec.json.encode(oldest), msgspec.json.encode(newest)), read, (StateError,))]


def _of_state_file(folder: Path) -> list[Target]:
    path = folder / "part.npz"
    write_state(path, {"links": [1, "a", b"b", {"c": None}]}, {"rows": np.arange(12.0).reshape(3, 4), "codes": np.ones(3, np.int16)})
    seed = path.read_bytes()

    def read(content: bytes) -> None:
        """Read the content with its own hash: the checksum is not tested here."""
        path.write_bytes(content)
        document, arrays = read_state(path, hashlib.sha256(content).hexdigest())
        assert isinstance(document, dict)
        assert not any(array.dtype.hasobject for array in arrays.values())

    return [Target("state file", (seed,), read, (ValueError,))]


def _of_segment(folder: Path) -> list[Target]:
    name, rows = SegmentName("t", 0, 0, 99), 100
    columns: dict[str, Any] = {"offset": np.arange(rows), "time_s": np.arange(rows) + 1e9}
    columns |= {column: np.ones(rows, np.float32) for column in NUMERIC}
    table = pa.table([pa.array(columns.get(field.name, ["a"] * rows)).cast(field.type) for field in SCHEMA], schema=SCHEMA)
    write_segment(folder, name, table)
    path = folder / str(name)
    return [Target("segment", (path.read_bytes(),), _written(path, lambda: load_segment(path)), (SegmentError,))]


def _of_jobs(_folder: Path) -> list[Target]:
    spec = JobSpec(job_id="j", version="v20260101_000000", created_at_s=1.5, reason="first", snapshot="/snapshot", candidate="/candidate")
    verdict = Verdict(False, ("worse",), 9)
    result = JobResult("j", "v20260101_000000", "refused", "/candidate", verdict, {"a": 1}, 5, {"b": 2}, {"c": 0.5}, 7.5)
    return [
        Target("job", (spec.to_json(),), JobSpec.from_json, (ValueError,)),
        Target("result", (result.to_json(),), JobResult.from_json, (ValueError,)),
    ]


def _of_keys(folder: Path) -> list[Target]:
    private, public = generate(folder)
    key = SigningKey.read(private)
    line = key.sign(b"content")
    return [
        Target("signing key", (private.read_bytes(),), _written(private, lambda: SigningKey.read(private)), (KeyFileError,)),
        Target("verify key", (public.read_bytes(),), _written(public, lambda: VerifyKey.read(public)), (KeyFileError,)),
        Target("signature", (line,), lambda content: key.public().problem(b"content", content), ()),
    ]


def _of_version(folder: Path, version: Path) -> list[Target]:
    name = read_manifest(version).version
    registry = Registry(folder)
    copy = Path(shutil.copytree(version, folder / name))
    (folder / CURRENT_NAME).write_text(f"{name}\n")
    write_choice(folder, Choice("pinned", name, 1_795_000_000, 1_795_000_000.5), None)

    def reported() -> None:
        """Check that an accepted manifest can be announced."""
        manifest, problems = check_files(copy)
        assert manifest is not None or problems
        msgspec.json.encode(asdict(read_manifest(copy)))

    parts: tuple[tuple[str, str, Callable[[], object], type[Exception]], ...] = (
        ("model manifest", f"{name}/{MANIFEST_NAME}", reported, DocumentError),
        ("metadata", f"{name}/{metadata_name(name)}", lambda: Metadata.read(copy), DocumentError),
        ("golden samples", f"{name}/{GOLDEN_NAME}", lambda: read_golden(copy), DocumentError),
        ("CURRENT", CURRENT_NAME, registry.current, RegistryError),
        ("choice", CHOICE_NAME, lambda: read_choice(folder, None), DocumentError),
    )
    return [Target(what, ((folder / at).read_bytes(),), _written(folder / at, read), (error,)) for what, at, read, error in parts]


def _of_kafka(_folder: Path) -> list[Target]:
    return [Target("record batch", tuple(record_batch.packed(codec) for codec in range(5)), record_batch.read, (CorruptRecordError,))]


def _of_files(folder: Path) -> list[Target]:
    def reader(path: Path, header: bool) -> Callable[[bytes], object]:
        def read(content: bytes) -> None:
            path.write_bytes(content)
            files = IndexedFiles(path)
            taken = files.next_batches(Partition("f", 0), 10**6)
            files.close()
            lines = [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")][header:]
            values = [value for batch in taken for value in batch.values]
            assert Counter(values) == Counter(line for line in lines if line), "a line is missing, or there is one too many"
            assert [offset for batch in taken for offset in batch.offsets] == list(range(len(values)))

        return read

    seeds = b"\n".join(json_seeds()), b"\n".join((",".join(COLUMNS).encode(), *csv_seeds()))
    return [
        Target("NDJSON file", seeds[:1], reader(folder / "f.ndjson", header=False), (SourceError,)),
        Target("CSV file", seeds[1:], reader(folder / "f.csv", header=True), (SourceError,)),
    ]
