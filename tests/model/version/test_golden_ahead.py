"""The samples of golden.json for a version of several horizons: what is refused before a graph is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.version.golden import GOLDEN_NAME, check_golden
from model.version.metadata import Metadata
from testkit.versions import make_version

VERSION = "v20260101_000000"
HORIZONS = (1, 5)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_version(tmp_path_factory.mktemp("golden") / VERSION, VERSION)


def problems(version: Path, folder: Path, change: Callable[[dict[str, Any], str], None]) -> list[str]:
    """Return what is wrong with samples that all have horizons, once `change` has been made to each. Its second argument: core or raw."""
    document = json.loads((version / GOLDEN_NAME).read_text())
    for kind, samples in (("core", document["samples"]), ("raw", document["raw"]["samples"])):
        for sample in samples:
            sample["context"] = [None] * 4 * (3 + len(HORIZONS))
            sample["ahead"] = [[[1.0, 2.0, 3.0, 2.5] for _ in range(4)] for _ in HORIZONS]
            change(sample, kind)
    (folder / GOLDEN_NAME).write_text(json.dumps(document))
    return check_golden(folder, replace(Metadata.read(version), horizons=HORIZONS, coverage=0.9))


@pytest.mark.parametrize("kind", ["core", "raw"])
def test_a_forecast_target_has_every_number_ahead(version: Path, tmp_path: Path, kind: str) -> None:
    """As the next row has: a graph that returns NaN for it would agree with samples that have null."""

    def without_upper_rtt(sample: dict[str, Any], of: str) -> None:
        for horizon in sample["ahead"] if of == kind else []:
            horizon[1] = [None] * 4

    (problem,) = problems(version, tmp_path, without_upper_rtt)
    assert problem.startswith("golden.json: it has no forecasts of rtt_ms, which the metadata name")


def test_a_bound_alone_may_not_be_missing(version: Path, tmp_path: Path) -> None:
    """A target is forecast whole or not at all."""

    def without_upper_rtt(sample: dict[str, Any], of: str) -> None:  # noqa: ARG001
        sample["ahead"][1][1][2] = None

    (problem,) = problems(version, tmp_path, without_upper_rtt)
    assert "a target ahead is missing in some of the samples only" in problem


@pytest.mark.parametrize("entry", ["context", "ahead"])
def test_a_sample_has_context_and_horizons(version: Path, tmp_path: Path, entry: str) -> None:
    (problem,) = problems(version, tmp_path, lambda sample, _: sample.pop(entry))
    assert entry in problem
    (problem,) = problems(version, tmp_path, lambda sample, _: sample.update({entry: sample[entry][1:]}))
    assert "numbers of another shape" in problem
