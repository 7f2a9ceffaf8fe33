"""What the MLP is compared with: linear regression and a random forest on the same features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV

from ofa.metrics import kendall_tau, rmse, spearman

Regressor = Callable[[NDArray[np.float32]], NDArray[np.float64]]
NUM_TREES = 200


def fit_baselines(
    features: NDArray[np.float32], top1: NDArray[np.float64], seed: int
) -> dict[str, Regressor]:
    """Return fitted regressors by name: ridge (strength by leave-one-out) and random forest.

    Args:
        features: `SearchSpace.encode` rows, shape (n, num_features).
        top1: fractions, shape (n,).
        seed: of the forest.
    """
    ridge = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(features, top1)
    forest = RandomForestRegressor(NUM_TREES, random_state=seed).fit(features, top1)
    return {"ridge": ridge.predict, "random forest": forest.predict}


def accuracy_metrics(predicted: NDArray[np.float64], top1: NDArray[np.float64]) -> dict[str, float]:
    """Return RMSE in percentage points of top-1, Kendall's tau and Spearman's rho of fractions (n,)."""
    return {
        "rmse_points": 100 * rmse(predicted, top1),
        "kendall_tau": kendall_tau(predicted, top1),
        "spearman": spearman(predicted, top1),
    }
