"""Checkpoints of older releases, brought up to date. tests/states has a state directory of each version."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift.link.stage import LinkDrift
from drift.region.policy import QuorumPolicy
from features.event_time import EventTime
from features.memory import empty_memory
from features.telemetry import TARGETS
from features.timeline import PAUSES
from model.judge.outlook import Outlook
from model.judge.probation import Probation
from streams.source import ONLY_LOG


def migrated(version: int, document: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the state of a partition as this release writes it.

    1 to 2: links can be evicted. It was not written down which were seen last, so those that came first count as the oldest. The first
    releases did not distinguish a topic from a later one of the same name. The clock is read anew before the next record.
    2 to 3: other detectors. They know nothing of what the older ones have seen, so every monitored link calibrates anew.
    4 to 5: names can be forgotten, and event time follows the bulk of the links. It was not written down which names were seen last, so
    those that came first count as the oldest; no jump of event time is under way.
    5 to 6: links remember their level, spread and profile of the day, and their pauses. They begin with nothing, as a new link does. No
    forecast further ahead is under way.
    6 to 7: residuals come in standard deviations of their forecasts' intervals, and levels are watched. The detectors of the network know
    nothing of that, so every monitored link calibrates anew; those of the data go on.
    7 to 8: what is published is a mixture, which has learnt nothing yet; no version is on probation. Forecasts under way and calibrations
    stay.

    Args:
        version: schema version of the checkpoint.
        document, arrays: as the checkpoint has them.
    """
    if version < 2:
        links = len(document["keys"])
        document = {"log": asdict(ONLY_LOG), "evicted_through_s": -math.inf, "clock_s": None} | document
        arrays = arrays | {"store_last_offset": np.full(links, -1, np.int64)}
    if version < 3 and "drift" in document:
        drift = LinkDrift(document["drift"]["epoch"])
        drift.make_room(len(document["watch_regions"]))
        document, arrays = document | {"drift": drift.document()}, arrays | drift.arrays()
    if version < 5:
        event_time, names = EventTime(), sum(len(values) for values in document["values"])
        document = event_time.document() | document
        arrays = arrays | event_time.arrays(len(document["keys"])) | {"store_names": np.tile(np.array([-1, 0], np.int64), (names, 1))}
    if version < 6:
        links = len(document["keys"])
        arrays = arrays | {f"store_{name}": array for name, array in empty_memory(links).items()}
        arrays = arrays | {"store_pauses": np.zeros((links, PAUSES), np.float32), "store_pause_ages": np.zeros((links, PAUSES), np.uint8)}
        outlook = Outlook()  # the live version is of an earlier release, and forecasts only the next row
        outlook.begin((), None, len(document.get("watch_regions", ())))
        document, arrays = document | outlook.state(), arrays | outlook.arrays()
    if version < 7 and "drift" in document:
        links = len(document["watch_regions"])
        drift = LinkDrift(document["drift"]["epoch"])
        drift.make_room(len(document["drift"]["adwin"]))  # links that were judged: it grows with them
        arrays = drift.arrays() | {"sides": np.full((links, len(TARGETS), 2), np.nan, np.float32)} | _without_residuals(arrays)
        document = document | {"drift": drift.document()}
    if version < 8 and "outlook_under_way" in arrays and "outlook_weights" not in arrays:
        links, horizons = arrays["outlook_under_way"].shape[:2]
        arrays = arrays | Outlook.empty_mixture(links, horizons, len(document["outlook_groups"]))
    if version < 8:
        probation = Probation()
        probation.extend(len(document.get("watch_regions", ())))
        document, arrays = document | probation.state(), arrays | probation.arrays()
    return document, arrays


def _without_residuals(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a checkpoint without those of detectors that see residuals in the metrics' units."""
    return {name: array for name, array in arrays.items() if name not in ("drift_kept", "drift_slow", "drift_seen_s")}


def migrated_process(version: int, document: dict[str, Any]) -> dict[str, Any]:
    """Return the state of the region stage and of training as this release writes it.

    2 to 3: open incidents stay open; which links were affected is not known any more.
    3 to 4: it was not written down how far links have recovered: open incidents wait for all of them, or for their time to settle.
    """
    if not document.get("regions"):
        return document
    if version >= 3:
        return document | {"regions": _without_recovery(document["regions"])} if version < 4 else document
    old, window_s = document["regions"], QuorumPolicy().window_s
    epoch = max((region["epoch"] for region in old["regions"].values()), default=0)
    regions = {
        name: {
            "watched": {link: at_s + window_s for link, at_s in region["watched"].items()},
            "alarms": [],
            "incidents": [_migrated_incident(region["incident"])] if region["incident"] else [],
            "links": [],
            "aftermath": [],
            "seen_s": max(region["watched"].values(), default=-math.inf),
        }
        for name, region in old["regions"].items()
    }
    stages = {"closed_through": old["closed_through"], "late": old["late"], "epoch": epoch, "buckets": [], "regions": regions}
    stages |= {"opened_s": [], "fleets": []}
    return document | {"regions": stages}


def _without_recovery(old: dict[str, Any]) -> dict[str, Any]:
    def incident(stored: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in stored.items() if name != "recovered"} | {"back": [], "told_of": []}

    regions = {
        name: {field: value for field, value in region.items() if field != "expected"}
        | {
            "incidents": [incident(one) for one in region["incidents"]],
            "links": [[link, incident(one)] for link, one in region["links"]],
            "aftermath": [],
        }
        for name, region in old["regions"].items()
    }
    fleets = [incident(old["fleet"])] if old["fleet"] is not None else []
    return {name: value for name, value in old.items() if name != "fleet"} | {"regions": regions, "fleets": fleets}


def _migrated_incident(old: dict[str, Any]) -> dict[str, Any]:
    same = {name: old[name] for name in ("id", "region", "opened_s", "evidence_s", "sequence", "watched")}
    new = {
        "scope": "region",
        "group": "network",
        "quiet_s": QuorumPolicy().quiet_s,
        "told": old["affected"],
        "evidence": [],
        "back": [],
        "told_of": [],
    }
    return same | new
