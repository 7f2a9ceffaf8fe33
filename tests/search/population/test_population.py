"""Operators on full rows, and clearing, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ofa.architecture.cost import compile_cost, macs
from ofa.space.genes import Genomes
from ofa.space.onehot import OneHot
from ofa.space.staged import StagedSpace
from search.limits.limit import Limit
from search.population.archive import Archive
from search.population.population import Population, similarities
from search.population.surrogate import LinearSurrogate
from search.population.variation import Variation


@pytest.fixture
def restricted(small_space: StagedSpace) -> StagedSpace:
    return small_space.restrict({"resolution": [20, 28], "kernel_size": [3, 7], "expand_ratio": [6]})


def allowed(space: StagedSpace, rows: Genomes) -> bool:
    return all(set(np.unique(rows[:, i])) <= set(space.allowed[i]) for i in range(rows.shape[1]))


def test_operators_stay_in_a_restricted_space(restricted: StagedSpace) -> None:
    rng, vary = np.random.default_rng(0), Variation(restricted)
    rows = vary.draw(500, rng)
    children = (vary.change(rows, 3, rng), vary.cross(rows, rows[::-1], rng), vary.shrink(rows, rng))
    for each in (rows, *children):
        assert each.dtype == np.int8
        assert allowed(restricted, each)
        restricted.config(restricted.canonical(each)[0])
    for gene, choices in enumerate(restricted.allowed):
        assert set(rows[:, gene]) == set(choices), "a draw misses a choice"


def test_changes_are_one_to_most_and_never_to_the_same_choice(restricted: StagedSpace) -> None:
    rng, vary = np.random.default_rng(1), Variation(restricted)
    rows = vary.draw(2000, rng)
    once = (vary.change(rows, 1, rng) != rows).sum(axis=1)
    assert (once == 1).all()
    several = (vary.change(rows, 3, rng) != rows).sum(axis=1)
    assert set(several) <= {0, 1, 2, 3}
    assert {1, 2, 3} <= set(several)
    single = restricted.keep_largest({"resolution": 1, "depth": 1, "kernel_size": 1, "expand_ratio": 1})
    only = Variation(single).draw(3, rng)
    assert (Variation(single).change(only, 2, rng) == only).all()


def test_children_of_a_cross_have_genes_of_both_parents(small_space: StagedSpace) -> None:
    rng, vary = np.random.default_rng(2), Variation(small_space)
    first, second = vary.draw(1000, rng), vary.draw(1000, rng)
    children = vary.cross(first, second, rng)
    assert ((children == first) | (children == second)).all()
    from_first = (children == first)[first != second].mean()
    assert from_first == pytest.approx(0.5, abs=0.02)


def test_inactive_genes_are_inherited(small_space: StagedSpace) -> None:
    rng, vary = np.random.default_rng(3), Variation(small_space)
    full = vary.draw(200, rng)
    hidden = ~small_space.active(full)
    assert (full[hidden] != 0).any()
    assert (small_space.canonical(full)[hidden] == 0).all()


def test_shrinking_ends_at_the_smallest(small_space: StagedSpace) -> None:
    rng, vary = np.random.default_rng(4), Variation(small_space)
    rows = vary.draw(50, rng)
    for _ in range(200):
        rows = vary.shrink(rows, rng)
    assert (rows == vary.lowest).all()
    assert small_space.config(vary.lowest) == small_space.smallest
    assert small_space.config(vary.highest) == small_space.largest


def test_similarity_counts_equal_genes(small_space: StagedSpace) -> None:
    rows = Variation(small_space).draw(30, np.random.default_rng(5))
    networks = small_space.canonical(rows)
    expected = [[(a == b).sum() for a in networks] for b in networks]
    assert similarities(OneHot(small_space), networks).tolist() == expected


def test_clearing_keeps_the_best_of_each_kind(small_space: StagedSpace) -> None:
    rng, vary = np.random.default_rng(6), Variation(small_space)
    centres = np.stack([vary.lowest, vary.highest])
    kinds = np.repeat([0, 1], 40)
    genomes = vary.change(centres[kinds], 1, rng)
    accuracies = np.concatenate([rng.random(40) + 1, rng.random(40)])
    population = Population(genomes, small_space.canonical(genomes), accuracies, np.zeros(80)).best(80)
    # A change of depth also takes genes of blocks away, so the radius is generous; the centres are farther.
    radius, crowd = len(small_space.genes) / 2, 5
    kept = population.clear(OneHot(small_space), radius, crowd)
    best = [np.sort(part)[::-1][:crowd] for part in np.split(np.sort(population.accuracies)[::-1], 2)]
    assert kept.accuracies.tolist() == np.concatenate(best).tolist()
    assert len(population.clear(OneHot(small_space), 1e9, 3).accuracies) == 3
    assert len(population.clear(OneHot(small_space), 1e9, 100).accuracies) == 80


def test_the_best_are_sorted_and_joining_keeps_pairs(small_space: StagedSpace) -> None:
    rng, vary = np.random.default_rng(7), Variation(small_space)
    rows = vary.draw(20, rng)
    values = rng.permutation(20).astype(float)
    excess = values / 100
    networks = small_space.canonical(rows)
    halves = [
        Population(rows[part], networks[part], values[part], excess[part])
        for part in (slice(10), slice(10, 20))
    ]
    population = halves[0].join(halves[1])
    best = population.best(6)
    assert best.accuracies.tolist() == [19, 18, 17, 16, 15, 14]
    assert all(
        (rows[values == value] == row).all() for row, value in zip(best.genomes, best.accuracies, strict=True)
    )
    assert (best.networks == small_space.canonical(best.genomes)).all()
    assert best.excess.tolist() == [0.19, 0.18, 0.17, 0.16, 0.15, 0.14]


def test_offspring_are_mutants_and_crosses_of_their_own_parents(small_space: StagedSpace) -> None:
    rng, vary = np.random.default_rng(9), Variation(small_space)
    first, second = vary.draw(40, rng), vary.draw(40, rng)
    children = vary.offspring(first, second, 0.25, 1, rng)
    assert ((children[:10] != first[:10]).sum(axis=1) == 1).all()
    assert ((children[10:] == first[10:]) | (children[10:] == second[10:])).all()


def test_the_guess_learns_the_effects_of_genes(small_space: StagedSpace) -> None:
    rng = np.random.default_rng(10)
    effects = [rng.standard_normal(len(gene.choices)) for gene in small_space.genes]

    def accuracy(genomes: Genomes) -> NDArray[np.float64]:
        parts = [effect[column] for effect, column in zip(effects, genomes.T, strict=True)]
        return np.asarray(np.sum(parts, axis=0))

    guess, rows = LinearSurrogate(OneHot(small_space)), small_space.sample(2000, rng)
    assert guess(rows[:3]).tolist() == [0, 0, 0]
    guess.learn(rows[:0], np.zeros(0))
    for part in np.split(rows[:1500], 5):
        guess.learn(part, accuracy(part))
    found, expected = guess(rows[1500:]), accuracy(rows[1500:])
    assert found - found.mean() == pytest.approx(expected - expected.mean(), abs=0.05)
    for part in np.split(rows[:1500], 5):
        guess.learn(part, -accuracy(part))
    assert np.corrcoef(guess(rows[1500:]), expected)[0, 1] < -0.5, "the latest rows do not count more"


def test_the_archive_tells_what_was_new_and_feasible(small_space: StagedSpace) -> None:
    cost = compile_cost(small_space, macs)
    rows = small_space.sample(40, np.random.default_rng(8))
    maximum = float(np.median(cost(rows)))
    archive = Archive(small_space, lambda genomes: -cost(genomes), [Limit("macs", cost, maximum)])
    first = archive.consider(rows[[3, 4, 3, 5]], 10)
    assert first.rows.tolist() == [0, 1, 3]
    second = archive.consider(rows, 20)
    assert second.rows.tolist() == [0, 1, 2, *range(6, 23)]
    assert second.estimated.tolist() == [i for i in second.rows if cost(rows[[i]])[0] <= maximum]
    assert second.values[:, 0].tolist() == cost(rows[second.estimated]).tolist()
    assert second.accuracies.tolist() == (-second.values[:, 0]).tolist()
    assert archive.num_considered == 23
    genomes, values, accuracies = archive.feasible()
    assert len(genomes) == len(values) == len(accuracies) == archive.num_feasible
    assert archive.best == accuracies.max()
    nothing = archive.consider(rows[:5], 5)
    assert len(nothing.rows) == len(nothing.estimated) == len(nothing.accuracies) == 0


def test_the_archive_estimates_what_the_caller_chooses(small_space: StagedSpace) -> None:
    cost = compile_cost(small_space, macs)
    rows = small_space.sample(40, np.random.default_rng(8))
    maximum = float(np.median(cost(rows)))
    archive = Archive(small_space, lambda genomes: -cost(genomes), [Limit("macs", cost, maximum)])
    found = archive.consider(rows, 40, lambda new, values: np.argsort(-values[:, 0])[:10])
    assert found.values[:, 0].tolist() == sorted(cost(rows[found.rows]))[::-1][:10]
    assert found.accuracies.tolist() == (-cost(rows[found.estimated])).tolist()
    assert (archive.num_estimated, archive.num_feasible) == (10, 0)
    assert archive.best == -np.inf and len(archive.feasible()[0]) == 0
    assert len(archive.consider(rows, 40).rows) == 0, "a row was considered twice"
