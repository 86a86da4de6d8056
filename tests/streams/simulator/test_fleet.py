"""Fleet specs and planted events: what is refused, and how the refusal reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streams.simulator.fleet import DEFAULT_START_S, FleetSpec, Region
from streams.simulator.planted import PlantedEvent

SPEC = FleetSpec(regions=(Region("north", 0.0), Region("far-east", 9.0)), links_per_region=10)
EVENT = PlantedEvent("step", DEFAULT_START_S, "north")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regions": ()}, "regions"),
        ({"regions": (Region("a,b", 0.0),)}, "regions"),
        ({"regions": (Region("a", 0.0), Region("a", 1.0))}, "each once"),
        ({"link_types": ("pigeon",)}, "metro, long-haul"),
        ({"links_per_region": 0}, "links_per_region"),
        ({"interval_s": float("nan")}, "interval_s"),
        ({"gap_share": 1.5}, "gap_share is 1.5"),
        ({"events": (replace(EVENT, region="moon"),)}, "'moon': the fleet has north, far-east"),
    ],
)
def test_bad_specs_are_refused_with_the_way_out(change: dict[str, Any], message: str) -> None:
    """A fleet that cannot be simulated is refused when the spec is made."""
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **change)


@pytest.mark.parametrize(
    "change",
    [{"kind": "flood"}, {"metrics": ("queue_depth",)}, {"links_share": 0.0}, {"ramp_s": 0.0}, {"duration_s": -1.0}, {"size_sd": 0.0}],
)
def test_bad_events_are_refused(change: dict[str, Any]) -> None:
    """An event that cannot be planted is refused when it is made."""
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(EVENT, **change)
