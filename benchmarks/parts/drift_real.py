"""A recording through the daemon's own loop (`dwcp-learner replay`): its drift alerts, and a picture of each."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from daemon.commands.alerts.evidence import evidence_of, picture
from harness import answer, job_of
from model.report.charts import svg

WHOLE_S: Final = 1e9


def run(recording: Path, merged: bool, pictures: Path | None) -> dict[str, Any]:
    """Return what `replay` reports with its own settings: a first version from 40 % of the rows, and new ones after a drift.

    Args:
        pictures: folder for one SVG of each alert, named after the recording and the number of the alert.
    """
    with tempfile.TemporaryDirectory(prefix="dwcp-real-") as name:
        kept = Path(name)
        (kept / "config.toml").write_text(f"[buffer]\nage_max_s = {WHOLE_S}\n")  # the pictures come from the buffer
        command = [sys.executable, "-P", "-m", "daemon.cli", "replay", str(recording), "--json", "--keep", name]
        command += ["--config", str(kept / "config.toml"), *(["--merged"] if merged else [])]
        report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout)
        lines = (kept / "state/events/drift.ndjson").read_text().splitlines()
        events = [event for event in map(json.loads, lines) if event["data"].get("signals")]
        of_incident: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            of_incident.setdefault(event["data"]["incident"], []).append(event)
        alerts = []
        for number, own in enumerate(of_incident.values(), start=1):
            last = own[-1]["data"]
            alerts.append(
                {
                    "recording": recording.stem, "alert": number, "told": own[0]["time"], "since_s": last["since_s"],
                    "told_after_s": own[0]["data"]["opened_s"] - last["since_s"], "scope": last["scope"],
                    "what": own[0]["data"]["summary"], "then": last["outcome"] or "open",
                }
            )  # fmt: skip
            if pictures is not None and (evidence := evidence_of(own, kept / "state")):
                (pictures / f"{recording.stem}-{number}.svg").write_text(svg(picture(evidence)))
        return {"alerts": alerts, "links": report["links"], "records": report["records"]["accepted"], "versions": report["versions"]}


if __name__ == "__main__":
    job = job_of(sys.argv)
    answer(run(Path(job["recording"]), job["merged"], Path(job["pictures"]) if job["pictures"] else None))
