"""model_metadata_<version>.json: everything that a core graph needs to forecast in engineering units, and the declarations of the graphs.

This file is long because its two readers, with the features of this release and without, share their rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.definition import FEATURES, WINDOW_ROWS, WINDOW_ROWS_LEAST, WINDOW_ROWS_MOST
from features.definition import VERSION as FEATURE_VERSION
from features.memory import CONTEXT_ROWS
from features.telemetry import TARGETS, Flags
from features.vocabulary import Vocabulary
from model.version.contract import AHEAD, BATCH, CONTEXT, PLACES, Declared, Port, cut
from model.version.declarations import read_graphs
from model.version.documents import DocumentError, read_document, write_document
from model.windows.scaler import Scaler

SCHEMA_VERSION: Final = 1
VERSION_FORMAT: Final = "v%Y%m%d_%H%M%S"
VERSION_PATTERN: Final = re.compile(r"v\d{8}_\d{6}", re.ASCII)
LATEST_S: Final = 1e12
"""Limit of a time, seconds: over every real time, and under the integers that a double cannot hold."""
HORIZONS_MOST: Final = 16
MOST_VERSION: Final = 2**31 - 1
"""Largest number of a schema or of features that every reader can hold."""
LSTM: Final = "lstm"
"""Encoder of versions that do not name one."""
FORECAST: Final = "forecast"
FRESH: Final = "the next training starts as a first version"
_PREFIX: Final = "model_metadata_"
_OWN: Final = frozenset(
    {
        "schema", "version", "encoder", "window_rows", "feature_version", "features", "targets", "forecast_targets", "trained_until_s",
        "scaler_params", "vocabularies", "graphs", "forecast",
    }
)  # fmt: skip


class OtherFeaturesError(DocumentError):
    """A version forecasts from features that this release does not compute. It can neither forecast here nor be continued."""


def core_name(version: str, encoder: str = LSTM) -> str:
    """Return the file name of the graph from scaled windows to scaled forecasts, as the export names it; readers look it up."""
    return f"bandwidth_{encoder}_{version}.onnx"


def raw_name(version: str, encoder: str = LSTM) -> str:
    """Return the file name of the graph from raw telemetry to the targets' units, as the export names it."""
    return f"bandwidth_{encoder}_{version}.raw.onnx"


def int8_name(version: str, encoder: str = LSTM) -> str:
    """Return the file name of the quantised raw graph, as the export names it."""
    return f"bandwidth_{encoder}_{version}.int8.onnx"


def undeclared_graphs(version: str) -> dict[str, Declared]:
    """Return the declarations for a version of a release that wrote none: LSTM layers, and file names that follow from the version's."""
    return {
        "core": Declared(core_name(version), {"LSTM": 1}),
        "raw": Declared(raw_name(version), {"LSTM": 1}),
        "int8": Declared(int8_name(version), {"DynamicQuantizeLSTM": 1}),
    }


def metadata_name(version: str) -> str:
    """Return the file name of a version's metadata."""
    return f"{_PREFIX}{version}.json"


def history_name(version: str) -> str:
    """Return the file name of the course of a version's training."""
    return f"training_history_{version}.json"


