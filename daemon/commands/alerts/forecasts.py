"""What a published version forecast for rows of the training buffer, each from the rows before it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from daemon.config.load import Config
from daemon.config.usable import local_time_of
from features.offline import RawTable, compute, empty_row
from features.telemetry import TARGETS, Floats
from model.registry.versions import Registry, RegistryError
from model.version.metadata import VERSION_FORMAT
from model.version.predictor import Predictor, PredictorError
from model.windows.index import build_windows, gather


def version_at(registry: Registry, time_s: float) -> str | None:
    """Return the newest published version whose training began by a time (UTC seconds); None if there is none. Names sort by that time."""
    latest = datetime.fromtimestamp(time_s, UTC).strftime(VERSION_FORMAT)
    return max((version for version in registry.published() if version <= latest), default=None)


def forecasts_for(table: RawTable, registry: Registry, time_s: float, config: Config) -> tuple[str | None, Floats]:
    """Return the version that was live at a time (UTC seconds), and what it forecast for each of N rows.

    Profiles of the day begin with the table, so forecasts of its first day are those for a link that is new.

    Returns:
        Its name, None if there was none or it cannot be read; and float32 (N, 4), in the targets' units, NaN if not forecast.
    """
    found = np.full((len(table), len(TARGETS)), np.nan, np.float32)
    try:
        version = version_at(registry, time_s)
        if version is None:
            return None, found
        predictor = Predictor.load(registry.folder(version), digests=registry.trusted_digests(version))
    except (RegistryError, PredictorError, OSError):
        return None, found
    local_time = local_time_of(config).local_time()
    features = compute(table, predictor.vocabulary, config.links.gap_multiple, predictor.horizons, local_time)
    index = build_windows(features, table, horizons=predictor.horizons)
    for part in index.parts(1024):
        windows = gather(features.features, part.end, begin=part.begin, empty=empty_row())
        found[part.target_row] = predictor.predict(windows, features.context[part.end] if predictor.horizons else None)
    return version, found
