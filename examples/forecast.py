"""Forecast with a published version through ONNX Runtime alone, and follow each new one.

    python examples/forecast.py demo/models telemetry.ndjson [--follow]

It needs `onnxruntime` and `numpy`, and nothing of dwcp-learner. The raw graph takes telemetry as it was measured and returns engineering
units: features, category codes and scaling are inside. telemetry.ndjson holds the records of ONE link, oldest first, one a line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

WINDOW, HISTORY = 30, 9
"""Rows of a window, and the rows before it over which the first rolling means run."""
NUMERIC = (
    "throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms", "congestion_window", "queue_depth", "retransmits", "bytes_tx", "bytes_rx",
    "time_of_day", "day_of_week",
)  # fmt: skip
CATEGORIES = ("region", "az", "link_type", "dwcp_mode", "network_tier", "transport_type")
TARGETS = ("throughput_mbps", "rtt_ms", "packet_loss", "jitter_ms")


class LiveModel:
    """The version that CURRENT names, loaded. `refresh` changes to a newer one; the loaded one stays if that is damaged."""

    def __init__(self, models: Path, version: str | None = None) -> None:
        """Load a version of a models folder, the live one by default. Raises ValueError or OSError if it cannot be used."""
        self.models = models
        self.version = ""
        if version is None:
            self.refresh()
        else:
            self._load(version)

    def refresh(self) -> bool:
        """Look at CURRENT and return True if another version was loaded. Raises ValueError or OSError if that cannot be used."""
        version = (self.models / "CURRENT").read_text().strip()
        if version == self.version:
            return False
        self._load(version)
        return True

    def _load(self, version: str) -> None:
        folder = self.models / version
        try:
            path = folder / _raw_name(json.loads((folder / f"model_metadata_{version}.json").read_text()), version)
            wanted = json.loads((folder / "MANIFEST.json").read_text())["files"][path.name]["sha256"]
        except (AttributeError, KeyError, TypeError) as error:  # JSON, but not that of a version
            raise ValueError(f"{folder}: is not a published version ({error!r}); copy the folder again, CURRENT last") from error
        graph = path.read_bytes()
        if hashlib.sha256(graph).hexdigest() != wanted:
            raise ValueError(f"{path}: is not what was published (its SHA-256 differs); copy the folder again, CURRENT last")
        try:
            self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a dozen types of its own, with no common base
            raise ValueError(f"{path}: cannot be loaded ({error}); update onnxruntime") from error
        self.version = version

    def forecast(self, rows: list[dict[str, Any]]) -> dict[str, float | None]:
        """Return the forecast of the link's next row, None for a target that the version does not forecast.

        Args:
            rows: records of one link without a gap, oldest first, at least 30; the newest 39 are used.

        Raises:
            ValueError: there are fewer than 30 rows.
        """
        if len(rows) < WINDOW:
            raise ValueError(f"{len(rows)} rows: a forecast needs {WINDOW} of one link")
        held = rows[-(WINDOW + HISTORY) :]
        window = held[-WINDOW:]
        telemetry = np.full((1, HISTORY + WINDOW, len(NUMERIC)), np.nan, np.float32)  # NaN: not measured, or before the first row
        for index, row in enumerate(held, start=HISTORY + WINDOW - len(held)):
            telemetry[0, index] = [row.get(name, np.nan) for name in NUMERIC]
        feed = {
            "time_s": np.array([[row["timestamp"] for row in window]], np.float64),
            "telemetry": telemetry,
            "categories": np.array([[[row.get(name) or "" for name in CATEGORIES] for row in window]], object),
        }
        (forecast,) = self._session.run(["forecast"], feed)[0]
        return {name: None if np.isnan(value) else float(value) for name, value in zip(TARGETS, forecast, strict=True)}


def _raw_name(metadata: dict[str, Any], version: str) -> str:
    """Return the file name of the raw graph. Raises ValueError if it does not lie in the version's own folder."""
    if "graphs" not in metadata:  # versions of older releases name no files
        return f"bandwidth_lstm_{version}.raw.onnx"
    name: str = metadata["graphs"]["raw"]["file"]
    if Path(name).name != name:
        raise ValueError(f"{version} names {name[:80]!r} as its raw graph, which is not a file name; do not use this version")
    return name


def main(models: Path, telemetry: Path, follow: bool) -> None:
    """Print a forecast, and with `follow` another one by each new version."""
    live = LiveModel(models)
    rows = [json.loads(line) for line in telemetry.read_text().splitlines()]
    print(live.version, json.dumps(live.forecast(rows)), flush=True)
    while follow:
        time.sleep(2)
        try:
            if live.refresh():
                print(live.version, json.dumps(live.forecast(rows)), flush=True)
        except (OSError, ValueError) as error:  # forecasts go on with the version that is loaded
            print(error, flush=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", type=Path)
    options.add_argument("telemetry", type=Path)
    options.add_argument("--follow", action="store_true")
    main(**vars(options.parse_args()))
