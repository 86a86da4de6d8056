"""Reasons why a replay judged no forecast, for a person, in place of a table of dashes."""

from __future__ import annotations

from dataclasses import dataclass

from features.definition import WINDOW_ROWS


@dataclass(frozen=True)
class Found:
    """Facts about a replay that judged nothing.

    Args:
        consumed: records read.
        accepted: records that became rows.
        links: links with rows.
        longest_run: most rows without a gap that any link had at the end.
        merged: the file was read as one series.
        trains: versions may be trained.
        rows: rows in the training buffer.
        rows_min: rows that the first version needs.
        version: the live version at the end.
        published: versions of this replay.
        failed: problems of trainings that failed.
        refused: reasons for which candidates were refused.
        unusable: why the live version makes no forecasts.
    """

    consumed: int
    accepted: int
    links: int
    longest_run: int
    merged: bool
    trains: bool
    rows: int
    rows_min: int
    version: str | None
    published: tuple[str, ...]
    failed: tuple[str, ...]
    refused: tuple[str, ...]
    unusable: str | None


def why_nothing(found: Found) -> list[str]:
    """Return the reasons, each with what to do, the most basic one first."""
    if not found.accepted:
        return [f"none of the {found.consumed:,} records was accepted" + ("; see why they were rejected" if found.consumed else "")]
    return [*_links(found), *(_version(found) if found.version is None else _forecasts(found))]


def _links(found: Found) -> list[str]:
    if found.longest_run > WINDOW_ROWS:
        return []
    many = not found.merged and found.links > 1
    links = f"each of the {found.links:,} links has" if many else "the one series has" if found.merged else "the one link has"
    todo = "; --merged reads the file as one series" if many else ""
    needed = f"a forecast needs {WINDOW_ROWS} rows of its link without a gap, and one more to be judged on"
    return [f"{links} at most {_rows(found.longest_run)} without a gap in the end, and {needed}{todo}"]


def _version(found: Found) -> list[str]:
    if not found.trains:
        return ["there is no version to forecast with, and --no-train trains none: leave it out, or --keep a folder with a version"]
    if found.failed or found.refused:
        reasons = dict.fromkeys((*found.failed, *found.refused))  # a retry fails for the same reason
        return [f"there is no version: its training gave none: {reason}" for reason in reasons]
    if found.rows < found.rows_min:
        return [f"there is no version: the first is trained on {_rows(found.rows_min)} (training.rows_min), and there were {found.rows:,}"]
    return ["there is no version: the recording ended before a training could start; a longer one is needed"]


def _forecasts(found: Found) -> list[str]:
    if found.unusable is not None:
        return [found.unusable]
    if found.version in found.published:
        return [
            f"version {found.version} was live only after the last rows that it could have been judged on; a longer recording is needed"
        ]
    return [f"no forecast of version {found.version} met a row of its link that measures throughput, delay, loss or jitter"]


def _rows(count: int) -> str:
    return f"{count:,} row" + ("" if count == 1 else "s")
