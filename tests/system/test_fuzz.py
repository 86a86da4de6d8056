"""Hostile input: every message is accepted or rejected with a reason, once and in order; no document runs code or crashes a reader."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
import textwrap
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from daemon.clock import StreamClock
from daemon.operator.observer import Observer
from daemon.state.state_file import read_state
from daemon.wiring import build
from features.telemetry import COLUMNS
from streams.files.source import FileSource
from streams.kafka.codecs import UNPACKED_MAX_BYTES
from streams.kafka.records import plain_records
from streams.records.csv_form import MAX_VALUE_BYTES
from streams.records.dead_letters import MAX_KEPT_BYTES
from streams.records.decode import decode
from streams.source import RawBatch
from testkit import rig
from testkit.hostile.documents import targets
from testkit.hostile.messages import FULL, NOW_S, PARTITION, Mutator, batches, check_batch, csv_seeds, json_seeds
from testkit.paths import PYTHONPATH, ROOT
from testkit.versions import make_version

PACKAGES = ("daemon", "drift", "features", "model", "streams")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each reader by name, with good content to damage."""
    folder = tmp_path_factory.mktemp("documents")
    version = make_version(folder / "version", "v20260101_000000")
    (folder / "work").mkdir()
    return {target.name: target for target in targets(folder / "work", version)}


@pytest.mark.parametrize("form", ["json", "csv"])
def test_damaged_messages_are_accepted_or_refused_and_never_lost(form: str) -> None:
    """Thousands of them: alone as in a batch, among good and bad ones, with values in range and complete dead letters."""
    seeds = json_seeds() if form == "json" else csv_seeds()
    found: Counter[str] = Counter()
    for batch in batches(Mutator(seeds, 1).message, seeds[0], random.Random(1)):
        found += check_batch(batch, form, NOW_S)
        if found.total() > 5_000:
            break
    assert min(found["accepted"], found["rejected"]) > 300, "both ways are tried"


