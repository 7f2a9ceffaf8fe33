"""`choose_informative`: which networks to measure, so that a few of them say most about the fit.

Each next network is the one whose prediction is the least certain after the others: the greedy maximisation
of the determinant of a linear model's information (D-optimal design; V. V. Fedorov, Theory of Optimal
Experiments, 1972). The model's features are the size of a network, and what each column is relative to it.
"""

from __future__ import annotations

import numpy as np

from latency_tables.table.regression import Values
from latency_tables.transfer.columns import Columns
from ofa.common.errors import UserError
from ofa.space.genes import unique_rows
from ofa.space.subnet import SubnetConfig

NUM_NETWORKS = 10
"""Number of measured networks by default."""

NUM_CANDIDATES = 300
_PRIOR = 0.1
"""Information about each column before anything is measured, in units of one network."""


def choose_networks(columns: Columns, num_networks: int, seed: int) -> tuple[SubnetConfig, ...]:
    """Return networks of a space to measure, the most informative first; equal arguments give equal ones.

    Args:
        columns: the space, and what its latencies are composed of.
        num_networks: number of networks.
        seed: seed of the candidates.

    Raises:
        UserError: if the space has fewer networks.
    """
    space = columns.space
    genomes = space.sample(10 * NUM_CANDIDATES, np.random.default_rng(seed))
    genomes = genomes[unique_rows(genomes)][:NUM_CANDIDATES]
    if len(genomes) < num_networks:
        raise UserError(
            f"Random draws from space {space.name!r} gave {len(genomes)} distinct networks; {num_networks} "
            "are to be measured. Use a larger space or fewer networks."
        )
    indices = informative_rows(columns.matrix(genomes), columns.num_free, num_networks)
    return tuple(space.config(genomes[index]) for index in indices)


def informative_rows(columns: Values, num_free: int, count: int) -> list[int]:
    """Return the indices of the networks to measure, the most informative first.

    Args:
        columns: columns of each candidate, shape (n, num_columns).
        num_free: number of first columns, whose mean is the size of a network.
        count: number of indices, at most n.
    """
    sizes = (columns[:, :num_free] / columns[:, :num_free].mean(0)).mean(1)
    features = np.column_stack([sizes, columns / sizes[:, None]])
    features = features[:, features.std(0) > 1e-9 * np.abs(features).mean(0)]
    features = (features - features.mean(0)) / features.std(0)
    rows = np.column_stack([features, np.ones(len(features))])
    information = _PRIOR * np.eye(rows.shape[1])
    indices: list[int] = []
    for _ in range(count):
        variances = np.einsum("ij,jk,ik->i", rows, np.linalg.inv(information), rows)
        variances[indices] = -1.0
        indices.append(int(np.argmax(variances)))
        information += np.outer(rows[indices[-1]], rows[indices[-1]])
    return indices
