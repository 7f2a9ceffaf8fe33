"""An MLP fitted without gradient steps: hidden layer drawn from the prior, output layer solved exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from predictors.model.evidence import Scales, fit_scales
from predictors.model.features import Array, Views
from predictors.model.predictor import AccuracyMLP

# Accuracies within a hundredth of a point count as equal.
SMALLEST_STD = 1e-4
COVERAGE = 0.9
# Half-width of the interval with that share of a normal distribution, in standard deviations.
COVERAGE_DEVIATIONS = 1.6449


def standardise(values: Array) -> tuple[Array, float, float]:
    """Return accuracies (n,) scaled to mean 0 and standard deviation 1, and the original two."""
    mean, std = float(values.mean()), max(float(values.std()), SMALLEST_STD)
    return (values - mean) / std, mean, std


class Posterior:
    """Posterior over the output weights of an MLP, given the records.

    With scales that maximise the evidence, the mean of the output weights solves a ridge regression on the
    hidden units and the linear path together. Samples are ridge regressions, too (Matheron's rule: a draw
    from the prior, corrected by its errors on the records).
    """

    def __init__(
        self,
        views: Views,
        inputs: NDArray[np.float32],
        targets: Array,
        *,
        hidden_units: int,
        members: int,
        evidence_records: int,
        max_iterations: int,
        rng: np.random.Generator,
        report: Callable[[int, float], None] = lambda iteration, evidence: None,
    ) -> None:
        """Fit the scales, draw the hidden layer and solve for the output weights.

        Args:
            views: views of the space.
            inputs: `FeatureMap` rows of the records, shape (n, num_inputs).
            targets: standardised accuracies, shape (n,).
            hidden_units: width of the hidden layer.
            members: number of sampled output layers; their spread is the uncertainty.
            evidence_records: largest number of random records for fitting the scales (cubic time).
            max_iterations: largest number of iterations of `fit_scales`.
            rng: generator for the hidden layer, the members and the choice of records.
            report: called with the iteration and the log evidence.
        """
        columns = views(inputs)
        evidence_indices = rng.permutation(len(targets))[:evidence_records]
        self.views = views
        self.scales: Scales = fit_scales(
            columns[evidence_indices], views.group, targets[evidence_indices], max_iterations, report
        )
        self._hidden_weights = rng.standard_normal((columns.shape[1], hidden_units))
        self._hidden_biases = self.scales.hidden_bias * rng.standard_normal(hidden_units)
        self._known_units = units = self.units(inputs)
        self.interval_factor = _interval_factor(
            _left_out_errors(units[evidence_indices], targets[evidence_indices], self.scales.noise)
        )
        self.weights = _ridge(units, targets[:, None], self.scales.noise)[:, 0]
        draws = rng.standard_normal((units.shape[1], members))
        noise = self.scales.noise * rng.standard_normal((len(targets), members))
        errors = targets[:, None] - units @ draws - noise
        self.members = draws + _ridge(units, errors, self.scales.noise)

    def units(self, inputs: NDArray[np.float32]) -> Array:
        """Return the output layer's inputs, scaled so that its prior weights are standard normal.

        Shape (n, 1 + num_columns + hidden_units): constant, linear path, hidden units.
        """
        columns, group = self.views(inputs), self.views.group
        scaled = columns * self.scales.hidden_weights[group]
        hidden = np.maximum(scaled @ self._hidden_weights + self._hidden_biases, 0)
        constant = np.full((len(columns), 1), self.scales.bias)
        linear = columns * self.scales.linear_weights[group]
        return np.concatenate([constant, linear, self._hidden_gain * hidden], axis=1)

    def directions(self, inputs: NDArray[np.float32]) -> Array:
        """Return rows whose inner products are the covariance of accuracies given the records.

        Shape (n, num_units), for standardised accuracies without measurement noise.
        """
        precision = self._known_units.T @ self._known_units / self.scales.noise**2
        precision[np.diag_indices_from(precision)] += 1
        factor = scipy.linalg.cholesky(precision, lower=True)
        return np.asarray(scipy.linalg.solve_triangular(factor, self.units(inputs).T, lower=True).T)

    @property
    def _hidden_gain(self) -> float:
        """Factor that makes the hidden layer's covariance equal `evidence.covariance` for any width."""
        return self.scales.hidden * float(np.sqrt(2 / len(self._hidden_biases)))

    def network(self) -> AccuracyMLP:
        """Return the same function of the inputs as an MLP, with the views merged into its first layer.

        Output 0 is the mean, the others are the members.
        """
        matrix, centre, group = self.views.matrix, self.views.centre, self.views.group
        scaled = self.scales.hidden_weights[group][:, None] * self._hidden_weights
        outputs = np.concatenate([self.weights[:, None], self.members], axis=1)
        constant, linear, hidden = np.split(outputs, [1, 1 + len(group)])
        linear = self.scales.linear_weights[group][:, None] * linear
        values = {
            "hidden.weight": (matrix @ scaled).T,
            "hidden.bias": self._hidden_biases - centre @ scaled,
            "linear.weight": (matrix @ linear).T,
            "head.weight": self._hidden_gain * hidden.T,
            "head.bias": self.scales.bias * constant[0] - centre @ linear,
        }
        return AccuracyMLP.from_state({name: torch.from_numpy(value) for name, value in values.items()})


def _ridge(units: Array, targets: Array, noise: float) -> Array:
    """Return the weights (num_units, k) of least squares with unit normal prior, for targets (n, k)."""
    if units.shape[0] <= units.shape[1]:
        gram = units @ units.T
        gram[np.diag_indices_from(gram)] += noise**2
        return np.asarray(units.T @ scipy.linalg.solve(gram, targets, assume_a="pos"))
    gram = units.T @ units
    gram[np.diag_indices_from(gram)] += noise**2
    return np.asarray(scipy.linalg.solve(gram, units.T @ targets, assume_a="pos"))


def _left_out_errors(units: Array, targets: Array, noise: float) -> Array:
    """Return each record's leave-one-out error in units of its predicted standard deviation, shape (n,)."""
    covariance = units @ units.T
    covariance[np.diag_indices_from(covariance)] += noise**2
    inverse = np.linalg.inv(covariance)
    return np.asarray(inverse @ targets / np.sqrt(np.diagonal(inverse)))


def _interval_factor(standardised_errors: Array) -> float:
    """Return the factor for 90 % intervals to contain 90 % of the left-out records; at least 1.

    The rank is computed for one more record, as in conformal prediction.
    """
    sizes = np.sort(np.abs(standardised_errors))
    rank = min(int(np.ceil((len(sizes) + 1) * COVERAGE)), len(sizes))
    return max(1.0, float(sizes[rank - 1]) / COVERAGE_DEVIATIONS)
