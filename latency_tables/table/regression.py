"""`fit_latencies`: latencies as a regularised, non-negative combination of columns; its cross-validation.

    latency = sum of weight * column + offset,    weights and offset >= 0

The squared relative errors are minimised. The first columns, sums of entries of other tables, are free; what
another column adds to latencies is penalised by the square of its mean share, so that without evidence the
latency is an affine map of the sums alone. The strength of the penalty is the one with the smallest
leave-one-out error.

Non-negative least squares: C. L. Lawson and R. J. Hanson, Solving Least Squares Problems, 1974, chapter 23.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError

Values = NDArray[np.float64]

STRENGTHS = (math.inf, 1e-1, 1e-2, 1e-3, 1e-11)
"""Strengths of the penalty, the strongest first: it leaves the free columns alone. The weakest decides only
between columns that are equal up to a factor."""

_EQUAL = 1e-18
"""Difference of sums of squared relative errors below which it is that of rounding."""

_MAX_ITERATIONS = 10_000
"""Exchanges of columns; a fit takes some ten."""

MAX_NETWORKS = 100
"""Most networks of a fit, whose cross-validation makes a fit for each pair of them."""


@dataclass(frozen=True)
class LatencyFit:
    """A fitted combination of columns.

    Attributes:
        weights: milliseconds per unit of each column.
        offset_ms: milliseconds of every network.
        strength: strength of the penalty.
    """

    weights: tuple[float, ...]
    offset_ms: float
    strength: float

    def predict(self, columns: Values) -> Values:
        """Return latencies (ms) of shape (n,) for columns of shape (n, num_columns)."""
        return np.asarray(columns @ np.array(self.weights) + self.offset_ms, np.float64)


def min_networks(num_free: int) -> int:
    """Return how many networks a fit needs: when two are left out, one more than there are free numbers."""
    return num_free + 4


def fit_latencies(columns: Values, num_free: int, measured_ms: Values) -> LatencyFit:
    """Return the combination of columns that fits measured latencies; see the module.

    Args:
        columns: values of each network, not negative, shape (n, num_columns).
        num_free: number of first columns that are not penalised.
        measured_ms: latency of each network, shape (n,).

    Raises:
        UserError: if there are too few networks, or too many.
    """
    check_number(len(measured_ms), num_free)
    return _best_fit(columns, measured_ms, num_free=num_free)


def left_out_ms(columns: Values, num_free: int, measured_ms: Values) -> Values:
    """Return the latency (ms) of each network by the fit to the others, the choice of the strength included.

    Raises:
        UserError: if there are too few networks, or too many.
    """
    check_number(len(measured_ms), num_free)
    return _left_out_ms(columns, measured_ms, partial(_best_fit, num_free=num_free))


def check_number(num_networks: int, num_free: int) -> None:
    """Raise `UserError` if a fit with so many free columns needs more networks, or these are too many."""
    fewest = min_networks(num_free)
    if not fewest <= num_networks <= MAX_NETWORKS:
        raise UserError(
            f"There are {num_networks} networks; expected {fewest} to {MAX_NETWORKS}: a fit with {num_free} "
            f"free column(s) and its cross-validation need {fewest}."
        )


def _best_fit(columns: Values, measured_ms: Values, *, num_free: int) -> LatencyFit:
    """Return the fit whose strength has the smallest leave-one-out error; the strongest of equals."""
    fits = [partial(_fit, num_free=num_free, strength=strength) for strength in STRENGTHS]
    errors = [np.sum((_left_out_ms(columns, measured_ms, fit) / measured_ms - 1) ** 2) for fit in fits]
    best = next(fit for fit, error in zip(fits, errors, strict=True) if error <= min(errors) + _EQUAL)
    return best(columns, measured_ms)


def _left_out_ms(columns: Values, measured_ms: Values, fit: Callable[[Values, Values], LatencyFit]) -> Values:
    """Return the prediction for each network by `fit` of the others."""
    predictions = np.empty(len(measured_ms))
    for index in range(len(measured_ms)):
        rest = np.arange(len(measured_ms)) != index
        predictions[index] = fit(columns[rest], measured_ms[rest]).predict(columns[[index]])[0]
    return predictions


def _fit(columns: Values, measured_ms: Values, *, num_free: int, strength: float) -> LatencyFit:
    """Return the fit with one strength."""
    from scipy.optimize import nnls  # takes half a second; loading a table does not need it

    num_networks, num_columns = columns.shape
    shares = columns / measured_ms[:, None]
    scales = shares.mean(0)  # A unit of the scaled problem adds all of the latency, on average.
    is_used = (scales > 0) & ((np.arange(num_columns) < num_free) | math.isfinite(strength))
    scaled = np.hstack([shares[:, is_used] / scales[is_used], 1 / measured_ms[:, None]])
    penalised = np.flatnonzero(np.flatnonzero(is_used) >= num_free)
    penalties = np.zeros((len(penalised), scaled.shape[1]))
    if len(penalised):
        penalties[np.arange(len(penalised)), penalised] = math.sqrt(strength * num_networks)
    targets = np.concatenate([np.ones(num_networks), np.zeros(len(penalised))])
    solution = nnls(np.vstack([scaled, penalties]), targets, maxiter=_MAX_ITERATIONS)[0]
    weights = np.zeros(num_columns)
    weights[is_used] = solution[:-1] / scales[is_used]
    return LatencyFit(tuple(weights.tolist()), float(solution[-1]), strength)
