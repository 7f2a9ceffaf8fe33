"""Prior weight scales of the accuracy model, chosen by maximum marginal likelihood.

A wide layer with Gaussian weights is a Gaussian process (Neal 1996); for ReLU its covariance is the
arc-cosine kernel (Cho & Saul 2009). Therefore the marginal likelihood of the records under such an MLP, with
all weights integrated out, has a closed form. Maximising it over a dozen scales replaces learning rate,
weight decay and early stopping: with few records or much noise the model shrinks to the linear path or to the
mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

from predictors.model.features import Array

# Prior means of the scales' logarithms for standardised accuracies; the prior standard deviation is 1.
START = {"noise": -2.0, "bias": -1.3, "hidden": -1.0, "hidden_bias": 0.0}
START_LINEAR, START_HIDDEN = -1.0, -0.7
MAX_DISTANCE = 4.0
JITTER = 1e-6


@dataclass(frozen=True)
class Scales:
    """Standard deviations of the weights of an MLP with one hidden layer and a linear path beside it.

    Attributes:
        noise: standard deviation of a measured accuracy around the true one.
        bias: standard deviation of the output's bias.
        hidden: standard deviation of the hidden layer's contribution to the output.
        hidden_bias: standard deviation of the hidden layer's biases.
        linear_weights: standard deviation of the linear path's weights, one per group of inputs.
        hidden_weights: standard deviation of the hidden layer's weights, one per group of inputs.
    """

    noise: float
    bias: float
    hidden: float
    hidden_bias: float
    linear_weights: Array
    hidden_weights: Array

    @classmethod
    def from_logs(cls, logs: Array) -> Scales:
        """Return the scales from their logarithms in the order of the fields."""
        values = np.exp(logs)
        noise, bias, hidden, hidden_bias = values[: len(START)].tolist()
        linear, hidden_weights = np.split(values[len(START) :], 2)
        return cls(noise, bias, hidden, hidden_bias, linear, hidden_weights)


def fit_scales(
    columns: Array,
    group: NDArray[np.intp],
    targets: Array,
    max_iterations: int,
    report: Callable[[int, float], None] = lambda iteration, evidence: None,
) -> Scales:
    """Return the scales that maximise the likelihood of the targets times a log-normal prior.

    Args:
        columns: centred inputs, shape (n, num_columns), each group of unit variance.
        group: group number of each column, shape (num_columns,).
        targets: standardised accuracies, shape (n,).
        max_iterations: largest number of L-BFGS iterations; 60 are enough.
        report: called with the iteration and the log evidence.
    """
    products = group_products(columns, group)
    start = np.array([*START.values(), *[START_LINEAR] * len(products), *[START_HIDDEN] * len(products)])
    iteration = 0

    def loss(logs: Array) -> tuple[float, Array]:
        value, slope = _negative_log_evidence(products, targets, logs)
        return value + 0.5 * float(np.sum((logs - start) ** 2)), slope + logs - start

    def callback(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        nonlocal iteration
        iteration += 1
        report(iteration, -float(intermediate_result.fun))

    bounds = [(value - MAX_DISTANCE, value + MAX_DISTANCE) for value in start]
    options = {"maxiter": max_iterations}
    optimum = scipy.optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, callback=callback, options=options
    )
    return Scales.from_logs(optimum.x)


def group_products(columns: Array, group: NDArray[np.intp]) -> Array:
    """Return the inner products of the rows in each group of columns, shape (num_groups, n, n)."""
    parts = (columns[:, group == g] for g in range(int(group[-1]) + 1))
    return np.stack([part @ part.T for part in parts])


@dataclass(frozen=True)
class Covariance:
    """Covariance of n accuracies under the prior, and terms of its derivative; all of shape (n, n).

    `total` includes the noise; `hidden` is the hidden layer's part. `norms` are the products of the lengths
    of the hidden layer's inputs; `angles` and `sines` belong to the angles between these inputs.
    """

    total: Array
    hidden: Array
    norms: Array
    angles: Array
    sines: Array


def covariance(products: Array, scales: Scales) -> Covariance:
    """Return the covariance of standardised accuracies, noise included, from `group_products`."""
    inner = scales.hidden_bias**2 + np.tensordot(scales.hidden_weights**2, products, 1)
    lengths = np.sqrt(np.diagonal(inner))
    norms = np.outer(lengths, lengths)
    cosines = np.clip(inner / norms, -1.0, 1.0)
    np.fill_diagonal(cosines, 1.0)
    angles, sines = np.arccos(cosines), np.sqrt(1 - cosines**2)
    hidden = scales.hidden**2 / np.pi * norms * (sines + (np.pi - angles) * cosines)
    total = scales.bias**2 + np.tensordot(scales.linear_weights**2, products, 1) + hidden
    total[np.diag_indices_from(total)] += scales.noise**2 + JITTER
    return Covariance(total, hidden, norms, angles, sines)


def _solve(total: Array, targets: Array) -> tuple[Array, Array, float]:
    """Return the inverse, the inverse times the targets, and the logarithm of the determinant."""
    factor = scipy.linalg.cholesky(total, lower=True, check_finite=False)
    inverse, _ = scipy.linalg.lapack.dpotri(factor, lower=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    return inverse, inverse @ targets, 2 * float(np.log(np.diagonal(factor)).sum())


def _negative_log_evidence(products: Array, targets: Array, logs: Array) -> tuple[float, Array]:
    """Return the negative log evidence (without constants) and its gradient in `logs`."""
    scales = Scales.from_logs(logs)
    parts = covariance(products, scales)
    inverse, solved, log_determinant = _solve(parts.total, targets)
    value = 0.5 * float(targets @ solved) + 0.5 * log_determinant
    # d value = sum(slope * d covariance); every covariance is a product of two scales, hence the factor 2.
    slope = 0.5 * (inverse - np.outer(solved, solved))
    share = scales.hidden**2 / np.pi * slope
    by_inner = share * (np.pi - parts.angles)
    # The diagonal of the inner products holds the squared lengths, and therefore also changes the norms.
    by_length = (share * parts.sines * parts.norms).sum(axis=1) / np.diagonal(parts.norms)
    by_inner[np.diag_indices_from(by_inner)] += by_length
    gradient = [
        scales.noise**2 * np.trace(slope),
        scales.bias**2 * slope.sum(),
        np.sum(slope * parts.hidden),
        scales.hidden_bias**2 * by_inner.sum(),
        *(scales.linear_weights**2 * np.tensordot(products, slope, 2)),
        *(scales.hidden_weights**2 * np.tensordot(products, by_inner, 2)),
    ]
    return value, 2 * np.array(gradient)
