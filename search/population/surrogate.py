"""`LinearSurrogate`: an online linear model of accuracy on one-hot genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.space.genes import Genomes
from ofa.space.onehot import OneHot

DECAY = 0.75
"""Weight of older generations in the next fit, per generation."""

RIDGE = 0.5
"""Strength of the ridge penalty, as a number of candidates."""


class LinearSurrogate:
    """Effects of single genes on accuracy, by ridge regression.

    The model is too coarse for networks that differ much. A child, however, differs from its parents in few
    genes: the parents' accuracy plus the effects of these genes is accurate enough to select children for
    estimation.
    """

    def __init__(self, one_hot: OneHot) -> None:
        """Start with all effects at 0."""
        self._one_hot, width = one_hot, one_hot.width
        self._products: NDArray[np.float64] = np.zeros((width, width))
        self._targets: NDArray[np.float64] = np.zeros(width)
        self._effects: NDArray[np.float64] = np.zeros(width)
        self._origin: float | None = None

    def learn(self, genomes: Genomes, accuracies: NDArray[np.float64]) -> None:
        """Update the model with canonical rows (n, num_genes) and their accuracies (n,)."""
        if len(genomes) == 0:
            return
        if self._origin is None:
            self._origin = float(accuracies.mean())
        one_hot = self._one_hot(genomes)
        self._products = DECAY * self._products + one_hot.T @ one_hot
        self._targets = DECAY * self._targets + one_hot.T @ (accuracies - self._origin)
        regularised = self._products + RIDGE * np.eye(len(self._targets))
        self._effects = np.asarray(np.linalg.solve(regularised, self._targets), np.float64)

    def __call__(self, genomes: Genomes) -> NDArray[np.float64]:
        """Return summed effects of canonical rows' genes, shape (n,); only differences are meaningful."""
        return np.asarray(self._effects[self._one_hot.offsets + genomes].sum(axis=1))
