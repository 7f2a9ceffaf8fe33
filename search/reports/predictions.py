"""`Predictions`: what a report of a search is told of space and predictor beside the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.cost import space_costs
from ofa.common.expectation import PREDICTED, MetricValue
from ofa.common.metric import Metric
from ofa.space.config import AnyConfig
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from search.limits.limit import number_texts
from search.reports.trust import PredictionFacts

_COSTS = {"macs_m": ("macs", "MACs"), "parameters_m": ("parameters", "param.")}
"""Cost and title by the name of the limit that has the same quantity."""


@dataclass(frozen=True)
class CostColumn:
    """One cost of networks as a column of a table: the heading with its unit, and a text per row."""

    heading: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """The estimators behind a search.

    Attributes:
        space: the (restricted) space that was searched.
        accuracy: estimator of the metric.
        deviation: standard deviation of a measured value around its prediction; None if it is not known.
        best_measured: best measured value behind the estimator; None if it is not known.
        num_records: number of measured values behind the estimator; 0 if it is not known.
        images: number and set of the images that they were measured on, e.g. "238 images of digits"; may be
            empty.
    """

    space: SearchSpace
    accuracy: Estimator
    deviation: Estimator | None = None
    best_measured: float | None = None
    num_records: int = 0
    images: str = ""

    def genomes(self, configs: Sequence[AnyConfig]) -> Genomes:
        """Return the genomes of networks of the space, restricted or not."""
        return self.space.unrestricted.genomes(list(configs))

    def deviations(self, configs: Sequence[AnyConfig]) -> NDArray[np.float64] | None:
        """Return the standard deviation of each network's prediction; None if it is not known."""
        return None if self.deviation is None else self.deviation(self.genomes(configs))

    def value(self, config: AnyConfig, metric: Metric) -> MetricValue:
        """Return the predicted value of a network with what is known of it."""
        deviations = self.deviations([config])
        return MetricValue(
            metric.name,
            float(self.accuracy(self.genomes([config]))[0]),
            deviation=None if deviations is None else float(deviations[0]),
            source=PREDICTED,
            split="validation",
            images=self.images,
            best_record=self.best_measured,
            num_records=self.num_records,
        )

    def facts(self, best: AnyConfig) -> PredictionFacts:
        """Return what is known of the prediction for the best network of a search."""
        deviations = self.deviations([best])
        return PredictionFacts(None if deviations is None else float(deviations[0]), self.best_measured)

    def cost_columns(self, groups: Sequence[Genomes], without: Sequence[str] = ()) -> list[CostColumn]:
        """Return MACs and parameters as columns with a row per group, in the units that fit the largest.

        Args:
            groups: genomes, each of shape (n, num_genes); a row of a column has their mean.
            without: names of limits, whose quantities have columns of their own.
        """
        costs, columns = space_costs(self.space), []
        for name, (cost, title) in _COSTS.items():
            if cost in costs and name not in without:
                values = [float(costs[cost](genomes).mean()) for genomes in groups]
                unit, prefix = (1e6, "M") if max(values) >= 1e6 else (1e3, "k")
                texts = tuple(number_texts([value / unit for value in values]))
                columns.append(CostColumn(f"{title}\n{prefix}", texts))
        return columns
