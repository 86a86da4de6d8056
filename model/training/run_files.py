"""The files of an offline training, the manifest last: what `dwcp-learner train` leaves in its output folder."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from model.judge.performance import performance
from model.spec.run import INTERRUPTED, RunSpec
from model.training.files import Fit, Learnt, libraries, settings_document, write_model
from model.training.offline import OfflineRun
from model.training.report import attention_of, judged_rows, report_document, write_report
from model.version.manifest import write_manifest

REASON: Final = "trained by hand"
_INTERRUPTED: Final = "The training was interrupted: these are its best weights up to then."


def write(made: OfflineRun, spec: RunSpec, status: str) -> None:
    """Writes everything into the run's folder. Raises ExportError where a graph is not the network."""
    folder, prepared = Path(spec.folder), made.prepared
    table = prepared.table
    fitted = Fit(made.model, made.started_from, made.history, made.duration_s)
    index = prepared.split.test
    learnt = Learnt(
        table=table,
        features=prepared.features,
        scaled=prepared.data.features,
        inputs=prepared.inputs,
        outputs=prepared.outputs,
        vocabulary=prepared.vocabulary,
        trained_until_s=float(table.time_s[prepared.split.train.target_row].max()),
        held_out=index.end,
    )
    about = settings_document(spec.settings, spec.architecture, spec.gap_multiple, spec.created_at_s) | {
        "reason": REASON,
        "horizon_rows": spec.horizon_rows,
    }
    metadata = write_model(folder, spec.version, fitted, learnt, about)
    figures = performance(made.actual, made.forecasts, table.time_s[index.target_row])
    story = {
        "version": spec.version,
        "status": status,
        "source": spec.source,
        "shares": list(spec.shares),
        "validation": {name: asdict(metrics) for name, metrics in made.validation_metrics.items()},
    }
    notes = [_INTERRUPTED] if status == INTERRUPTED else []
    report = report_document(figures, fitted, about | story, spec.data_quality, notes)
    attention = attention_of(made.model, prepared.data.features, index.end)
    write_report(folder, report, fitted, judged_rows(table, index, made.actual, made.forecasts, attention))
    judgement = {"target_achieved": figures["success"], "performance_metrics": figures}
    replace(metadata, extra={**metadata.extra, **judgement}).write(folder)
    write_manifest(
        folder,
        version=spec.version,
        parent=None,
        reason=REASON,
        created_at_s=spec.created_at_s,
        verdict=None,
        libraries=libraries(),
    )
