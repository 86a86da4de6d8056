"""What checkpoints of older releases hold of a partition, brought up to date. tests/states has a state directory of each version."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.source import ONLY_LOG


def migrated(version: int, document: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """document, arrays: of a partition, as a checkpoint of schema `version` has them. Gives them as this release writes them.

    1 to 2: links can be evicted. Nobody wrote down which were seen last, so those that came first count as the oldest; and the first
    releases did not tell a topic from another one of its name. The clock is read anew before the next record.
    """
    if version < 2:
        links = len(document["keys"])
        document = {"log": asdict(ONLY_LOG), "evicted_through_s": -math.inf, "clock_s": None} | document
        arrays = arrays | {"store_last_offset": np.full(links, -1, np.int64)}
    return document, arrays
