"""The files of an offline training, the manifest last: what `dwcp-learner train` leaves in its output folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from features.offline import RawTable
from model.documents import write_document
from model.manifest import write_manifest
from model.offline import OfflineRun
from model.report_html import render
from model.run_report import judged, report_of
from model.run_spec import RunSpec
from model.version_files import PAGE_NAME, REPORT_NAME, Fit, Learnt, history_document, libraries, settings_document, write_model

REASON = "trained by hand"


def write(made: OfflineRun, table: RawTable, spec: RunSpec, status: str) -> None:
    """Writes everything into the run's folder. Raises ExportError where a graph is not the network."""
    folder, prepared = Path(spec.folder), made.prepared
    fitted = Fit(made.model, made.started_from, made.history, made.duration_s)
    learnt = Learnt(
        table=table,
        features=prepared.features,
        scaled=prepared.data.features,
        inputs=prepared.inputs,
        outputs=prepared.outputs,
        vocabulary=prepared.vocabulary,
        trained_until_s=float(table.time_s[prepared.split.train.target_row].max()),
        held_out=prepared.split.test.end,
    )
    about = settings_document(spec.settings, spec.architecture, spec.gap_multiple, spec.created_at_s) | {
        "reason": REASON,
        "horizon_rows": spec.horizon_rows,
    }
    metadata = write_model(folder, spec.version, fitted, learnt, about)
    report = report_of(made, table, spec, status)
    judgement = {"target_achieved": report["target_achieved"], "performance_metrics": report["performance"]}
    replace(metadata, extra={**metadata.extra, **judgement}).write(folder)
    write_document(folder / REPORT_NAME, report)
    (folder / PAGE_NAME).write_text(render(report, history_document(fitted), judged(made, table)), encoding="utf-8")
    write_manifest(
        folder,
        version=spec.version,
        parent=None,
        reason=REASON,
        created_at_s=spec.created_at_s,
        verdict=None,
        libraries=libraries(),
    )