@dataclass(frozen=True, eq=False, slots=True)
class Metadata:
    """Data that a version needs beside its graphs, and its declarations of them.

    inputs: scaler of the 44 features. outputs: scaler of the 4 targets. vocabulary: codes of the categories.
    trained_until_s: UTC seconds of the newest row trained on; None if that is not known.
    measured: bool (4,), the targets that the version forecasts; the others were never measured in its training, and are missing.
    extra: further entries of the document, for its readers; none of them is needed to forecast.
    horizons: rows ahead that it forecasts, ascending from 1; empty: only the next row.
    coverage: share of what is measured that lay between lower and upper forecast on its validation windows; None without horizons.
    encoder: name of the network's encoder. graphs: the version's declarations of its graphs, by kind; empty: none, see `graph`.
    """

    version: str
    inputs: Scaler
    outputs: Scaler
    vocabulary: Vocabulary
    trained_until_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    window_rows: int = WINDOW_ROWS
    measured: Flags = field(default_factory=lambda: np.ones(len(TARGETS), np.bool_))
    encoder: str = LSTM
    graphs: Mapping[str, Declared] = field(default_factory=dict)
    horizons: tuple[int, ...] = ()
    coverage: float | None = None

    def graph(self, kind: str) -> Declared:
        """Return the declaration of the "core", "raw" or "int8" graph."""
        return self.graphs.get(kind) or undeclared_graphs(self.version)[kind]

    @property
    def forecast_targets(self) -> tuple[str, ...]:
        """Names of the measured targets."""
        return tuple(name for name, measured in zip(TARGETS, self.measured, strict=True) if measured)

    def write(self, folder: Path) -> Path:
        """Write model_metadata_<version>.json into the folder and return its path."""
        path = folder / metadata_name(self.version)
        write_document(
            path,
            {
                **self.extra,
                "schema": SCHEMA_VERSION,
                "version": self.version,
                "window_rows": self.window_rows,
                "feature_version": FEATURE_VERSION,
                "features": list(FEATURES),
                "targets": list(TARGETS),
                "forecast_targets": list(self.forecast_targets),
                "trained_until_s": self.trained_until_s,
                "scaler_params": {
                    "X_mean": self.inputs.mean.tolist(),
                    "X_scale": self.inputs.scale.tolist(),
                    "X_fitted": self.inputs.fitted.tolist(),
                    "y_mean": self.outputs.mean.tolist(),
                    "y_scale": self.outputs.scale.tolist(),
                    "y_fitted": self.outputs.fitted.tolist(),
                },
                "vocabularies": self.vocabulary.to_json(),
                "encoder": self.encoder,
                **({FORECAST: {"horizons_rows": list(self.horizons), "coverage": self.coverage}} if self.horizons else {}),
                **({"graphs": {kind: graph.to_json() for kind, graph in self.graphs.items()}} if self.graphs else {}),
            },
        )
        return path

    @classmethod
    def read(cls, folder: Path, digests: Mapping[str, str] | None = None) -> Metadata:
        """Return the metadata of the one version in the folder.

        Args:
            folder: of the version.
            digests: SHA-256 by file name that the content must have; None: any.

        Raises:
            OtherFeaturesError: if the version reads features, or forecasts targets, that are not this release's.
            DocumentError: if there is not exactly one such file, it is of a newer release, or something in it is missing or of another
                type.
        """
        document, name = _read(folder, digests)
        try:
            return cls._from_document(document, name)
        except KeyError as error:
            raise DocumentError(f"{name} has no {error}") from error

    @classmethod
    def _from_document(cls, document: dict[str, Any], name: str) -> Metadata:
        _require_readable(document, name)
        version, until_s, scalers = document["version"], document["trained_until_s"], document["scaler_params"]
        if (found := _number(document.get("feature_version", 1), "feature_version", name)) != FEATURE_VERSION:
            raise OtherFeaturesError(f"{name} is of features of version {found}, this release computes version {FEATURE_VERSION}; {FRESH}")
        for key, known in (("features", FEATURES), ("targets", TARGETS)):
            if document[key] != list(known):
                raise OtherFeaturesError(f"{name} has other {key} than this release computes: {_difference(document[key], known)}; {FRESH}")
        window_rows = _window_rows(document, name)
        timed = until_s is None or (isinstance(until_s, int | float) and not isinstance(until_s, bool) and abs(until_s) < LATEST_S)
        if not timed or not isinstance(scalers, dict):
            raise DocumentError(f"{name}: trained_until_s is not a time, or scaler_params not an object")
        try:
            vocabulary = Vocabulary.from_json(document["vocabularies"])
        except ValueError as error:
            raise DocumentError(f"{name}: {error}") from error
        outputs = _scaler(scalers, "y", len(TARGETS), name)
        return cls(
            version=version,
            inputs=_scaler(scalers, "X", len(FEATURES), name),
            outputs=outputs,
            vocabulary=vocabulary,
            trained_until_s=until_s,
            window_rows=window_rows,
            measured=_measured(document, outputs, name),
            encoder=document.get("encoder", LSTM),
            graphs=(graphs := _graphs(document, name)),
            horizons=(ahead := _ahead(document, graphs, name))[0],
            coverage=ahead[1],
            extra={key: value for key, value in document.items() if key not in _OWN},
        )


