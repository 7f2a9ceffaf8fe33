"""Error and rank metrics of estimates against measured values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def rmse(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Root mean squared error, in the unit of the values."""
    return float(np.sqrt(np.mean((np.asarray(predicted, float) - np.asarray(actual, float)) ** 2)))


def mape(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Mean absolute percentage error, in percent of the actual values."""
    actual = np.asarray(actual, float)
    return float(100 * np.mean(np.abs(np.asarray(predicted, float) - actual) / actual))


def kendall_tau(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Kendall's tau-b; 0 where one side is constant."""
    from scipy.stats import kendalltau  # takes half a second; loading a table does not need it

    return _rank(kendalltau(predicted, actual).statistic)


def spearman(predicted: ArrayLike, actual: ArrayLike) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    from scipy.stats import spearmanr

    if np.ptp(np.asarray(predicted, float)) == 0 or np.ptp(np.asarray(actual, float)) == 0:
        return 0.0
    return _rank(spearmanr(predicted, actual).statistic)


def _rank(value: float) -> float:
    return 0.0 if np.isnan(value) else float(value)
