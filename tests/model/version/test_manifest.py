"""Verifying a version: every way in which a folder can be wrong is named, and none raises."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from model.spec.verdict import Verdict
from model.version.golden import CoreSamples, check_golden, read_golden, write_golden
from model.version.manifest import MANIFEST_NAME, read_manifest, verify, write_manifest
from model.version.metadata import Metadata, core_name, int8_name, raw_name
from testkit.versions import core_graph, make_version

VERSION = "v20261123_101500"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_version(tmp_path / VERSION, VERSION, parent="v20260101_000000")


def rewrite(folder: Path) -> None:
    """A manifest over the files as they are now: hashes are right, contents may be wrong."""
    write_manifest(folder, version=VERSION, parent=None, reason="test", created_at_s=2.0, verdict=None, libraries={})


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_whole_version_has_no_problem(folder: Path) -> None:
    """A version as it was written verifies, with a signature and sub-folders too, and its manifest reads back."""
    assert verify(folder) == []
    (folder / "tensorboard" / "train").mkdir(parents=True)
    (folder / "tensorboard" / "train" / "events").write_bytes(b"x")
    verdict = Verdict(True, ("first",), 12)
    write_manifest(
        folder, version=VERSION, parent=None, reason="drift", created_at_s=3.5, verdict=verdict, libraries={"numpy": np.__version__}
    )
    (folder / "MANIFEST.json.sig").write_bytes(b"signature")
    assert verify(folder) == []
    manifest = read_manifest(folder)
    assert (manifest.version, manifest.parent, manifest.reason, manifest.created_at_s) == (VERSION, None, "drift", 3.5)
    assert manifest.verdict == verdict.to_json()
    assert "tensorboard/train/events" in manifest.files


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _add_link(folder: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")


def _link_file(folder: Path) -> None:
    target = folder.parent / "elsewhere.json"
    (folder / "golden.json").rename(target)
    (folder / "golden.json").symlink_to(target)


def _names(folder: Path, name: str) -> None:
    files = json.loads((folder / MANIFEST_NAME).read_text())["files"]
    edit_manifest(folder, files={**files, name: {"sha256": "0" * 64, "bytes": 0}})


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: (f / core_name(VERSION)).open("ab").write(b"x"), "bytes instead of"),
        (lambda f: _flip(f / core_name(VERSION)), "its SHA-256 differs"),
        (lambda f: (f / "golden.json").unlink(), "'golden.json' is missing"),
        (lambda f: (f / "extra.txt").write_text("x"), "'extra.txt' is not in MANIFEST.json"),
        (lambda f: (f / "a\udcffb").write_text("x"), r"'a\udcffb' is not in MANIFEST.json"),
        (lambda f: os.mkfifo(f / "pipe"), "'pipe' is not in MANIFEST.json"),
        (_add_link, "'passwd' is not in MANIFEST.json"),
        (_link_file, "'golden.json' is not a regular file"),
        (lambda f: (f / "sub").symlink_to("/etc"), "'sub' is not in MANIFEST.json"),
        (lambda f: _names(f, "../outside"), "not a path inside the folder"),
        (lambda f: _names(f, "/etc/passwd"), "not a path inside the folder"),
        (lambda f: _names(f, "a/../golden.json"), "not a path inside the folder"),
        (lambda f: _names(f, ""), "not a path inside the folder"),
        (lambda f: _names(f, "a\0b"), "not a path inside the folder"),
        (lambda f: edit_manifest(f, files={}), "is not in MANIFEST.json"),
        (lambda f: edit_manifest(f, files={"golden.json": 7}), "'golden.json' is not what was published"),
        (lambda f: edit_manifest(f, files=[1]), "or one is of another type"),
        (lambda f: edit_manifest(f, schema=2), "written by a newer release"),
        (lambda f: edit_manifest(f, version="../../x"), "says version '../../x'"),
        (lambda f: edit_manifest(f, version="v20200101_000000"), "it is a copy of version v20200101_000000 under another name"),
        (lambda f: (f / MANIFEST_NAME).unlink(), "MANIFEST.json is missing"),
        (lambda f: (f / MANIFEST_NAME).write_bytes(b"\xff\x00"), "not a JSON document"),
        (lambda f: (f / MANIFEST_NAME).write_text("[" * 1_000_000), "not a JSON document"),
        (lambda f: (f / MANIFEST_NAME).write_text('{"a": NaN}'), "not a JSON document"),
        (lambda f: (f / MANIFEST_NAME).write_text("[]"), "not a JSON object"),
        (lambda f: os.truncate(f / MANIFEST_NAME, 2**40), "larger than this kind of file can be"),
    ],
)
def test_damage_is_named(folder: Path, damage: Callable[[Path], object], problem: str) -> None:
    """A changed, missing, added or linked file, a path out of the folder and a damaged manifest are each said in one sentence."""
    damage(folder)
    problems = verify(folder)
    assert any(problem in sentence for sentence in problems), problems
    assert all(sentence.isprintable() for sentence in problems)


def test_no_folder_is_a_problem_and_no_error(tmp_path: Path) -> None:
    """A missing folder, and a file in its place, have a problem too."""
    assert verify(tmp_path / "nothing") == ["MANIFEST.json is missing"]
    (tmp_path / "file").write_text("x")
    assert verify(tmp_path / "file") == ["MANIFEST.json cannot be read (Not a directory)"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.dictionaries(
        st.sampled_from(["schema", "version", "parent", "reason", "verdict", "libraries", "files", "created_at_s"]), json_values
    )
)
def test_no_manifest_makes_it_raise(folder: Path, document: dict[str, Any]) -> None:
    """Any JSON whatever in place of the manifest's entries gives problems, never an exception."""
    good = (folder / MANIFEST_NAME).read_text()
    edit_manifest(folder, **document)
    try:
        assert isinstance(verify(folder), list)
    finally:
        (folder / MANIFEST_NAME).write_text(good)


