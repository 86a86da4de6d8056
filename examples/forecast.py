"""Forecast with a published version through ONNX Runtime alone, and follow each new one.

    python examples/forecast.py demo/models telemetry.ndjson [--follow]

It needs `onnxruntime` and `numpy`, and nothing of dwcp-learner. The raw graph takes telemetry as it was measured and returns engineering
units: features, category codes and scaling are inside. telemetry.ndjson holds the records of ONE link, oldest first, one a line.

It prints the forecast of the next row. A version that forecasts further ahead has a line for each of its horizons: for each metric the
lower bound, the median and the upper bound. What the link remembers of its day (the input `context`) is left out: the graph then takes
it as not known, and forecasts further ahead are less exact.
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
SHORT = 3
"""Rows from which on a version that forecasts several horizons has a forecast. A version of the next row alone needs a whole window."""
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
        self.horizons: tuple[int, ...] = ()
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
            metadata = json.loads((folder / f"model_metadata_{version}.json").read_text())
            path = folder / _raw_name(metadata, version)
            horizons = tuple(metadata["forecast"]["horizons_rows"]) if "forecast" in metadata else ()
            wanted = json.loads((folder / "MANIFEST.json").read_text())["files"][path.name]["sha256"]
        except (AttributeError, KeyError, TypeError) as error:  # JSON, but not that of a version
            raise ValueError(f"{folder}: is not a published version ({error!r}); copy the folder again, CURRENT last") from error
        graph = path.read_bytes()
        if hashlib.sha256(graph).hexdigest() != wanted:
            raise ValueError(f"{path}: is not what was published (its SHA-256 differs); copy the folder again, CURRENT last")
        try:
            session = onnxruntime.InferenceSession(graph, _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a dozen types of its own, with no common base
            raise ValueError(f"{path}: cannot be loaded ({error}); update onnxruntime") from error
        ahead = [output.shape for output in session.get_outputs() if output.name == "ahead"]
        if horizons and (not ahead or ahead[0][1] != len(horizons)):
            raise ValueError(f"{path}: does not forecast the {len(horizons)} horizons of its metadata; do not use this version")
        self._session, self.version, self.horizons = session, version, horizons

    def forecast(self, rows: list[dict[str, Any]]) -> dict[str, float | None]:
        """Return the forecast of the link's next row, None for a target that the version does not forecast.

        Args:
            rows: records of one link without a gap, oldest first, at least 30 (3 if the version has horizons); the newest 39 are used.

        Raises:
            ValueError: there are too few rows.
        """
        (forecast,) = self._run("forecast", rows)
        return {name: _number(value) for name, value in zip(TARGETS, forecast, strict=True)}

    def forecast_ahead(self, rows: list[dict[str, Any]]) -> dict[int, dict[str, list[float | None]]]:
        """Return lower bound, median, upper bound and mean of each target, by how many of the link's sampling intervals ahead it is.

        Empty for a version that forecasts only the next row. Arguments and errors as of `forecast`.
        """
        if not self.horizons:
            return {}
        (ahead,) = self._run("ahead", rows)  # (H, 4, 4)
        return {
            horizon: {name: [_number(value) for value in bounds] for name, bounds in zip(TARGETS, each, strict=True)}
            for horizon, each in zip(self.horizons, ahead, strict=True)
        }

    def _run(self, output: str, rows: list[dict[str, Any]]) -> Any:
        """Return an output of the graph for a batch of one."""
        needed = SHORT if self.horizons else WINDOW
        if len(rows) < needed:
            raise ValueError(f"{len(rows)} rows: a forecast needs {needed} of one link")
        held = rows[-(WINDOW + HISTORY) :]
        window = held[-WINDOW:]
        before = WINDOW - len(window)  # rows before the link's first one: no time, no values
        telemetry = np.full((1, HISTORY + WINDOW, len(NUMERIC)), np.nan, np.float32)  # NaN: not measured, or before the first row
        for index, row in enumerate(held, start=HISTORY + WINDOW - len(held)):
            telemetry[0, index] = [row.get(name, np.nan) for name in NUMERIC]
        feed = {
            "time_s": np.array([[np.nan] * before + [row["timestamp"] for row in window]], np.float64),
            "telemetry": telemetry,
            "categories": np.array([[[row.get(name) or "" for name in CATEGORIES] for row in [{}] * before + window]], object),
        }
        return self._session.run([output], feed)[0]


def _options() -> Any:
    """Return options without the runtime's warning that an optional input is not a constant."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _raw_name(metadata: dict[str, Any], version: str) -> str:
    """Return the file name of the raw graph. Raises ValueError if it does not lie in the version's own folder."""
    if "graphs" not in metadata:  # versions of older releases name no files
        return f"bandwidth_lstm_{version}.raw.onnx"
    name: str = metadata["graphs"]["raw"]["file"]
    if Path(name).name != name:
        raise ValueError(f"{version} names {name[:80]!r} as its raw graph, which is not a file name; do not use this version")
    return name


def show(live: LiveModel, rows: list[dict[str, Any]]) -> None:
    """Print the forecast of the next row, and a line for each horizon."""
    print(live.version, json.dumps(live.forecast(rows)), flush=True)
    for horizon, forecast in live.forecast_ahead(rows).items():
        print(live.version, f"+{horizon}", json.dumps(forecast), flush=True)


def main(models: Path, telemetry: Path, follow: bool) -> None:
    """Print the forecasts, and with `follow` those by each new version."""
    live = LiveModel(models)
    rows = [json.loads(line) for line in telemetry.read_text().splitlines()]
    show(live, rows)
    while follow:
        time.sleep(2)
        try:
            if live.refresh():
                show(live, rows)
        except (OSError, ValueError) as error:  # forecasts go on with the version that is loaded
            print(error, flush=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", type=Path)
    options.add_argument("telemetry", type=Path)
    options.add_argument("--follow", action="store_true")
    main(**vars(options.parse_args()))
