"""The choice between a network and linear forecasts: by scores on the validation windows, and what a training then publishes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from msgspec.structs import replace as resized

import model.training.fit.cheaper
import model.training.report
import model.training.run
from model.job import Job
from model.spec.architecture import Architecture, Linear, Relative
from model.spec.job import DRIFT, JobSpec, plain
from model.spec.verdict import GatePolicy
from model.training.files import REPORT_NAME
from model.training.fit.cheaper import Comparison, compare
from model.training.fit.start import Fit, start
from model.version.manifest import verify
from model.version.metadata import Metadata
from testkit.ahead import HORIZONS, QUICK, TINY, Telemetry, prepared, snapshot_of, trained

EITHER = resized(TINY, or_linear=True)
FIRST, SECOND = "v20260101_000000", "v20260102_000000"


def test_a_network_pays_only_beyond_chance() -> None:
    """Two that forecast the same: linear forecasts. One that is wrong by far: the other one, whichever it is."""
    dataset = prepared(Telemetry().table())
    rival = EITHER.rival
    assert rival is not None
    good, wrong = (start(dataset, rival)[0] for _ in range(2))
    kernel, bias = wrong.get_layer("ahead_linear").get_weights()
    wrong.get_layer("ahead_linear").set_weights([kernel, bias + 50.0])
    alike = compare(good, good, dataset, 0.9)
    assert alike is not None
    assert (alike.low, alike.high, alike.network_pays) == (0.0, 0.0, False)
    assert alike.network == alike.linear
    better, worse = compare(good, wrong, dataset, 0.9), compare(wrong, good, dataset, 0.9)
    assert better is not None
    assert better.network_pays
    assert worse is not None
    assert not worse.network_pays
    assert (worse.low, worse.high) == (pytest.approx(-better.high), pytest.approx(-better.low))


def test_without_a_row_ahead_there_is_no_comparison() -> None:
    """A horizon that no validation window knows leaves nothing to compare by."""
    dataset = prepared(Telemetry().table())
    linear, _ = start(dataset, EITHER.rival or Linear())
    nothing = replace(dataset.data.validation, ahead=np.full_like(dataset.data.validation.ahead, -1))
    assert compare(linear, linear, replace(dataset, data=replace(dataset.data, validation=nothing)), 0.9) is None


def test_the_rival_forecasts_the_same() -> None:
    """Horizons, coverage and window are the network's. Who asks for the network alone, or for the next row alone, gets it."""
    asked = Relative(window_rows=20, ahead=resized(TINY.ahead, coverage=0.8))
    rival = asked.rival
    assert rival is not None
    assert (rival.encoder, rival.window_rows, rival.ahead.horizons, rival.ahead.coverage) == ("linear", 20, HORIZONS, 0.8)
    assert (rival.ahead.units, rival.ahead.members) == ((), 1)
    assert TINY.rival is None
    assert Relative(ahead=resized(TINY.ahead, horizons=())).rival is None
    assert Linear().rival is None


def job(folder: Path, version: str, reason: str = "first", architecture: Architecture = EITHER) -> JobSpec:
    return JobSpec(
        job_id=version, version=version, created_at_s=1.79e9, reason=reason, candidate=str(folder / version), settings=QUICK,
        snapshot=str(folder / "snapshot"), gate=GatePolicy(min_windows=20), architecture=architecture,
    )  # fmt: skip


def test_linear_forecasts_are_published_where_the_network_does_not_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are those of a linear version, and the report says why. After a drift it is fine-tuned, and the network is not tried."""
    monkeypatch.setattr(model.training.fit.cheaper, "compare", lambda *_: Comparison(1.0, 1.1, -0.3, 0.1))
    snapshot_of(Telemetry().table(), tmp_path / "snapshot")
    assert Job(job(tmp_path, FIRST), lambda _: None).run().status in ("candidate", "refused")
    made = tmp_path / FIRST
    assert verify(made) == []
    metadata, report = Metadata.read(made), json.loads((made / REPORT_NAME).read_text())
    assert metadata.encoder == report["network"]["compared"]["published"] == report["architecture"]["encoder"] == "linear"
    assert (made / f"bandwidth_linear_{FIRST}.onnx").exists()
    assert any(note.startswith("Linear forecasts are published, which cost less") for note in report["notes"])
    assert metadata.horizons == HORIZONS
    rival = EITHER.rival
    tried = model.training.run._tried
    assert tried(job(tmp_path, SECOND), metadata) == (EITHER, rival)
    assert tried(job(tmp_path, SECOND, DRIFT), metadata) == (rival, None)


def test_a_drift_fine_tunes_what_is_live() -> None:
    """A network too, or one of another architecture, which then starts anew; and a network that was asked for alone is never replaced."""
    tried = model.training.run._tried
    nothing = Path("nowhere")
    assert tried(job(nothing, SECOND, DRIFT), None) == (EITHER, EITHER.rival)
    assert tried(job(nothing, SECOND, "schedule", TINY), None) == tried(job(nothing, SECOND, DRIFT, TINY), None) == (TINY, None)


def test_the_report_says_what_a_network_brings(first_fit: Fit) -> None:
    """Both scores and the interval of their difference, in a sentence and as figures."""
    settings = {"architecture": plain(TINY)}
    paid = replace(first_fit, compared=Comparison(1.0, 1.2, -0.3, -0.1))
    (note,) = model.training.report._network_notes(paid, settings)
    assert note.startswith("The network forecasts better than linear forecasts: on the validation windows its score is 1 and theirs 1.2")
    assert "-0.3 to -0.1" in note
    compared = model.training.report._network(paid, settings)["compared"]
    assert compared == {"network": 1.0, "linear": 1.2, "low": -0.3, "high": -0.1, "published": "relative"}


@pytest.fixture(scope="module")
def first_fit() -> Fit:
    return cast(Fit, trained()[1])
