"""Order of a category's names by worth, used if there are more names than codes. Names of many links come first, so that a single sender of
many names cannot displace them.
"""

from __future__ import annotations

import numpy as np

from features.telemetry import Ints, Longs


def by_worth(codes: Ints, link: Ints, names: int) -> Longs:
    """Return the codes of all names, the most valuable first.

    A name ranks as it does for its best link: the most frequent name of any link comes before the second of any other, so that a link
    of ever new names gets no more than every other link. Among equals the names of more links come first, then those of more rows.

    Args:
        codes: int32 (N,), the name of each row, -1 if missing.
        link: int32 (N,), its link.
        names: K, how many names there are.

    Returns:
        int64 (K,), a permutation of 0 to K - 1.
    """
    there = codes >= 0
    codes, link = codes[there], link[there]
    pairs, count = np.unique(link.astype(np.int64) * max(1, names) + codes, return_counts=True)
    of_link, name = np.divmod(pairs, max(1, names))
    order = np.lexsort((name, -count, of_link))
    begins = np.searchsorted(of_link[order], of_link[order], side="left")
    place = np.full(names, np.iinfo(np.int64).max, np.int64)
    np.minimum.at(place, name[order], np.arange(len(order)) - begins)
    links, rows = np.bincount(name, minlength=names), np.bincount(codes, minlength=names)
    return np.lexsort((-rows, -links, place))