@pytest.mark.parametrize("value", [b"", b"{", b'{"rtt_ms": "x"}', b'{"timestamp": 1}', None], ids=repr)
def test_a_refused_record_leaves_no_memory_behind(value: bytes | None) -> None:
    """However often a batch holds one: a daemon runs for months."""

    def refuse(times: int) -> None:
        for _ in range(times):
            decode(RawBatch(PARTITION, [0], [value]), None)

    refuse(100)
    tracemalloc.start()
    try:
        refuse(100)
        before_bytes = tracemalloc.get_traced_memory()[0]
        refuse(1_000)
        assert tracemalloc.get_traced_memory()[0] - before_bytes < 50_000  # it was 190 bytes each
    finally:
        tracemalloc.stop()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12) | st.sampled_from(["9" * 400, "x" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.floats() | st.integers(-(2**70), 2**70) | st.datetimes().map(lambda time: time.isoformat() + "+23:59")


@given(
    st.lists(st.tuples(st.dictionaries(st.sampled_from(COLUMNS), JUNK, max_size=3), st.none() | TIMES, st.booleans()), max_size=6),
    st.integers(0, 130),
)
@settings(max_examples=60)
def test_structured_damage_is_no_other(changes: list[tuple[dict[str, Any], Any, bool]], good: int) -> None:
    """Fields of other types, ranges and sizes, and repeated keys, among good records on both sides of a chunk's border."""
    values = [json_seeds()[0]] * good
    for change, time, twice in changes:
        record = FULL | change | ({} if time is None else {"timestamp": time})
        value = json.dumps(record).encode()
        values.append(value[:-1] + b"," + value[1:] if twice else value)
    check_batch(values)


def field(value: bytes, name: str = "rtt_ms") -> bytes:
    """Return a full record whose field has these bytes."""
    record = {"timestamp": 1762232095, "node_id": "a", "peer_id": "b", "jitter_ms": 1, name: 0}
    return json.dumps(record).encode().replace(b'"%s": 0' % name.encode(), b'"%s": %s' % (name.encode(), value))


ODD = {
    "brackets, 100,000 deep": (field(b"[" * 100_000 + b"]" * 100_000, "x"), "not_json"),
    "objects, 100,000 deep": (field(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "x"), "not_json"),
    "1e400": (field(b"1e400"), "wrong_type"),
    "100,000 digits": (field(b"9" * 100_000), "wrong_type"),
    "100,000 digits of a fraction": (field(b"0." + b"1" * 100_000), None),
    "NaN": (field(b"NaN"), "not_json"),
    "-Infinity": (field(b"-Infinity"), "not_json"),
    "no UTF-8 in a text": (field(b'"\xff\xfe"', "region"), "not_json"),
    "no UTF-8 in a foreign field": (field(b'"\xff\xfe"', "x"), "not_json"),
    "half of a surrogate pair": (field(b'"\\ud800"', "region"), "not_json"),
    "an encoded half of a surrogate pair": (field(b'"\xed\xa0\x80"', "region"), "not_json"),
    "NUL between": (b"\0".join((field(b"1"), field(b"1"))), "not_json"),
    "NUL in a text": (field(b'"a\\u0000b"', "region"), None),
    "a byte order mark": (b"\xef\xbb\xbf" + field(b"1"), "not_json"),
    "UTF-16": (field(b"1").decode().encode("utf-16"), "not_json"),
    "a node of a megabyte": (field(b'"' + b"n" * 1_000_000 + b'"', "node_id"), "too_large"),
    "a node of 257 letters": (field(b'"' + b"n" * 257 + b'"', "node_id"), "too_large"),
    "more than a message may have": (field(b'"' + b"n" * MAX_VALUE_BYTES + b'"', "x"), "too_large"),
    "nothing": (b"", "not_json"),
    "a tombstone": (None, "tombstone"),
    "the year 9999": (field(b'"9999-12-31T23:59:59-23:59"', "timestamp"), "timestamp"),
    "the year 1": (field(b'"0001-01-01T00:00:00+23:59"', "timestamp"), "timestamp"),
    "a negative time": (field(b"-1", "timestamp"), "timestamp"),
    "a time of 1e308": (field(b"1e308", "timestamp"), "timestamp"),
    "a time without its zone": (field(b'"2025-11-04T04:54:55"', "timestamp"), "wrong_type"),
    "a time in an odd zone": (field(b'"2025-11-04T04:54:55.5+05:45"', "timestamp"), None),
    "keys twice": (field(b'-1, "rtt_ms": 5'), None),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_has_its_place(name: str) -> None:
    """Accepted, or rejected as this kind, without an effect on the good ones around it."""
    value, kind = ODD[name]
    good = json_seeds()[0]
    found = check_batch([good, value, good])
    assert found["accepted"] == (3 if kind is None else 2)
    refused = decode(RawBatch(PARTITION, [0], [value]), NOW_S).rejected
    assert [rejected.kind for rejected in refused] == ([] if kind is None else [kind])


FOUND = [
    ("configuration", b"a = " + b"[" * 100_000),
    ("configuration", b"[http]\nport = " + b"1" * 5_000),
    ("configuration", b'[state]\ndirectory = "a\\u0000b"'),
    ("journal", b'{"type":"idle","offsets":{"\xff":1}}\n'),
    ("journal", b'{"type":"idle","offsets":{}}\r{"type":"idle","offsets":{}}\n'),
    ("checkpoint manifest", b'{"member":"\xff"}'),
    ("checkpoint manifest", b"[" * 100_000),
    ("state file", b"PK\x03\x04" + bytes(100)),
    ("result", b'{"job_id":"j","version":"v","status":"failed","metrics":{"a":' + b"[" * 100_000),
    ("record batch", bytes(21) + b"\0\x01" + bytes(34) + b"\0\0\0\x01" + b"no gzip"),
    ("record batch", bytes(21) + b"\0\x03" + bytes(34) + b"\0\0\0\x01" + b"no lz4"),
    ("record batch", bytes(21) + b"\0\x04" + bytes(34) + b"\0\0\0\x01" + b"no zstd"),
    ("record batch", bytes(21) + b"\0\x07" + bytes(34) + b"\0\0\0\x01" + b"no codec"),
]
"""Documents that once ended in an undocumented error or, in the journal, were cut off in silence."""


@pytest.mark.parametrize(("name", "content"), FOUND, ids=[f"{name} {at}" for at, (name, _) in enumerate(FOUND)])
def test_what_once_crashed_a_reader_is_refused(documents: dict[str, Any], name: str, content: bytes) -> None:
    """The error is the one that the reader documents."""
    assert documents[name].try_one(content) == "rejected"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model manifest", b'"created_at_s": 1.0', b'"created_at_s": 1' + b"0" * 400),
        ("model manifest", b'"reason": "test"', b'"reason": "\\ud800"'),
        ("model manifest", b'"created_at_s": 1.0', b'"created_at_s": 1e400'),
        ("metadata", b'"trained_until_s": 1795000000.0', b'"trained_until_s": 1' + b"0" * 400),
    ],
)
def test_a_number_or_text_that_nothing_could_hold_is_refused(documents: dict[str, Any], name: str, old: bytes, new: bytes) -> None:
    """The rest of the document is good."""
    (seed,) = documents[name].seeds
    assert documents[name].try_one(seed) == "accepted"
    assert old in seed
    assert documents[name].try_one(seed.replace(old, new)) == "rejected"


def test_damaged_documents_are_refused_as_documented(documents: dict[str, Any]) -> None:
    """Every reader accepts its own good content, and raises nothing undocumented for damaged content."""
    for target in documents.values():
        assert {target.try_one(seed) for seed in target.seeds} == {"accepted"}, target.name
        mutator = Mutator(target.seeds, 2)
        for _ in range(120):
            target.try_one(mutator.message())


def bomb(codec: int, compress: Callable[[bytes], bytes]) -> bytes:
    """Return a record batch of one record, some kilobytes that unpack to more than the limit."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 30
    )  # fmt: skip
    builder.append(0, timestamp=0, key=None, value=b"small", headers=[])
    header = bytearray(bytes(builder.build())[: DefaultRecordBatch.HEADER_STRUCT.size])
    header[:8], header[22] = (40).to_bytes(8, "big"), codec
    return bytes(header) + compress(bytes(UNPACKED_MAX_BYTES + 1))


@pytest.mark.parametrize(("codec", "compress"), [(4, zstandard.ZstdCompressor().compress), (1, gzip.compress)], ids=["zstd", "gzip"])
def test_a_batch_that_unpacks_to_more_than_memory_may_hold(codec: int, compress: Any) -> None:
    """It becomes one rejected record of its packed bytes, at its last offset, and the stream goes on after it."""
    packed = bomb(codec, compress)
    batch = DefaultRecordBatch(packed)
    assert len(packed) < UNPACKED_MAX_BYTES / 500
    ((offset, value, _),) = plain_records(batch)
    assert (offset, value) == (batch.last_offset, packed[DefaultRecordBatch.HEADER_STRUCT.size :])
    assert check_batch([json_seeds()[0], value]) == Counter(accepted=1, rejected=1)


def test_a_flood_of_large_refused_records_is_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead letters in memory are bounded by bytes: the source waits until they are durable, and none is lost."""
    monkeypatch.setattr("daemon.ingest.pressure.DEAD_LETTER_BYTES_MAX", 4 * MAX_KEPT_BYTES)
    path = tmp_path / "telemetry.ndjson"
    path.write_bytes(b"\n".join([json_seeds()[0], *[b'{"x": "' + b"x" * MAX_KEPT_BYTES + b'"']] * 20) + b"\n")
    reported: list[str] = []
    source = FileSource(path, max_records=2)
    build(rig.config(tmp_path), source, StreamClock(), Observer(lambda event, _fields: reported.append(event))).run()
    assert reported.count("source_paused") == reported.count("source_resumed") >= 2
    letters = (tmp_path / "state/events/dead_letters.ndjson").read_bytes().splitlines()
    assert len(letters) == 20
    assert all(json.loads(letter)["data"]["truncated"] for letter in letters)


# --- nothing that is read is ever run ---

FORBIDDEN = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch", "yaml", "jsonpickle"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def called(node: ast.Call) -> str:
    """Return the name of a called function, without what stands before its last dot."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""


@pytest.mark.parametrize("path", sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_our_code_reads_no_pickle_and_runs_no_text(path: Path) -> None:
    """No such import, no shell, NumPy without pickles and Keras in its safe mode at every call.

    Compiled code is code, kept in Numba's form: by one module, which checks who wrote it (test_compiled.py).
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module or ""}
            assert not {name.partition(".")[0] for name in names} & FORBIDDEN
            assert not any("serialize" in name for name in names) or path == ROOT / "features/compiled.py"
        if isinstance(node, ast.Call):
            flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert not (isinstance(node.func, ast.Name) and node.func.id in RUNS_TEXT)
            assert called(node) not in ("read_pickle", "to_pickle", "enable_unsafe_deserialization")
            assert flags.get("shell", "False") == "False"
            text = ast.unparse(node.func)
            if text in ("np.load", "numpy.load", "np.savez"):
                assert flags["allow_pickle"] == "False"
            if called(node) == "load_model":
                assert flags["safe_mode"] == "True"


