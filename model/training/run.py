"""One training from prepared rows to a whole version: start, fit, export, judge, describe.

A candidate is judged by its exported graphs, as they forecast when live; a network of any window length and horizon by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import keras

from features.telemetry import Floats
from model.judge.baselines import baseline_forecasts
from model.judge.horizons import horizon_figures
from model.judge.metrics import Metrics, forecast_metrics
from model.judge.performance import NETWORK, performance
from model.spec.architecture import Architecture
from model.spec.job import DRIFT, JobSpec
from model.spec.run import FINISHED, INTERRUPTED, RunSpec
from model.spec.verdict import Verdict
from model.training.dataset import Dataset
from model.training.evaluation import Evaluation, judge
from model.training.files import TRAINING_LOG, libraries, settings_document, write_model
from model.training.fit.ahead import is_ahead, outputs_of
from model.training.fit.cheaper import chosen
from model.training.fit.linear_path import forecast
from model.training.fit.progress import Progress
from model.training.fit.start import Fit, fit, has_architecture, prepare_tensorflow, start, with_what_is_left
from model.training.report import CandidateStory, RecordingStory, attention_of, judged_rows, report_document, write_report
from model.version.contract import MEAN
from model.version.manifest import write_manifest
from model.version.metadata import Metadata
from model.version.possible import possible, possible_ahead, unscaled, unscaled_ahead
from model.version.predictor import Predictor
from model.windows.index import WindowIndex, targets_at
from model.windows.quality import examine

Stage = Callable[[str], AbstractContextManager[None]]
"""Returns a context manager for one stage: "build", "train", "export" or "gate"."""
_INTERRUPTED: Final = "The training was interrupted: these are its best weights up to then."


@dataclass(frozen=True, eq=False)
class Made:
    """A version's folder with everything but its reports and its manifest."""

    folder: Path
    dataset: Dataset
    fitted: Fit
    metadata: Metadata
    parent: Metadata | None = None


def train_candidate(
    spec: JobSpec, dataset: Dataset, parent: Predictor | None, stage: Stage, on_progress: Callable[[Progress], None]
) -> Evaluation:
    """Make a candidate in the job's folder, and compare it with its parent through the exported graphs.

    Raises:
        ExportError: A graph does not forecast what the network does.
    """
    folder, before = Path(spec.candidate), None if parent is None else parent.metadata
    fitted = _fitted(spec, folder, dataset, stage, on_progress, parent=before)
    with stage("export"):
        made = Made(folder, dataset, fitted, write_model(folder, spec, fitted, dataset), before)
    with stage("gate"):
        evaluation = judge(dataset, Predictor.load(folder), parent, spec.gate, spec.gap_multiple, spec.local_time.local_time())
        verdict, parts = evaluation.verdict, dataset.data
        windows = {"train": len(parts.train), "validation": len(parts.validation), "gate": len(dataset.judged)}
        story = CandidateStory(
            version=spec.version,
            status="accepted" if verdict.accepted else "refused",
            source="training buffer",
            reason=spec.reason,
            job_id=spec.job_id,
            horizon_rows=1,
            trained_until_s=dataset.trained_until_s,
            metrics=evaluation.metrics,
            verdict=verdict.to_json(),
        )
        forecasts = {NETWORK: evaluation.forecasts["candidate"], **baselines(dataset, dataset.judged)}
        ahead = evaluation.ahead
        quality = asdict(examine(dataset.table, dataset.features, windows))
        _describe(made, spec, story, forecasts, ahead, quality, verdict.reasons, verdict)
    return evaluation


def train_recording(
    spec: RunSpec, dataset: Dataset, stage: Stage, on_progress: Callable[[Progress], None], interrupted: Callable[[], bool]
) -> str:
    """Make a version of a whole recording in the run's folder, judged on rows that it has not seen.

    Returns:
        FINISHED or INTERRUPTED.

    Raises:
        ExportError: A graph does not forecast what the network does.
    """
    folder = Path(spec.folder)
    fitted = _fitted(spec, folder, dataset, stage, on_progress, interrupted)
    with stage("gate"):
        validation = {name: asdict(metrics) for name, metrics in metrics_of(fitted, dataset, dataset.data.validation).items()}
        forecasts, ahead = forecasts_of(fitted, dataset, dataset.judged), ahead_of(fitted, dataset, dataset.judged)
    status = INTERRUPTED if interrupted() else FINISHED
    with stage("export"):
        made = Made(folder, dataset, fitted, write_model(folder, spec, fitted, dataset))
        story = RecordingStory(spec.reason, spec.horizon_rows, spec.version, status, spec.source, spec.shares, validation)
        _describe(made, spec, story, forecasts, ahead, spec.data_quality, [_INTERRUPTED] if status == INTERRUPTED else [], None)
    return status


