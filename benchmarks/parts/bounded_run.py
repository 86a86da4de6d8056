"""Sequences through the three graphs of versions, and forecasts that are not finite, impossible, or over their multiple."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.telemetry import TARGETS, Doubles, Floats
from harness import answer, job_of, say
from model.version.metadata import Metadata, core_name, int8_name, raw_name
from model.version.possible import unscaled
from model.version.predictor import core_session, raw_session, read_graph, run_core
from model.version.raw_windows import RawWindows, features_of
from parts.bounded_rows import sequences, shown

BATCH: Final = 64
GRAPHS: Final = ("core", "raw", "int8")
COUNTS: Final = ("not_finite", "impossible", "over_multiple", "not_missing")
ROUNDING: Final = 2e-5
"""Share of a limit, and of a target's mean, by which float32 may round a scaled forecast."""
SAID_EVERY: Final = 50_000


@dataclass(frozen=True, eq=False)
class Version:
    """The graphs of a version, run as a consumer runs them: no code of this project bounds their outputs."""

    metadata: Metadata
    sessions: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Version:
        metadata = Metadata.read(folder)
        paths = [folder / name(metadata.version) for name in (core_name, raw_name, int8_name)]
        return cls(
            metadata,
            {"core": core_session(read_graph(paths[0]))}
            | {name: raw_session(read_graph(path)) for name, path in zip(GRAPHS[1:], paths[1:], strict=True)},
        )

    def forecasts(self, graph: str, windows: RawWindows) -> Floats:
        """Return forecasts, float32 (B, 4), in the targets' units."""
        if graph != "core":
            made: Floats = self.sessions[graph].run(None, windows.feed())[0]
            return made
        with np.errstate(over="ignore"):
            scaled = self.metadata.inputs.transform(features_of(windows, self.metadata.vocabulary))
        return unscaled(run_core(self.sessions["core"], scaled), self.metadata.outputs)

    def limits(self, windows: RawWindows) -> tuple[Doubles, Doubles]:
        """Return float64 (B, 4) twice: the lowest and highest forecast that the windows allow, by the metadata."""
        stated = self.metadata.extra["forecast_bounds"]
        slack, unshown = (np.array([stated[kind][name] for name in TARGETS]) for kind in ("slack", "unshown"))
        with np.errstate(over="ignore", invalid="ignore"):
            # A value that overflows once it is scaled counts as missing, as it does in the features.
            scaled = (windows.telemetry[:, :, : len(TARGETS)] - self.metadata.inputs.mean[:4]) / self.metadata.inputs.scale[:4]
        usable = windows.telemetry.copy()
        usable[:, :, : len(TARGETS)][~np.isfinite(scaled) | (scaled == 0.0)] = np.nan
        least, most = (part.astype(np.float64) for part in shown(RawWindows(windows.time_s, usable, windows.categories)))
        # A target that never varied in training is 0 once it is scaled: what the network is shown is only what differs from that value.
        constant, none = ~self.metadata.outputs.fitted, np.isnan(most)
        highest = np.where(none, unshown, np.maximum(stated["multiple"] * most, np.where(constant, np.maximum(slack, unshown), slack)))
        lowest = np.where(none | constant, 0.0, least / stated["multiple"])
        return lowest, highest


def faults(version: Version, graph: str, windows: RawWindows, lowest: Doubles, highest: Doubles) -> dict[str, Any]:
    """Return bool (B, 4) for each of COUNTS."""
    made = version.forecasts(graph, windows).astype(np.float64)
    measured, mean = version.metadata.measured, np.abs(version.metadata.outputs.mean.astype(np.float64))
    top = np.array([1.0 if name == "packet_loss" else np.inf for name in TARGETS])
    spare = ROUNDING * mean
    with np.errstate(invalid="ignore"):
        outside = (made > np.minimum(highest, 1e37) * (1 + ROUNDING) + spare) | (made < np.minimum(lowest, 1e36) * (1 - ROUNDING) - spare)
        return {
            "not_finite": measured & ~np.isfinite(made),
            "impossible": measured & ((made < 0.0) | (made > top)),
            "over_multiple": measured & outside,
            "not_missing": np.broadcast_to(~measured, made.shape) & ~np.isnan(made),
        }


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run sequences. The first one with a fault is part of the result."""
    root, rng = Path(job["root"]), np.random.default_rng(job["seed"])
    versions = [Version.load(root / name) for name in job["versions"]]
    counts = {graph: dict.fromkeys(COUNTS, 0) for graph in GRAPHS}
    done, first, said = 0, None, 0
    while done < job["sequences"]:
        windows = sequences(BATCH, rng)
        version = versions[done // BATCH % len(versions)]
        limits = version.limits(windows)
        for graph in GRAPHS:
            for kind, flags in faults(version, graph, windows, *limits).items():
                counts[graph][kind] += int(flags.any(axis=1).sum())
                if first is None and flags.any():
                    first = _shown(version, graph, kind, windows, flags, limits)
        done += BATCH
        if done - said >= SAID_EVERY:
            said = done
            say(f"{done:,} sequences: {counts}")
    return {"sequences": done, "counts": counts, "first": first}


def _shown(version: Version, graph: str, kind: str, windows: RawWindows, flags: Any, limits: tuple[Doubles, Doubles]) -> str:
    row, target = (int(at) for at in np.argwhere(flags)[0])
    value = version.forecasts(graph, windows)[row, target]
    values = windows.telemetry[row, :, target].tolist()
    lowest, highest = (float(part[row, target]) for part in limits)
    return f"{version.metadata.version} {graph} {kind}: {TARGETS[target]} {value} of {lowest:g} to {highest:g} after {values}"


if __name__ == "__main__":
    answer(run(job_of(sys.argv)))