@dataclass(frozen=True, eq=False, slots=True)
class RawMetadata:
    """What whoever runs a raw graph needs of a version, as the Go client reads it.

    The features are inside the graph, so that they may be those of another release.
    """

    version: str
    window_rows: int
    measured: Flags
    encoder: str
    graphs: Mapping[str, Declared]
    horizons: tuple[int, ...] = ()

    def graph(self, kind: str) -> Declared:
        """Return what is declared of the "raw" or "int8" graph."""
        return self.graphs.get(kind) or undeclared_graphs(self.version)[kind]

    @classmethod
    def read(cls, folder: Path) -> RawMetadata:
        """Return that of the one version in the folder. Raises DocumentError as `Metadata.read` does, but for other features."""
        document, name = _read(folder, None)
        try:
            _require_readable(document, name)
            _number(document.get("feature_version", 1), "feature_version", name)
            if document["targets"] != list(TARGETS):
                raise DocumentError(f"{name} has other targets than this release knows: {_difference(document['targets'], TARGETS)}")
            if not isinstance(scalers := document["scaler_params"], dict):
                raise DocumentError(f"{name}: scaler_params is not an object")
            measured = _measured(document, _scaler(scalers, "y", len(TARGETS), name), name)
            encoder, graphs = document.get("encoder", LSTM), _graphs(document, name)
            horizons, _ = _ahead(document, graphs, name)
            return cls(document["version"], _window_rows(document, name), measured, encoder, graphs, horizons)
        except KeyError as error:
            raise DocumentError(f"{name} has no {error}") from error


def _read(folder: Path, digests: Mapping[str, str] | None) -> tuple[dict[str, Any], str]:
    """Return the one document of metadata in a folder, and its file's name."""
    found = sorted(path for path in folder.glob(f"{_PREFIX}*.json"))
    if len(found) != 1:
        raise DocumentError(f"{len(found)} files {_PREFIX}*.json instead of one")
    return read_document(found[0], None if digests is None else digests.get(found[0].name, "")), found[0].name


def _require_readable(document: dict[str, Any], name: str) -> None:
    """Raise DocumentError if the document is of a newer release, or not of the version that its file is named after."""
    if (schema := _number(document["schema"], "schema", name)) > SCHEMA_VERSION:
        raise DocumentError(f"{name} was written by a newer release (schema {schema}, this one reads {SCHEMA_VERSION})")
    version = document["version"]
    if not isinstance(version, str) or not VERSION_PATTERN.fullmatch(version) or metadata_name(version) != name:
        raise DocumentError(f"{name} says version {cut(repr(version))}")
    if not isinstance(document.get("encoder", LSTM), str):
        raise DocumentError(f"{name}: encoder is not a name")


def _number(found: Any, key: str, name: str) -> int:
    """Return a version number: a whole one, which neither true nor 1.0 is."""
    if type(found) is not int or not 1 <= found <= MOST_VERSION:
        raise DocumentError(f"{name}: {key} is {cut(repr(found))}, which is not a whole number from 1")
    return found


def _window_rows(document: dict[str, Any], name: str) -> int:
    found = document["window_rows"]
    if type(found) is not int or not WINDOW_ROWS_LEAST <= found <= WINDOW_ROWS_MOST:
        possible = f"{WINDOW_ROWS_LEAST} to {WINDOW_ROWS_MOST} are possible"
        raise DocumentError(f"{name} has windows of {cut(repr(found))} rows, and {possible}")
    return found


def _graphs(document: dict[str, Any], name: str) -> dict[str, Declared]:
    """Return the declaration of each graph. Earlier releases declare nothing. Raise DocumentError if it is not valid."""
    try:
        return read_graphs(document["graphs"]) if "graphs" in document else {}
    except ValueError as error:
        raise DocumentError(f"{name}: {error}") from error