def test_a_graph_without_lstm_is_refused(folder: Path) -> None:
    """An export that fell back to Loop operators, or to none at all, is not a version, even with right hashes."""
    core = folder / core_name(VERSION)
    model = onnx.load(core)
    body = helper.make_graph([], "body", [], [])
    kept = [node for node in model.graph.node if node.op_type != "LSTM"]
    for operators, problem in (
        (kept, "has 0 LSTM operators instead of 1"),
        ([*model.graph.node, helper.make_node("Loop", [], [], body=body)], "operators Loop"),
    ):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        del changed.graph.node[:]
        changed.graph.node.extend(operators)
        core.write_bytes(changed.SerializeToString())
        rewrite(folder)
        assert [problem in sentence for sentence in verify(folder)] == [True], verify(folder)
    core.write_bytes(b"no protobuf")
    rewrite(folder)
    assert len(verify(folder)) == 1


def test_weights_outside_the_file_are_refused(folder: Path) -> None:
    """A graph that would read its weights from another path is not run."""
    core = folder / core_name(VERSION)
    model = onnx.load(core)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    core.write_bytes(model.SerializeToString())
    rewrite(folder)
    assert verify(folder) == [f"{core.name} keeps weights outside the file"]


def test_another_networks_graph_fails_the_golden_samples(folder: Path) -> None:
    """A graph that computes something else is found by the golden samples, which say by how much and where."""
    (folder / core_name(VERSION)).write_bytes(core_graph(seed=5))
    rewrite(folder)
    (problem,) = verify(folder)
    assert problem.startswith(f"{core_name(VERSION)} differs from golden.json in 8 of 8 samples, first in sample 0 by ")


def test_golden_samples_come_back_bit_for_bit(folder: Path) -> None:
    """Written and read samples are equal, and outputs within a 10,000th pass while more does not."""
    core, raw = read_golden(folder)
    metadata = Metadata.read(folder)
    for shift, problems in ((0.5e-4, 0), (2e-4, 1)):
        write_golden(folder, replace(core, outputs=core.outputs + np.float32(shift)), raw)
        again, raw_again = read_golden(folder)
        assert again.inputs.tobytes() == core.inputs.tobytes()
        assert raw_again.names == raw.names
        for name in ("time_s", "telemetry"):
            np.testing.assert_array_equal(getattr(raw_again.windows, name), getattr(raw.windows, name))
        assert (raw_again.windows.categories == raw.windows.categories).all()
        assert raw_again.forecasts.tobytes() == raw.forecasts.tobytes()
        assert len(check_golden(folder, metadata)) == problems
    write_golden(folder, CoreSamples(core.inputs[:1], core.outputs[:1]), raw)
    assert check_golden(folder, metadata) == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"tolerance": {"absolute": 1e-4}, "samples": []},
        {"tolerance": {"absolute": 1e-4}, "samples": [{"input": [[1.0]], "output": [1.0]}]},
        {"tolerance": {"absolute": 1e-4}, "samples": [{"input": [[0.0] * 44] * 30, "output": ["x"] * 4}]},
        {"tolerance": {"absolute": 1e-4}, "samples": [{"input": [[1e300] * 44] * 30, "output": [0.0] * 4}]},
        {"tolerance": {"absolute": 1e9}, "samples": [{"input": [[0.0] * 44] * 30, "output": [0.0] * 4}]},
        {"tolerance": {}, "samples": 3},
        {"tolerance": 1, "samples": [7]},
    ],
)
def test_golden_samples_that_prove_nothing_are_refused(folder: Path, document: dict[str, Any]) -> None:
    """No samples, other shapes, what is no finite number, or a tolerance so wide that anything passes: each is a problem."""
    raw = json.loads((folder / "golden.json").read_text())["raw"]
    (folder / "golden.json").write_text(json.dumps({"raw": raw, **document}))
    (problem,) = check_golden(folder, Metadata.read(folder))
    assert problem.startswith("golden.json")