class Malicious:
    """An object that leaves a file behind when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def test_a_pickle_in_a_state_file_is_not_run(tmp_path: Path) -> None:
    """Neither as an array of objects nor in place of the archive. The same bytes do run if pickles are allowed."""
    canary, path = tmp_path / "canary", tmp_path / "part.npz"
    array = np.empty(1, object)
    array[0] = Malicious(canary)
    np.savez(path, document=array, rows=array)
    for content in (path.read_bytes(), pickle.dumps(Malicious(canary))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of a checkpoint"):
            read_state(path, hashlib.sha256(content).hexdigest())
        assert not canary.exists()
    pickle.loads(content)
    assert canary.exists(), "the trap works"


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    """A Lambda layer, and a layer that names a function of another library, are refused. Without safe mode the first one runs."""
    code = """
        import json, sys, zipfile, os
        from pathlib import Path
        import keras
        from model.training.graph.core import WEIGHTS_NAME, ExportError, load_weights
        folder = Path(sys.argv[1])
        run = lambda x: (__import__("pathlib").Path("CANARY").touch(), x)[1]  # only a lambda is kept as byte code
        inputs = keras.Input((2,))
        model = keras.Model(inputs, keras.layers.Lambda(run, output_shape=(2,))(inputs))
        os.chdir(folder)
        Path("CANARY").unlink(missing_ok=True)
        model.save(folder / WEIGHTS_NAME)
        def refused():
            try:
                load_weights(folder)
            except ExportError:
                return not Path("CANARY").exists()
            return False
        first = refused()
        keras.models.load_model(folder / WEIGHTS_NAME, compile=False, safe_mode=False)(__import__("numpy").zeros((1, 2)))
        trap = Path("CANARY").exists()
        Path("CANARY").unlink()
        with zipfile.ZipFile(folder / WEIGHTS_NAME) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        config = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
        parts["config.json"] = json.dumps({"module": "keras.layers", "class_name": "Lambda", "registered_name": None,
            "config": {"name": "l", "function": config, "arguments": {"command": "touch CANARY"}}}).encode()
        with zipfile.ZipFile(folder / WEIGHTS_NAME, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        print(json.dumps([first, trap, refused()]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [True, True, True]


def test_ever_new_links_do_not_grow_the_memory(tmp_path: Path) -> None:
    """A daemon reads each record of twenty thousand links with room for two thousand, and forgets the rest.

    The millions are in benchmarks/fuzz.py.
    """
    job = {"what": "links", "messages": 20_000, "links_max": 2_000, "folder": str(tmp_path)}
    command = [sys.executable, "-m", "testkit.hostile.run", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": PYTHONPATH})
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["taken"], found["crashes"], found["told"]) == (20_000, 0, [])
    assert found["links"] <= 2_000
    assert found["evicted"] == 20_000 - found["links"]
