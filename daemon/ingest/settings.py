"""Settings that the pipelines of all partitions share."""

from __future__ import annotations

from dataclasses import dataclass

from drift.link.monitored import MonitoringPolicy
from drift.link.sensitivity import Sensitivity
from features.local_time import UTC, LocalTime
from features.vocabulary import MAX_VALUES


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """Settings of the stages of ingestion.

    Args:
        link_key: columns that identify a link.
        gap_multiple: a gap longer than this many usual intervals restarts a link's window.
        links_max: most links of one partition.
        watch: which links are monitored.
        lateness_s: how far links may lag behind each other in event time, seconds.
        names_max: most values of one category that a partition distinguishes at a time.
        local_time: time zones and holidays of the regions.
    """

    link_key: tuple[str, ...]
    gap_multiple: float
    links_max: int
    watch: MonitoringPolicy
    sensitivity: Sensitivity
    lateness_s: float
    names_max: int = MAX_VALUES
    local_time: LocalTime = UTC
