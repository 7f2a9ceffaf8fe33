"""Choosing the sub-networks that a predictor would learn most from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.cost import compile_cost, macs
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec
from predictors.collection.active import choose_batch, design_posterior, next_batch
from predictors.model.features import FeatureMap
from predictors.model.posterior import Posterior


def make_space() -> StagedSpace:
    stage = StageSpec(8, 2, (1, 2, 3), (3, 5, 7), (2, 3, 4), "relu", False)
    return StagedSpace("small", "mobilenet_v3", (16, 24, 32), 8, 1, (stage,) * 3, (16, 16))


def make_records(count: int) -> tuple[Genomes, NDArray[np.float64]]:
    space = make_space()
    genomes = space.sample(count, np.random.default_rng(0))
    logs = np.log(compile_cost(space, macs)(genomes))
    return genomes, 0.5 + 0.05 * logs + np.random.default_rng(1).normal(0, 0.002, count)


def make_posterior() -> tuple[Posterior, FeatureMap]:
    features = FeatureMap.from_space(make_space())
    return design_posterior(features, *make_records(30), seed=0), features


def remaining_variance(
    posterior: Posterior, measured: NDArray[np.float32], references: NDArray[np.float32]
) -> float:
    """Total variance of the references after measuring, by conditioning the joint distribution."""
    both = np.concatenate([measured, references])
    rows = posterior.directions(both)
    joint, n = rows @ rows.T, len(measured)
    noisy = joint[:n, :n] + posterior.scales.noise**2 * np.eye(n)
    return float(np.trace(joint[n:, n:] - joint[n:, :n] @ np.linalg.solve(noisy, joint[:n, n:])))


def test_each_choice_leaves_the_least_variance() -> None:
    posterior, features = make_posterior()
    space = make_space()
    candidates = features(space.sample(40, np.random.default_rng(2)))
    references = features(space.sample(60, np.random.default_rng(3)))
    chosen = choose_batch(posterior, candidates, references, 4).tolist()
    for k in range(4):
        left = {
            i: remaining_variance(posterior, candidates[[*chosen[:k], i]], references)
            for i in range(40)
            if i not in chosen[:k]
        }
        assert left[chosen[k]] <= min(left.values()) * (1 + 1e-6)


def test_near_copies_are_not_measured_one_after_the_other() -> None:
    posterior, features = make_posterior()
    space = make_space()
    genomes = space.sample(30, np.random.default_rng(2))
    copies = features(np.repeat(genomes, 2, axis=0))
    chosen = choose_batch(posterior, copies, features(space.sample(100, np.random.default_rng(3))), 5)
    assert len(set(chosen.tolist())) == 5
    assert len({i // 2 for i in chosen.tolist()}) == 5


def test_no_more_than_all_candidates_are_chosen() -> None:
    posterior, features = make_posterior()
    inputs = features(make_space().sample(3, np.random.default_rng(2)))
    assert sorted(choose_batch(posterior, inputs, inputs, 10)) == [0, 1, 2]
    assert len(choose_batch(posterior, inputs[:0], inputs, 10)) == 0


def test_a_batch_is_new_repeatable_and_inside_the_restriction() -> None:
    space = make_space().restrict({"resolution": [24]})
    genomes, top1 = make_records(40)
    cost = compile_cost(space, macs)
    batch = next_batch(space, genomes, top1, 8, 0, cost)
    np.testing.assert_array_equal(batch, next_batch(space, genomes, top1, 8, 0, cost))
    assert len(np.unique(batch, axis=0)) == 8
    assert not {row.tobytes() for row in batch} & {row.tobytes() for row in genomes}
    assert all(space.contains(space.config(genome)) for genome in batch)
    assert not np.array_equal(batch, next_batch(space, genomes, top1, 8, 1, cost))


def test_a_batch_reduces_the_variance_more_than_a_random_one() -> None:
    posterior, features = make_posterior()
    space = make_space()
    pool = features(space.sample(500, np.random.default_rng(2)))
    references = features(space.sample(200, np.random.default_rng(3)))
    chosen = choose_batch(posterior, pool, references, 10)
    chosen_left = remaining_variance(posterior, pool[chosen], references)
    random_left = [remaining_variance(posterior, pool[i : i + 10], references) for i in range(0, 500, 10)]
    assert chosen_left < min(random_left)
