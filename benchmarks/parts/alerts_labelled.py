"""Change points of a recording that were labelled by hand, against the alerts of the chain and against stock detectors of River."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from river.drift import ADWIN, KSWIN, PageHinkley

from features.telemetry import TARGETS
from harness import answer, job_of
from parts.alerts_run import replayed
from parts.alerts_score import incidents_of

TOLERANCE_ROWS: Final = 15
ROW_S: Final = 240.0
PARAMETERS: Final[dict[str, tuple[float, ...]]] = {
    "adwin": (0.2, 0.02, 2e-3, 1e-4, 1e-6, 1e-9),
    "page_hinkley": (5.0, 10.0, 20.0, 40.0, 80.0, 160.0),
    "kswin": (1e-2, 1e-3, 1e-4, 1e-6),
}
"""Range of each detector: delta, threshold (in standard deviations), alpha."""
_MAKE: Final[dict[str, Callable[[float], Any]]] = {
    "adwin": lambda delta: ADWIN(delta=delta),
    "page_hinkley": lambda threshold: PageHinkley(delta=0.5, threshold=threshold, min_instances=30),
    "kswin": lambda alpha: KSWIN(alpha=alpha, window_size=100, stat_size=30, seed=1),
}

Found = dict[str, list[float]]
"""For each node the UTC seconds of what was found."""


def labels(path: Path) -> Found:
    found: Found = defaultdict(list)
    for row in csv.DictReader(path.open()):
        found[row["node_id"]].append(float(row["timestamp"]))
    return found


def series(path: Path) -> dict[str, tuple[Any, Any]]:
    """Return for each node its times, UTC seconds, and round-trip times, both float64."""
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in csv.DictReader(path.open()):
        if row["rtt_ms"]:
            rows[row["node_id"]].append((float(row["timestamp"]), float(row["rtt_ms"])))
    return {node: tuple(np.array(own).T) for node, own in rows.items()}


def residuals(path: Path, first_share: float) -> dict[str, tuple[Any, Any]]:
    """Return the same for what a live model leaves over of the round-trip times, after the first version."""
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def measured(time_s: Any, links: Sequence[str], residual: Any) -> None:
        for at_s, link, value in zip(time_s.tolist(), links, residual[:, TARGETS.index("rtt_ms")].tolist(), strict=True):
            if np.isfinite(value):
                rows[link.split("|")[0]].append((at_s, value))

    replayed(path, int(first_share * sum(len(times) for times, _ in series(path).values())), 1.0, measured=measured)
    return {node: tuple(np.array(own).T) for node, own in rows.items()}


def score(found: Found, truth: Found, from_s: float) -> dict[str, float]:
    """Return precision, recall and F1. Each label and each finding counts once, the nearest with the nearest, within the tolerance."""
    matched = findings = wanted = 0
    for node in set(found) | set(truth):
        open_labels = sorted(at_s for at_s in truth.get(node, ()) if at_s >= from_s)
        own = sorted(at_s for at_s in found.get(node, ()) if at_s >= from_s)
        findings, wanted = findings + len(own), wanted + len(open_labels)
        for at_s in own:
            near = [label for label in open_labels if abs(label - at_s) <= TOLERANCE_ROWS * ROW_S]
            if near:
                open_labels.remove(min(near, key=lambda label, at_s=at_s: abs(label - at_s)))
                matched += 1
    precision, recall = matched / findings if findings else 0.0, matched / wanted if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if matched else 0.0
    return {"found": findings, "matched": matched, "labels": wanted, "precision": precision, "recall": recall, "f1": f1}


def of_chain(alerts: Sequence[dict[str, Any]]) -> Found:
    """Return when alerts say that links have changed: the time of each change of an incident, for each link that it names."""
    found: Found = defaultdict(list)
    for incident in incidents_of(alerts):
        times = {round(alert["since_s"]) for alert in incident if alert["change"] != "closed" and alert["group"] == "network"}
        nodes = {link.split("|")[0] for alert in incident for link in alert["links"]}
        for node in nodes:
            found[node] += _apart(times)
    return found


def _apart(times: Iterable[float]) -> list[float]:
    """Return times that are more than the tolerance apart: several alerts of one change are one."""
    kept: list[float] = []
    for at_s in sorted(times):
        if not kept or at_s - kept[-1] > TOLERANCE_ROWS * ROW_S:
            kept.append(at_s)
    return kept


def run(job: dict[str, Any]) -> dict[str, Any]:
    recording, truth = Path(job["recording"]), labels(Path(job["labels"]))
    own = series(recording)
    begin_s, end_s = min(times[0] for times, _ in own.values()), max(times[-1] for times, _ in own.values())
    from_s = begin_s + job["first_share"] * (end_s - begin_s)
    if job["what"] == "chain":
        rows = sum(len(times) for times, _ in own.values())
        found = replayed(recording, int(job["first_share"] * rows), job["budget"])
        return score(of_chain(found["alerts"]), truth, from_s) | {"incidents": len(incidents_of(found["alerts"]))}
    made: dict[str, Any] = {}
    for stream, of_nodes in (("raw", own), ("residual", residuals(recording, job["first_share"]))):
        for parameter in PARAMETERS[job["detector"]]:
            hits: Found = {}
            for node, (times, shown) in of_nodes.items():
                middle = np.median(shown[:500])
                scaled = (shown - middle) / max(1.4826 * np.median(np.abs(shown[:500] - middle)), 1e-3)
                detector, at = _MAKE[job["detector"]](parameter), []
                for time_s, value in zip(times.tolist(), scaled.tolist(), strict=True):
                    detector.update(value)
                    if detector.drift_detected:
                        at.append(time_s)
                hits[node] = at
            made[f"{stream} {parameter:g}"] = score(hits, truth, from_s)
    return {"range": made}


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
