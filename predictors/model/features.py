"""Inputs of the accuracy MLP: one-hot choices and logarithmic costs, and their groups.

A few hundred records cannot determine the effects of a hundred genes unless the model relates them. Each
*view* below summarises a network at another level: single choices, each gene as a number, sums per part and
over the network, active genes, and costs. All views but the last are linear in the one-hot choices, so
merging them into the MLP's first layer makes them free of cost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.cost import space_costs
from ofa.common.errors import UserError
from ofa.space.estimator import Estimator
from ofa.space.genes import Gene, Genomes
from ofa.space.onehot import OneHot
from ofa.space.space import SearchSpace

COSTS = ("macs", "parameters")
NUM_REFERENCES = 2000
REFERENCE_SEED = 0

Array = NDArray[np.float64]


class FeatureMap:
    """Maps genomes to rows of float32 inputs: one-hot active choices, then standardised log costs."""

    def __init__(self, space: SearchSpace, cost_mean: Array, cost_std: Array) -> None:
        """Take the mean and standard deviation, shape (num_costs,), of the logarithms of the known costs."""
        self.space = space.unrestricted
        self.cost_mean = cost_mean
        self.cost_std = cost_std
        self._one_hot = OneHot(self.space, only_active=True)
        self._costs = known_costs(self.space)

    @classmethod
    def from_space(cls, space: SearchSpace) -> FeatureMap:
        """Return the map with costs standardised over random networks of the unrestricted space."""
        num_costs = len(known_costs(space.unrestricted))
        features = cls(space, np.zeros(num_costs), np.ones(num_costs))
        logs = features.log_costs(reference_genomes(space))
        spread = logs.std(axis=0)
        features.cost_mean, features.cost_std = logs.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)
        return features

    @property
    def num_choices(self) -> int:
        """Number of one-hot inputs: the choices of all genes."""
        return self._one_hot.width

    @property
    def num_inputs(self) -> int:
        """Number of inputs of the MLP."""
        return self.num_choices + len(self._costs)

    def log_costs(self, genomes: Genomes) -> Array:
        """Return the natural logarithms of the known costs, shape (n, num_costs), standardised."""
        if not self._costs:
            return np.zeros((len(genomes), 0))
        logs = np.log(np.stack([cost(genomes) for cost in self._costs], axis=1))
        return np.asarray((logs - self.cost_mean) / self.cost_std)

    def __call__(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return the inputs of genomes (n, num_genes), shape (n, num_inputs); inactive genes stay zero."""
        return np.concatenate([self._one_hot(genomes), self.log_costs(genomes).astype(np.float32)], axis=1)


def known_costs(space: SearchSpace) -> tuple[Estimator, ...]:
    """Return the estimators of `COSTS` that the space provides."""
    costs = space_costs(space)
    return tuple(costs[name] for name in COSTS if name in costs)


@dataclass(frozen=True)
class Views:
    """Inputs of the MLP's prior: `inputs @ matrix - centre`, in groups of columns with unit total variance.

    Attributes:
        matrix: linear map, shape (num_inputs, num_columns).
        centre: offset, shape (num_columns,).
        group: group number of each column, 0 to num_groups - 1.
    """

    matrix: Array
    centre: Array
    group: NDArray[np.intp]

    @property
    def num_groups(self) -> int:
        """Number of groups; each has one weight scale in the hidden layer and one in the linear path."""
        return int(self.group[-1]) + 1

    def __call__(self, inputs: NDArray[np.float32]) -> Array:
        """Return the centred columns, shape (n, num_columns), of inputs (n, num_inputs)."""
        return np.asarray(inputs @ self.matrix - self.centre)


def space_views(features: FeatureMap) -> Views:
    """Return the views of a space, standardised over random networks; constant columns are omitted.

    Raises:
        UserError: if the space holds a single network.
    """
    inputs = features(reference_genomes(features.space)).astype(np.float64)
    matrices: list[Array] = []
    centres: list[Array] = []
    groups: list[NDArray[np.intp]] = []
    for matrix in _view_matrices(features):
        columns = inputs @ matrix
        varying = columns.std(axis=0) > 1e-9
        if varying.any():
            scale = 1 / np.sqrt(columns.var(axis=0).sum())
            matrices.append(scale * matrix[:, varying])
            centres.append(scale * columns[:, varying].mean(axis=0))
            groups.append(np.full(varying.sum(), len(groups)))
    if not groups:
        raise UserError(f"Space {features.space.name!r} holds one network; a predictor needs choices.")
    return Views(np.concatenate(matrices, axis=1), np.concatenate(centres), np.concatenate(groups))


def reference_genomes(space: SearchSpace) -> Genomes:
    """Return the random networks of the unrestricted space over which inputs are standardised."""
    return space.unrestricted.sample(NUM_REFERENCES, np.random.default_rng(REFERENCE_SEED))


def _view_matrices(features: FeatureMap) -> list[Array]:
    """Return the linear maps from inputs to views, from coarse to fine."""
    genes = features.space.genes
    owner = np.repeat(np.arange(len(genes)), [len(gene.choices) for gene in genes])
    value = np.concatenate([_centred_values(gene) for gene in genes])
    ones = np.ones(len(owner))
    costs = np.eye(features.num_inputs)[:, features.num_choices :]

    def sums(weights: Array, key: Callable[[int], Hashable]) -> Array:
        """Return the map that sums the weights of the active choices of all genes with equal keys."""
        keys = list(dict.fromkeys(map(key, range(len(genes)))))
        matrix = np.zeros((features.num_inputs, len(keys)))
        for row, gene in enumerate(owner.tolist()):
            matrix[row, keys.index(key(gene))] = weights[row]
        return matrix

    return [
        costs,
        sums(value, lambda i: genes[i].kind),
        sums(value, lambda i: (genes[i].kind, genes[i].part)),
        sums(value, lambda i: i),
        sums(ones, lambda i: i),
        np.eye(features.num_inputs)[:, : features.num_choices],
    ]


def _centred_values(gene: Gene) -> Array:
    """Return the choices mapped to -1..1, on a logarithmic scale if all are positive."""
    values = np.array(gene.choices, np.float64)
    if values.min() > 0:
        values = np.log(values)
    spread = np.ptp(values)
    return np.asarray((2 * values - values.max() - values.min()) / spread if spread else 0 * values)
