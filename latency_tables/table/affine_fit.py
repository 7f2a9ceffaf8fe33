"""`fit_affine`: the line from sums of entries to latencies; `fit_cold_share`: which sums fit best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_COLD_SHARES = tuple(share / 20 for share in range(21))


def fit_affine(
    sums_ms: Sequence[float], measured_ms: Sequence[float], smallest_sum_ms: float = math.inf
) -> tuple[float, float]:
    """Return scale and offset of the line from sums to measurements with the least squared relative errors.

    If noise permits no line that rises and is positive at every sum that occurs (or all sums are equal), the
    ratio of the means without offset.

    Args:
        sums_ms: sum of the entries of each measured network.
        measured_ms: latency of each.
        smallest_sum_ms: smallest sum of the networks whose latency will be asked for.
    """
    sums, measurements = np.asarray(sums_ms, float), np.asarray(measured_ms, float)
    weights = measurements**-2
    weights /= weights.sum()
    mean_sum, mean_measured = float(weights @ sums), float(weights @ measurements)
    variance = float(weights @ (sums - mean_sum) ** 2)
    scale = float(weights @ ((sums - mean_sum) * measurements)) / variance if variance > 0 else 0.0
    offset = mean_measured - scale * mean_sum
    if scale <= 0 or scale * min(smallest_sum_ms, *sums_ms) + offset <= 0:
        return mean_measured / mean_sum, 0.0
    return scale, offset


def fit_cold_share(
    warm_sums_ms: Sequence[float], cold_sums_ms: Sequence[float], measured_ms: Sequence[float]
) -> float:
    """Return the share of the difference between cold and warm sums that networks pay, from 0 to 1.

    It is that of the calibrated sums with the least squared relative errors.

    Args:
        warm_sums_ms: sum of the entries of each network where weights are in a near cache.
        cold_sums_ms: the same where they come from further away.
        measured_ms: latency of each network.
    """
    warm, cold, measured = (np.asarray(v, float) for v in (warm_sums_ms, cold_sums_ms, measured_ms))
    errors = []
    for share in _COLD_SHARES:
        sums = warm + share * (cold - warm)
        scale, offset = fit_affine(sums.tolist(), measured_ms)
        errors.append(float(np.sum(((scale * sums + offset) / measured - 1) ** 2)))
    return _COLD_SHARES[int(np.argmin(errors))]
