"""Bias and spread of a latency estimator near the limit, fitted to measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.result.verification import VerifiedNetwork

FIT_RANGE = 0.25
"""The correction is fitted to networks whose measured value is within this share of the limit."""

FIRST_SPREAD = 0.03
MIN_SPREAD, MAX_SPREAD = 0.01, 0.06
MIN_MARGIN, MAX_MARGIN = 0.005, 0.05
MARGIN_DEVIATIONS = 2.5
LATER_PROCESSES = 5
"""The margin covers the median of this many processes at a later time."""

_MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation."""

_MEDIAN_VARIANCE = math.pi / 2
"""Variance of a median of many normal values in units of the variance of their mean."""


@dataclass(frozen=True)
class Correction:
    """Measured = scale * predicted, up to a relative standard deviation of `spread`."""

    scale: float = 1.0
    spread: float = FIRST_SPREAD


def fit_correction(networks: Sequence[VerifiedNetwork], maximum: float) -> Correction:
    """Return the correction of an estimator near `maximum`.

    The scale is the median of measured / predicted; the median is robust against a disturbed measurement. An
    additional offset cannot be identified, because all candidates of a search are close to the limit. The fit
    uses networks found by the search, because a search is biased towards networks that its estimator
    underestimates.

    Args:
        networks: measured networks; those within `FIT_RANGE` of the maximum count, or all if there are none.
        maximum: maximum of the limit.
    """
    if not networks:
        return Correction()
    near_networks = [n for n in networks if abs(n.measured / maximum - 1) <= FIT_RANGE] or networks
    logs = np.log([n.measured / n.predicted for n in near_networks])
    centre = float(np.median(logs))
    if len(near_networks) < 3:
        return Correction(math.exp(centre))
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(logs - centre)))
    return Correction(math.exp(centre), min(max(spread, MIN_SPREAD), MAX_SPREAD))


def fit_margin(networks: Sequence[VerifiedNetwork]) -> float:
    """Return the share by which a later measurement of a network may exceed the existing one.

    Computed from the deviations of single processes from their network's median, relative to it:
    `MARGIN_DEVIATIONS` standard deviations of the difference between that median and one of `LATER_PROCESSES`
    processes.
    """
    deviations, sizes = [], []
    for values in (values for network in networks for values in network.measurements):
        centre = statistics.median(values)
        # With an odd number of processes one of them is the median itself and carries no information.
        distances = sorted(abs(value / centre - 1) for value in values)[len(values) % 2 :]
        deviations += distances
        sizes.append(len(values))
    if not deviations:
        return MAX_MARGIN / 2
    sigma = _MAD_TO_SIGMA * statistics.median(deviations)
    difference = sigma * math.sqrt(_MEDIAN_VARIANCE * (1 / statistics.median(sizes) + 1 / LATER_PROCESSES))
    return min(max(MARGIN_DEVIATIONS * difference, MIN_MARGIN), MAX_MARGIN)