def _ahead(document: dict[str, Any], graphs: Mapping[str, Declared], name: str) -> tuple[tuple[int, ...], float | None]:
    """Return horizons and coverage. Raise DocumentError if they are not valid, or if a graph lacks what they need."""
    entry = document.get(FORECAST)
    if entry is None:
        return (), None
    found: tuple[Any, Any] = (entry.get("horizons_rows"), entry.get("coverage")) if isinstance(entry, dict) else (None, None)
    rows, coverage = found
    whole = isinstance(rows, list) and 1 <= len(rows) <= HORIZONS_MOST and all(type(each) is int and each <= MOST_VERSION for each in rows)
    if not whole or rows[0] != 1 or any(after <= before for before, after in pairwise(rows)):
        raise DocumentError(f"{name}: {FORECAST}.horizons_rows is not a list of at most {HORIZONS_MOST} rows ahead that ascend from 1")
    if type(coverage) is not float or not 0 < coverage < 1:
        raise DocumentError(f"{name}: {FORECAST}.coverage is {cut(repr(coverage))}, which is not a share between 0 and 1")
    context = Port(CONTEXT, "float32", (BATCH, len(TARGETS) * (CONTEXT_ROWS + len(rows))))
    ahead = Port(AHEAD, "float32", (BATCH, len(rows), len(TARGETS), PLACES))
    for kind, declared in graphs.items():
        if context not in declared.inputs or ahead not in declared.outputs:
            raise DocumentError(
                f"{name}: graphs.{kind} does not declare the input {context} and the output {ahead} of {len(rows)} horizons"
            )
    if not graphs:
        raise DocumentError(f"{name} has horizons and declares no graphs")
    return tuple(rows), coverage


def _scaler(params: dict[str, Any], prefix: str, columns: int, name: str) -> Scaler:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            mean, scale = (np.array(params[f"{prefix}_{part}"], np.float32) for part in ("mean", "scale"))
        fitted = np.array(params[f"{prefix}_fitted"], np.bool_)
    except (TypeError, ValueError, OverflowError) as error:
        raise DocumentError(f"{name}: the scaler {prefix} holds something that is not a number") from error
    whole = all(part.shape == (columns,) for part in (mean, scale, fitted))
    if not whole or not np.isfinite(mean).all() or not (np.isfinite(scale) & (scale > 0)).all():
        raise DocumentError(f"{name}: the scaler {prefix} needs {columns} finite means and {columns} scales over 0")
    return Scaler(mean, scale, fitted)


def _measured(document: dict[str, Any], outputs: Scaler, name: str) -> Flags:
    """Return bool (4,): the targets that the version forecasts.

    Older releases did not write them. A target that was never measured has a mean of 0 and an unfitted scale, and so has one that was
    always exactly 0. Only the former has no judged window either.
    """
    names = document.get("forecast_targets")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(each, str) and each in TARGETS for each in names):
            raise DocumentError(f"{name}: forecast_targets is not a list of some of {', '.join(TARGETS)}")
        return np.array([each in names for each in TARGETS], np.bool_)
    judged = document.get("performance_metrics")
    figures = judged.get("targets") if isinstance(judged, dict) else None
    never = np.zeros(len(TARGETS), np.bool_)
    for index, each in enumerate(TARGETS):
        entry = figures.get(each) if isinstance(figures, dict) else None
        never[index] = isinstance(entry, dict) and entry.get("windows") == 0
    return np.asarray(outputs.fitted | (outputs.mean != 0.0) | ~never, np.bool_)


def _difference(found: object, known: tuple[str, ...]) -> str:
    if not isinstance(found, list):
        return "no list"
    index = next((index for index, (a, b) in enumerate(zip(found, known, strict=False)) if a != b), min(len(found), len(known)))
    theirs, ours = (cut(str(names[index])) if index < len(names) else "nothing" for names in (found, known))
    return f"{len(found)} instead of {len(known)}, first different at {index}: {theirs} instead of {ours}"