def _fitted(
    spec: JobSpec | RunSpec,
    folder: Path,
    dataset: Dataset,
    stage: Stage,
    on_progress: Callable[[Progress], None],
    interrupted: Callable[[], bool] = lambda: False,
    parent: Metadata | None = None,
) -> Fit:
    architecture, rival = _tried(spec, parent)
    weights = Path(spec.parent) if isinstance(spec, JobSpec) and spec.parent is not None else None

    def fitted(which: Architecture, begun: tuple[keras.Model, str], log: Path, spent_s: float = 0.0) -> Fit:
        settings = with_what_is_left(spec.settings, spent_s)
        return fit(*begun, dataset, which, settings, on_progress, log_path=log, interrupted=interrupted)

    log, other_log = folder / TRAINING_LOG, folder / f"{TRAINING_LOG}.other"
    with stage("build"):
        prepare_tensorflow(spec.settings)
        begun = start(dataset, architecture, parent, weights)
    with stage("train"):
        network = fitted(architecture, begun, log)
        if rival is None or interrupted():
            return network
        linear = fitted(rival, start(dataset, rival, parent, weights), other_log, network.duration_s)
        published = chosen(network, linear, dataset)
        if published.model is linear.model and other_log.exists():
            other_log.replace(log)
        other_log.unlink(missing_ok=True)
        return replace(published, duration_s=network.duration_s + linear.duration_s)


def _tried(spec: JobSpec | RunSpec, parent: Metadata | None) -> tuple[Architecture, Architecture | None]:
    """Return the architecture to train, and the one that is published in its place where it is not better.

    A training after a drift is urgent: it only fine-tunes the live version, if that has one of both architectures.
    """
    architecture, rival = spec.architecture, spec.architecture.rival
    if rival is not None and spec.reason == DRIFT and parent is not None:
        for live in (architecture, rival):
            if has_architecture(parent, live):
                return live, None
    return architecture, rival


def _describe(
    made: Made,
    spec: JobSpec | RunSpec,
    story: CandidateStory | RecordingStory,
    forecasts: dict[str, Floats],
    ahead: Floats | None,
    quality: dict[str, Any],
    notes: Sequence[str],
    verdict: Verdict | None,
) -> None:
    """Add the version's performance to its metadata and reports, then the manifest, which makes the folder a version."""
    dataset, fitted = made.dataset, made.fitted
    table, index = dataset.table, dataset.judged
    actual = dataset.targets[index.target_row]
    mean = None if ahead is None else ahead[:, 0, :, MEAN]
    figures = performance(actual, forecasts, table.time_s[index.target_row], mean)
    sizes = spec.architecture.ahead
    if ahead is not None:
        simple = {name: forecasts[name] for name in ("persistence", "ewma")}
        figures["horizons"] = horizon_figures(targets_at(dataset.targets, index.ahead), ahead, simple, sizes.horizons, sizes.coverage)
    report = report_document(figures, fitted, settings_document(spec, fitted.architecture), story, quality, notes)
    attention = attention_of(fitted.model, dataset.data, index)
    write_report(made.folder, report, fitted, judged_rows(dataset, actual, forecasts, attention, ahead))
    judgement = {"target_achieved": figures["success"], "performance_metrics": figures}
    replace(made.metadata, extra={**made.metadata.extra, **judgement}).write(made.folder)
    write_manifest(
        made.folder,
        version=spec.version,
        parent=None if made.parent is None else made.parent.version,
        reason=spec.reason,
        created_at_s=spec.created_at_s,
        verdict=verdict,
        libraries=libraries(),
    )


def forecasts_of(fitted: Fit, dataset: Dataset, index: WindowIndex) -> dict[str, Floats]:
    """Return float32 (M, 4) of the network and of each baseline for M windows, in the targets' units.

    A target that was never measured in training is NaN.
    """
    model, data = fitted.model, dataset.data
    scaled = outputs_of(model, data, index)[0] if is_ahead(model) else forecast(model, data, index)
    network = possible(unscaled(scaled, dataset.outputs))
    return {NETWORK: network, **baselines(dataset, index)}


def ahead_of(fitted: Fit, dataset: Dataset, index: WindowIndex) -> Floats | None:
    """Return float32 (M, H, 4, 4), the network's forecasts of all horizons in the targets' units; None if it has none."""
    return ahead_at(fitted, dataset, index) if is_ahead(fitted.model) else None


def ahead_at(fitted: Fit, dataset: Dataset, index: WindowIndex) -> Floats:
    """Return `ahead_of` for a network that has several horizons."""
    scaled = outputs_of(fitted.model, dataset.data, index)[1]
    return possible_ahead(unscaled_ahead(scaled, dataset.outputs))


def metrics_of(fitted: Fit, dataset: Dataset, index: WindowIndex) -> dict[str, Metrics]:
    """Return the metrics of `forecasts_of` the same windows, by forecaster."""
    actual = dataset.targets[index.target_row]
    return {name: forecast_metrics(actual, forecast) for name, forecast in forecasts_of(fitted, dataset, index).items()}


def baselines(dataset: Dataset, index: WindowIndex) -> dict[str, Floats]:
    """Return float32 (M, 4) of each baseline for M windows, in the targets' units, fitted on the training windows."""
    data = dataset.data
    return baseline_forecasts(dataset.features, data.features, dataset.targets, data.train, index, data.window_rows)
