"""Choice of the next sub-networks to measure, given the accuracies measured so far (Cohn 1996).

Measuring a network reduces the predictive variance of all correlated accuracies. The next network is the one
that reduces it most over the reference networks. The reduction does not depend on the measured value, so the
same rule selects a whole batch, which is diverse without an extra term.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.common.threads import blas_threads
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from predictors.collection.sampling import plan_subnets
from predictors.model.features import FeatureMap, space_views
from predictors.model.posterior import Posterior, standardise

HIDDEN_UNITS = 512
EVIDENCE_RECORDS = 300
MAX_ITERATIONS = 30
NUM_CANDIDATES = 2000
NUM_REFERENCES = 500


@blas_threads(1)
def next_batch(
    space: SearchSpace, genomes: Genomes, values: NDArray[np.float64], count: int, seed: int, cost: Estimator
) -> Genomes:
    """Return the `count` most informative networks without a record; fewer if the space has no more.

    Args:
        space: space to sample candidates from; may be restricted.
        genomes: networks with a record, shape (n, num_genes), at least two.
        values: values of the metric of `genomes`, shape (n,).
        count: size of the batch.
        seed: seed of the candidates; equal records and seeds give equal batches.
        cost: positive cost; candidates are spread evenly over its logarithm.

    Returns:
        Canonical genomes, the most informative first.
    """
    sample = plan_subnets(space, min(NUM_CANDIDATES, space.size), (seed, len(genomes)), cost)
    known_keys = {genome.tobytes() for genome in genomes}
    candidates = sample[[genome.tobytes() not in known_keys for genome in sample]]
    features = FeatureMap.from_space(space)
    posterior = design_posterior(features, genomes, values, seed)
    references = features(sample[:NUM_REFERENCES])
    return np.asarray(candidates[choose_batch(posterior, features(candidates), references, count)])


def design_posterior(
    features: FeatureMap, genomes: Genomes, values: NDArray[np.float64], seed: int
) -> Posterior:
    """Return the posterior given the records, with a narrower hidden layer than the final predictor."""
    return Posterior(
        space_views(features),
        features(genomes),
        standardise(values)[0],
        hidden_units=HIDDEN_UNITS,
        members=1,
        evidence_records=EVIDENCE_RECORDS,
        max_iterations=MAX_ITERATIONS,
        rng=np.random.default_rng((seed, len(genomes))),
    )


def choose_batch(
    posterior: Posterior, candidates: NDArray[np.float32], references: NDArray[np.float32], count: int
) -> NDArray[np.intp]:
    """Return the indices of the candidates that reduce the references' variance most, in order.

    Args:
        posterior: posterior given the records.
        candidates: `FeatureMap` rows of candidates, shape (n, num_inputs).
        references: `FeatureMap` rows of the networks to be predicted, shape (m, num_inputs).
        count: size of the batch; at most n are returned.
    """
    rows = posterior.directions(candidates)
    shared = posterior.directions(references) @ rows.T
    noise = posterior.scales.noise**2
    chosen_indices: list[int] = []
    for _ in range(min(count, len(candidates))):
        variances = np.sum(rows**2, axis=1)
        gains = np.sum(shared**2, axis=0) / (variances + noise)
        gains[chosen_indices] = -1.0
        best_index = int(gains.argmax())
        chosen_indices.append(best_index)
        variance, inner_products = float(variances[best_index]), rows @ rows[best_index]
        shared -= np.outer(shared[:, best_index], inner_products / (variance + noise))
        # Shorten every row along the chosen one, so inner products are covariances after it.
        shrink = (1 - np.sqrt(noise / (variance + noise))) / max(variance, 1e-300)
        rows = rows - shrink * np.outer(inner_products, rows[best_index])
    return np.array(chosen_indices, np.intp)
