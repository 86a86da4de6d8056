"""The ledger as a person sees it, whatever its lines are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRAINING = {
    "kind": "training", "time_s": 1_767_571_200.0, "version": "v20260105_000000", "parent": None, "reason": "drift", "status": "candidate",
    "problem": None, "seconds": 30.0, "cpu_s": 41.2, "rows": 12_345, "reasons": [],
    "promised": {"mean": -0.05, "low": -0.08, "high": -0.02},
}  # fmt: skip
BROUGHT = {"target": "rtt_ms", "outcomes": 900, "mae": 9.0, "mae_before": 10.0, "low": -1.5, "high": -0.5}
PROOF = {
    "kind": "proof", "time_s": 1_767_581_200.0, "version": "v20260105_000000", "before": "v20260104_000000", "failed": False,
    "worse": -0.1, "brought": [BROUGHT],
}  # fmt: skip


def test_what_a_training_has_cost_promised_and_brought(cli: Any, tmp_path: Path) -> None:
    """Of all members together, oldest first; lines of anything else do no harm."""
    state = tmp_path / "cwd/state"
    assert cli("ledger")[0] == 1
    state.mkdir()
    (state / "ledger-a.ndjson").write_text(json.dumps(PROOF) + "\n" + json.dumps(TRAINING) + "\n")
    later = TRAINING | {"time_s": 1_767_591_200.0, "version": "v20260106_000000", "status": "refused", "promised": None, "cpu_s": None}
    hostile = [{"kind": "training", "version": "v1", "time_s": 9e99}, {"kind": "training", "version": "v2", "time_s": 0, "status": []}]
    (state / "ledger-b.ndjson").write_text("".join(json.dumps(line) + "\n" for line in [later, *hostile]) + '{"kind": "trai')
    code, out, _ = cli("ledger")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert "2026-01-05 00:00 v20260105_000000 drift proved 41 s 12,345 -5.0%" in words
    assert "refused" in out
    assert "not readable" in out
    assert "-10.0%" in words
    found = json.loads(cli("ledger", "--json")[1])
    assert [entry["version"] for entry in found] == ["v2", "v20260105_000000", "v20260106_000000", "v1"]
    assert found[1]["proof"]["brought"][0]["mae"] == 9.0
