"""Baselines of the predictor: scikit-learn's regressors on the same one-hot features."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor

from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.common.metrics import kendall_tau, rmse, spearman
from ofa.common.threads import blas_threads
from ofa.space.space import SearchSpace
from predictors.model.features import FeatureMap
from predictors.model.predictor import AccuracyMLP, AccuracyPredictor, PredictorInfo, TargetScale

Regressor = Callable[[NDArray[np.float32]], NDArray[np.float64]]
Fit = Callable[[NDArray[np.float32], NDArray[np.float64], int], Regressor]
NUM_TREES = 200
# A Gaussian process takes cubic time: it is fitted on at most this many records, the first ones.
GAUSSIAN_PROCESS_RECORDS = 1000


def fit_ridge(features: NDArray[np.float32], targets: NDArray[np.float64], seed: int) -> Regressor:
    """Ridge regression; its strength is chosen by leave-one-out."""
    return _predict(RidgeCV(alphas=np.logspace(-3, 3, 25)).fit(features, targets))


def fit_gaussian_process(features: NDArray[np.float32], targets: NDArray[np.float64], seed: int) -> Regressor:
    """RBF kernel and white noise; amplitude, length and noise by maximum likelihood."""
    kernel = ConstantKernel(1.0, (1e-3, 1e5)) * RBF(3.0, (1e-1, 1e3)) + WhiteKernel(0.1, (1e-6, 1e1))
    first_records = slice(GAUSSIAN_PROCESS_RECORDS)
    return _predict(
        GaussianProcessRegressor(kernel, random_state=seed).fit(
            features[first_records].astype(float), targets[first_records]
        )
    )


def fit_forest(features: NDArray[np.float32], targets: NDArray[np.float64], seed: int) -> Regressor:
    """Random forest."""
    return _predict(RandomForestRegressor(NUM_TREES, random_state=seed).fit(features, targets))


def fit_plain_mlp(features: NDArray[np.float32], targets: NDArray[np.float64], seed: int) -> Regressor:
    """Three hidden layers of 400, as in the published predictor, fitted with Adam."""
    network = MLPRegressor(
        hidden_layer_sizes=(400, 400, 400), batch_size=min(64, len(features)), max_iter=100, random_state=seed
    )
    return _predict(network.fit(features, targets))


BASELINES: dict[str, Fit] = {
    "ridge": fit_ridge,
    "gaussian process": fit_gaussian_process,
    "random forest": fit_forest,
    "plain mlp": fit_plain_mlp,
}


def fit_baseline(
    fit: Fit,
    features: NDArray[np.float32],
    values: NDArray[np.float64],
    seed: int,
    *,
    threads: int | None = 1,
) -> Regressor:
    """Return the regressor fitted by one of `BASELINES` to standardised accuracies.

    Args:
        fit: fitting function, one of `BASELINES`.
        features: `SearchSpace.encode` rows, shape (n, num_features).
        values: values of the metric, shape (n,).
        seed: seed of the regressor.
        threads: threads of linear algebra during the fit; None for the libraries' default.
    """
    mean, std = float(values.mean()), float(values.std()) or 1.0
    with warnings.catch_warnings(), blas_threads(threads):
        # Parameters at their bounds, as with equal accuracies, and an exhausted epoch limit are acceptable.
        warnings.simplefilter("ignore", ConvergenceWarning)
        predict = fit(features, (values - mean) / std, seed)
    return lambda rows: predict(rows) * std + mean


LINEAR = "ridge"
"""The baseline that can be stored: its function is a row of numbers."""

CLEAR_RMSE_RATIO = 0.9


def is_clearly_better(metrics: Mapping[str, float], reference: Mapping[str, float]) -> bool:
    """Return whether an error is lower by 10 % and Kendall's tau higher than those of `reference`."""
    is_more_exact = metrics["rmse_points"] <= CLEAR_RMSE_RATIO * reference["rmse_points"]
    return is_more_exact and metrics["kendall_tau"] > reference["kendall_tau"]


def as_predictor(
    space: SearchSpace, regressor: Regressor, deviation: float, info: PredictorInfo
) -> AccuracyPredictor:
    """Return a linear regressor as a predictor: an MLP whose hidden layer has no effect.

    Args:
        space: space of the records.
        regressor: linear function of `SearchSpace.encode` rows.
        deviation: standard deviation of measured values around the predicted ones.
        info: information stored with the predictor.
    """
    features = FeatureMap.from_space(space)
    num_rows = space.num_features
    # A linear function is known by its values at zero and at the unit vectors.
    intercept = float(regressor(np.zeros((1, num_rows), np.float32))[0])
    slopes = regressor(np.eye(num_rows, dtype=np.float32)) - intercept
    linear = np.zeros(features.num_inputs)
    linear[_encoded_columns(space)] = slopes
    num_outputs = 3  # the prediction, and two members that agree with it
    values = {
        "hidden.weight": np.zeros((1, features.num_inputs)),
        "hidden.bias": np.zeros(1),
        "linear.weight": np.tile(linear, (num_outputs, 1)),
        "head.weight": np.zeros((num_outputs, 1)),
        "head.bias": np.zeros(num_outputs),
    }
    network = AccuracyMLP.from_state({name: torch.from_numpy(value) for name, value in values.items()})
    scale = TargetScale(mean=intercept, std=1.0, noise=deviation, interval_factor=1.0)
    return AccuracyPredictor(features, network, scale, info)


def _encoded_columns(space: SearchSpace) -> NDArray[np.intp]:
    """Return the inputs of `FeatureMap` that `SearchSpace.encode` has, too, in its order."""
    counts = np.array([len(gene.choices) for gene in space.genes])
    owners = np.repeat(np.arange(len(counts)), counts)
    deciding = {governor for governor in space.governors if governor is not None}
    return np.flatnonzero(~np.isin(owners, [*deciding]))


def accuracy_metrics(
    predicted: NDArray[np.float64], values: NDArray[np.float64], metric: Metric = DEFAULT_METRIC
) -> dict[str, float]:
    """Return RMSE (of a fraction in percentage points), Kendall's tau and Spearman's rho of values (n,)."""
    return {
        "rmse_points": metric.scale * rmse(predicted, values),
        "kendall_tau": kendall_tau(predicted, values),
        "spearman": spearman(predicted, values),
    }


def _predict(model: object) -> Regressor:
    """Return the `predict` of a fitted model, with float64 results."""
    predict = getattr(model, "predict")  # noqa: B009 - the models share no typed base
    return lambda rows: np.asarray(predict(rows), np.float64)
