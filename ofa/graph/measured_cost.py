"""`MeasuredCost`: a cost that is measured on networks, such as latency, and estimated for all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from ofa.architecture.cost import space_costs
from ofa.common.score_file import ScoreFile
from ofa.graph.space import GraphSpace
from ofa.space.genes import Genomes
from ofa.space.plain import GeneConfig

Measure = Callable[[Sequence[GeneConfig]], Sequence[float]]
"""Measures the cost of sub-networks, together."""

_FEATURES = ("macs", "parameters")


class MeasuredCost:
    """Estimates a cost from multiply-accumulates and parameters; the line is fitted to measured networks.

    An estimate only says where to look: what has to keep a limit is measured.
    """

    def __init__(
        self,
        space: GraphSpace,
        measure: Measure,
        *,
        scores: ScoreFile | None = None,
        num_networks: int = 10,
        seed: int = 0,
    ) -> None:
        """Measure the smallest and the largest network and random ones, and fit the line.

        Args:
            space: space of the networks.
            measure: measures networks.
            scores: file of measured values; None for memory alone.
            num_networks: number of random networks.
            seed: seed of the draws.
        """
        self._space = space.unrestricted
        self._measure, self._scores = measure, ScoreFile() if scores is None else scores
        rows = self._space.sample(num_networks, np.random.default_rng(seed))
        ends = [self._space.smallest, self._space.largest]
        configs = list(dict.fromkeys([*ends, *map(self._space.config, rows)]))
        values = self.measured(configs)
        features = self._features(self._space.genomes(configs)) / values[:, None]
        self._coefficients, _ = nnls(features, np.ones(len(values)))

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return estimates of shape (n,)."""
        return np.asarray(self._features(genomes) @ self._coefficients)

    def measured(self, configs: Sequence[GeneConfig]) -> NDArray[np.float64]:
        """Return the measured costs of networks, shape (n,); those not known yet are measured together."""
        new = [config for config in configs if config.id not in self._scores]
        if new:
            for config, value in zip(new, self._measure(new), strict=True):
                self._scores.add(config.id, value)
        return np.array([self._scores[config.id] for config in configs])

    def reachable(self, limit: float, smallest: GeneConfig) -> float:
        """Return a limit of estimates, raised to the estimate of a network that was measured within it."""
        return max(limit, float(self(self._space.genomes([smallest]))[0]))

    def _features(self, genomes: Genomes) -> NDArray[np.float64]:
        costs = space_costs(self._space)
        return np.stack([np.ones(len(genomes)), *(costs[name](genomes) for name in _FEATURES)], axis=1)
