"""Memory: bytes per link at 1,000, 10,000 and 100,000 links, and the daemon's resident memory at 10,000.

    make bench-memory        (or: python benchmarks/memory.py --quick)

Each size is a daemon process of its own with a live model of the real size. It reads 40 rows a link from Apache Kafka and makes every
forecast. Then a checkpoint seals the open rows, garbage is collected, and freed memory goes back to the system. Bytes per link are its
memory then, minus that of the same process for one link, divided by the links.
"""

from __future__ import annotations

import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any, Final

from harness import Bar, arguments, in_process, report, say
from parts.stream import broker, fleet, write_topic

ROWS: Final = 40
"""Rows of each link, more than the 39 of its ring."""
SIZES: Final = (1, 1_000, 10_000, 100_000)
NEVER_SHED: Final = 2**62
DETECTOR_LINKS: Final = 1000
DETECTOR_ROWS: Final = 1_440
"""Rows of a detector: a day at one row a minute."""


def measure(folder: Path, sizes: tuple[int, ...], detector_rows: int) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    """Return the memory for each size, and of the detectors of a monitored link after a day."""
    models = str(folder / "models")
    in_process("parts.version", {"models": models})
    found = {}
    with broker() as kafka:
        for links in sizes:
            topic = f"links-{links}"
            written = write_topic(fleet(links), ROWS, kafka.bootstrap, topic)
            job = {"bootstrap": kafka.bootstrap, "topic": topic, "group": uuid.uuid4().hex, "records": written.records, "models": models}
            found[links] = in_process("parts.daemon_memory", job | {"shed_above_lag": NEVER_SHED})
            say(f"{links:>7,} links: {found[links]['resident_bytes'] / 1e6:,.0f} MB, peak {found[links]['peak_bytes'] / 1e6:,.0f} MB")
    return found, in_process("parts.detector_memory", {"links": DETECTOR_LINKS, "rows": detector_rows})


def figures(found: dict[int, dict[str, Any]], detectors: dict[str, Any]) -> dict[str, Any]:
    """Return the figures. The smallest size is the base of the others."""
    sizes = sorted(found)
    base, more = sizes[0], sizes[1:]
    return {
        "rows_per_link": ROWS,
        "bytes_per_link": {str(links): bytes_per_link(found, base, links) for links in more},
        "resident_mb": {str(links): found[links]["resident_bytes"] / 1e6 for links in sizes},
        "peak_mb": {str(links): found[links]["peak_bytes"] / 1e6 for links in sizes},
        "peak_mb_before_the_checkpoint": {str(links): found[links]["peak_before_checkpoint_bytes"] / 1e6 for links in sizes},
        "watched_links": {str(links): found[links]["watched_links"] for links in sizes},
        "forecasts": {str(links): found[links]["forecasts"] for links in sizes},
        "detector_bytes_per_watched_link_after_a_day": detectors["bytes_per_watched_link"],
    }


def bytes_per_link(found: dict[int, dict[str, Any]], base: int, links: int) -> float:
    """Return what `links` links hold more than `base` links, divided by `links`."""
    return float(found[links]["resident_bytes"] - found[base]["resident_bytes"]) / links


def main() -> int:
    options = arguments(__doc__)
    sizes = SIZES[:3] if options.quick else SIZES
    with tempfile.TemporaryDirectory(prefix="dwcp-bench-") as name:
        found, detectors = measure(Path(name), sizes, 200 if options.quick else DETECTOR_ROWS)
    largest = bytes_per_link(found, 1, 100_000) if 100_000 in found else None
    bars = [
        Bar("bytes_per_link_100k", largest, "<=", 6_000),
        Bar("rss_mb_10k", found[10_000]["resident_bytes"] / 1e6, "<=", 400),
    ]
    return report("memory", figures(found, detectors), bars)


if __name__ == "__main__":
    sys.exit(main())
