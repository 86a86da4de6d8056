"""What readers accept of a version's metadata: the table of clients/go/testdata, which the Go client's tests read as well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model.version.contract import CORE, MOST_PROBLEMS, Declared, Graph, Port, problems
from model.version.declarations import MOST_OPERATORS, MOST_PORTS
from model.version.documents import MOST_MESSAGE, DocumentError
from model.version.manifest import MANIFEST_NAME, verify
from model.version.metadata import Metadata, RawMetadata, metadata_name
from model.version.predictor import Predictor, PredictorError
from model.version.raw_predictor import RawPredictor
from testkit.paths import ROOT, STATES
from testkit.versions import make_version

TABLE = json.loads((ROOT / "clients/go/testdata/metadata.json").read_text())
VERSION = "v20260101_000000"
LONG = "x" * 100_000


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_version(tmp_path_factory.mktemp("metadata") / VERSION, VERSION)


def changed(document: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """The case's base with one entry set to the case's value, or without it."""
    result = json.loads(json.dumps(document | TABLE["ahead" if case.get("ahead") else "base"]))
    *folders, last = case["path"]
    inside = result
    for key in folders:
        inside = inside[key]
    if case.get("absent"):
        inside.pop(last)
    else:
        inside[last] = case["value"]
    return result


def read_into(document: dict[str, Any], into: Path) -> Path:
    (into / metadata_name(VERSION)).write_text(json.dumps(document))
    return into


def read(document: dict[str, Any], into: Path) -> Metadata:
    return Metadata.read(read_into(document, into))


@pytest.mark.parametrize("case", TABLE["cases"], ids=[case["name"] for case in TABLE["cases"]])
def test_the_table(version: Path, tmp_path: Path, case: dict[str, Any]) -> None:
    """One change each: it is read, or refused with the same words by Python and Go."""
    document = changed(json.loads((version / metadata_name(VERSION)).read_text()), case)
    if "refused" not in case:
        assert read(document, tmp_path).version == RawMetadata.read(tmp_path).version == VERSION
        return
    read_into(document, tmp_path)
    for reader in (Metadata.read, RawMetadata.read):
        with pytest.raises(DocumentError) as refused:
            reader(tmp_path)
        assert case["refused"] in str(refused.value)


@pytest.mark.parametrize("change", [{"feature_version": 2}, {"features": ["other"]}])
def test_other_features_are_for_raw_graphs_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    """A raw graph has its features inside; the daemon would give the core graph its own, so it refuses, and says what happens next."""
    folder = make_version(tmp_path / VERSION, VERSION)
    path = folder / metadata_name(VERSION)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert RawPredictor.load(folder).version == RawPredictor.load(folder, int8=True).version == VERSION
    with pytest.raises(PredictorError, match="the next training starts as a first version") as refused:
        Predictor.load(folder)
    assert refused.value.other_features


def test_the_published_schema_describes_versions_of_each_age(tmp_path: Path) -> None:
    """One of an earlier release lacks entries, which the schema therefore does not require; one of this release has what it describes."""
    schema = json.loads((ROOT / "docs/model_metadata.schema.json").read_text())
    shutil.unpack_archive(STATES / "unbounded-model.tar.xz", tmp_path)
    jsonschema.validate(json.loads((tmp_path / VERSION / metadata_name(VERSION)).read_text()), schema)
    described = schema | {"required": []}
    for base in ("base", "ahead"):
        jsonschema.validate(TABLE[base], described)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"graphs": TABLE["base"]["graphs"] | {"tiny": {}}}, described)


PORT = {"name": "spread", "dtype": "float32", "shape": ["batch", 4]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["graphs", "raw", "outputs"], [PORT | {"name": f"output_{index}"} for index in range(100_000)]),
        (["graphs", "raw", "outputs"], [PORT | {"name": f"output_{index}"} for index in range(MOST_PORTS + 1)]),
        (["graphs", "raw", "outputs"], [PORT | {"name": LONG}]),
        (["graphs", "raw", "outputs"], [PORT | {"dtype": LONG}]),
        (["graphs", "raw", "operators"], {f"Op{index}": 1 for index in range(MOST_OPERATORS + 1)}),
        (["graphs", "raw", "operators"], {LONG: 1}),
        (["graphs", "raw", "file"], LONG),
        (["graphs", "raw", "file"], [LONG]),
        (["schema"], LONG),
        (["feature_version"], LONG),
        (["version"], LONG),
        (["window_rows"], LONG),
        (["features"], [LONG]),
        (["targets"], [LONG] * 100),
        (["vocabularies"], {LONG: [LONG]}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, list) and len(value) < 4 and len(str(value)) < 99 else "value",
)
def test_messages_are_short(version: Path, tmp_path: Path, path: list[str], value: Any) -> None:
    """Whatever the metadata hold, a message about them fits in a log."""
    document = changed(json.loads((version / metadata_name(VERSION)).read_text()), {"path": path, "value": value})
    with pytest.raises(DocumentError) as refused:
        read(document, tmp_path)
    assert len(str(refused.value)) <= MOST_MESSAGE


def test_problems_of_a_graph_are_few_and_short() -> None:
    """A graph with 100,000 ports, or with names and shapes of 100,000 characters, is refused in a few lines."""
    many = tuple(Port(f"output_{index}", "float32", ("batch", 4)) for index in range(100_000))
    for graph in (
        Graph(CORE.inputs, (), (*CORE.outputs, *many)),
        Graph(CORE.inputs, (), (*CORE.outputs, Port(LONG, LONG, (1,) * 100_000))),
        Graph(CORE.inputs, (), CORE.outputs, {}, frozenset({LONG})),
    ):
        found = problems(graph, CORE, Declared())
        assert 1 <= len(found) <= MOST_PROBLEMS + 1
        assert sum(map(len, found)) <= MOST_MESSAGE
    assert problems(Graph(CORE.inputs, (), (*CORE.outputs, *many)), CORE, Declared())[-1] == "has 99,990 more problems"


@pytest.mark.parametrize("schema", [True, 1.0, "1", None, 0, [LONG]])
def test_the_schema_of_a_manifest_is_a_whole_number(version: Path, tmp_path: Path, schema: Any) -> None:
    """As that of the metadata."""
    document = json.loads((version / MANIFEST_NAME).read_text())
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(document | {"schema": schema}))
    (problem,) = verify(tmp_path)
    assert "not a whole number from 1" in problem
    assert len(problem) < MOST_MESSAGE


def test_a_manifest_of_many_missing_files_is_refused_in_a_few_lines(version: Path, tmp_path: Path) -> None:
    """The first of them are named, and how many more there are."""
    document = json.loads((version / MANIFEST_NAME).read_text())
    document["files"] = {f"missing_{index}": {} for index in range(5000)} | {LONG: {}}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(document))
    found = verify(tmp_path)
    assert len(found) == MOST_PROBLEMS + 1
    assert "more files" in found[-1]
    assert len(str(found)) < MOST_MESSAGE
