from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from latency_tables.transfer.choice import choose_networks, informative_rows
from latency_tables.transfer.columns import Columns
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec


@pytest.fixture
def space() -> StagedSpace:
    stages = (
        StageSpec(8, 2, (1, 2, 3), (3, 5), (2, 3), "relu", False),
        StageSpec(16, 2, (1, 2), (3,), (2, 4), "hard_swish", True),
    )
    return StagedSpace("small", "mobilenet_v3", (16, 20), 8, 2, stages, (16, 24), num_classes=4)


def test_networks_are_distinct_and_follow_from_the_seed(space: StagedSpace) -> None:
    columns = Columns(space)
    configs = choose_networks(columns, 12, 3)
    assert len(set(configs)) == 12
    assert choose_networks(columns, 12, 3) == configs
    assert choose_networks(columns, 5, 3) == configs[:5]
    assert choose_networks(columns, 12, 4) != configs


def test_chosen_networks_differ_more_than_random_ones(space: StagedSpace) -> None:
    columns = Columns(space)
    chosen = columns.matrix(space.genomes(choose_networks(columns, 8, 0)))
    random = columns.matrix(space.sample(8, np.random.default_rng(0)))
    everything = columns.matrix(space.sample(500, np.random.default_rng(1)))
    spread = chosen[:, 0].std() / everything[:, 0].std()
    assert spread > 1.1
    assert spread > random[:, 0].std() / everything[:, 0].std()


def test_the_next_network_is_the_least_certain_one() -> None:
    rng = np.random.default_rng(0)
    columns = rng.uniform(1, 2, (40, 3))
    indices = informative_rows(columns, 1, 6)
    sizes = columns[:, 0] / columns[:, 0].mean()
    # The first column relative to the size is the same for all.
    features = np.column_stack([sizes, columns[:, 1:] / sizes[:, None]])
    rows = np.column_stack([(features - features.mean(0)) / features.std(0), np.ones(40)])
    for count in range(6):
        information = 0.1 * np.eye(4) + rows[indices[:count]].T @ rows[indices[:count]]
        # The determinant that each network would give; the chosen one has the largest.
        determinants = [np.linalg.det(information + np.outer(row, row)) for row in rows]
        for index in indices[:count]:
            determinants[index] = 0.0
        assert int(np.argmax(determinants)) == indices[count]


def test_a_space_with_too_few_networks_is_refused(space: StagedSpace) -> None:
    one = dataclasses.replace(space, resolutions=(16,)).restrict(
        {"depth": [1], "kernel_size": [3], "expand_ratio": [2]}
    )
    with pytest.raises(UserError, match="1 distinct networks; 10 are to be measured"):
        choose_networks(Columns(one), 10, 0)
