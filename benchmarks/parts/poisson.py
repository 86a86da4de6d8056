"""How large a rate may be of which few events were counted."""

from __future__ import annotations

from scipy.stats import chi2


def upper95(count: int) -> float:
    """Return the largest mean of a Poisson count for which this count or less comes in 5 % of cases (one-sided)."""
    return float(chi2.ppf(0.95, 2 * count + 2) / 2)