def _sample(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda raw: raw["samples"][3].update(changes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: raw.clear(), "'samples'"),
        (lambda raw: raw["samples"].__delitem__(slice(31, None)), "a list of 32 to 256"),
        (lambda raw: raw.update(samples=raw["samples"] * 6), "a list of 32 to 256"),
        (lambda raw: raw.update(samples={"a": 1}), "a list of 32 to 256"),
        (_sample(name=7), "has a name"),
        (_sample(name="x" * 1000), "has a name"),
        (_sample(int8=1), "int8 is true or false"),
        (lambda raw: [sample.update(int8=False) for sample in raw["samples"]], "at least half"),
        (_sample(time_s=[0.0] * 29), "another shape"),
        (_sample(time_s=[None] * 30), "something else among numbers"),
        (_sample(time_s=[True] * 30), "something else among numbers"),
        (_sample(telemetry=[[0.0] * 11] * 30), "another shape"),
        (_sample(telemetry=[["1"] * 11] * 39), "something else among numbers"),
        (_sample(telemetry=[[1e300] * 11] * 39), "not finite"),
        (_sample(telemetry=[[10**400] * 11] * 39), "too large"),
        (_sample(categories=[["a"] * 5] * 30), "30 rows of 6 texts"),
        (_sample(categories=[[1] * 6] * 30), "30 rows of 6 texts"),
        (_sample(categories=[["x" * 257] * 6] * 30), "30 rows of 6 texts"),
        (_sample(forecast=[1.0, 2.0, 3.0, None]), "missing in some of the samples only"),
        (lambda raw: raw["tolerance"].update(absolute=[1e9] * 4), "prove something"),
        (lambda raw: raw["tolerance"].update(absolute=[-1.0] * 4), "prove something"),
        (lambda raw: raw["tolerance"].update(relative=0.5), "prove something"),
        (lambda raw: raw["int8_tolerance"].update(relative=0.5), "prove something"),
        (lambda raw: raw.update(int8_tolerance=3), "not subscriptable"),
    ],
)
def test_raw_samples_that_prove_nothing_are_refused(folder: Path, change: Callable[[dict[str, Any]], object], problem: str) -> None:
    """Too few or too many, of other shapes, with what is no number, or judged too mildly: a problem that says which, and no exception."""
    document = json.loads((folder / "golden.json").read_text())
    change(document["raw"])
    (folder / "golden.json").write_text(json.dumps(document))
    (reported,) = check_golden(folder, Metadata.read(folder))
    assert reported.startswith("golden.json")
    assert problem in reported


@pytest.mark.parametrize("name_of", [raw_name, int8_name])
def test_a_raw_graph_that_is_not_the_published_one_is_named(folder: Path, tmp_path: Path, name_of: Callable[[str], str]) -> None:
    """Missing, truncated, of another network, of another version, or with other inputs: verify names the file and what is wrong."""
    graph, name = folder / name_of(VERSION), name_of(VERSION)
    content = graph.read_bytes()
    graph.write_bytes(content[:-100])
    size = len(content)
    assert verify(folder) == [f"{name!r} is not what was published ({size - 100:,} bytes instead of {size:,})"]
    rewrite(folder)
    (problem,) = verify(folder)
    assert problem.startswith(name)
    graph.unlink()
    rewrite(folder)
    assert verify(folder) == [f"MANIFEST.json does not name {name}"]
    graph.write_bytes((make_version(tmp_path / "other", VERSION, seed=5) / name).read_bytes())
    rewrite(folder)
    (problem,) = verify(folder)
    assert problem.startswith(f"{name} differs from golden.json in ")
    assert "raw samples, first in 'ordinary" in problem
    model = onnx.load_from_string(content)
    helper.set_model_props(model, {"version": "v20200101_000000"})
    graph.write_bytes(model.SerializeToString())
    rewrite(folder)
    assert verify(folder) == [f"{name} names version 'v20200101_000000', MANIFEST.json '{VERSION}'"]
    graph.write_bytes((folder / core_name(VERSION)).read_bytes())
    rewrite(folder)
    found = verify(folder)
    assert f"{name} lacks the output 'forecast' float32 (batch, 4)" in found
    assert f"{name} has the input 'input' float32 (batch, 30, 44), which is not declared" in found


def test_operators_of_an_unknown_set_are_refused(folder: Path) -> None:
    """A graph that needs a library of its own beside the runtime is not loaded."""
    graph = folder / raw_name(VERSION)
    model = onnx.load(graph)
    model.graph.node.add(op_type="Anything", domain="my.own", output=["unused"])
    graph.write_bytes(model.SerializeToString())
    rewrite(folder)
    (problem,) = verify(folder)
    assert "operators of the sets 'my.own'" in problem


def test_a_manifest_needs_a_version_and_plain_files(tmp_path: Path) -> None:
    """A name that is not a version, and a link among the files, are errors when a manifest is written."""
    with pytest.raises(ValueError, match="is not a version"):
        write_manifest(tmp_path, version="v1", parent=None, reason="", created_at_s=0.0, verdict=None, libraries={})
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="neither a regular file"):
        rewrite(tmp_path)
