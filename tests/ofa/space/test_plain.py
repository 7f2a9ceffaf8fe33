"""Spaces that are nothing but genes, conditions among them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.space.genes import Condition, Gene
from ofa.space.onehot import OneHot
from ofa.space.plain import GeneConfig, GeneSpace
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec

GENES = (
    Gene("resolution", (16, 24), "resolution"),
    Gene("branch", (0, 1, 2), "branch"),
    Gene("left.width", (8, 16, 32), "width", "left", Condition("branch", (0, 2))),
    Gene("right.width", (8, 16), "width", "right", Condition("branch", (1, 2))),
)


@pytest.fixture
def space() -> GeneSpace:
    return GeneSpace("two_branches", GENES)


def test_conditions_switch_genes_on_by_any_set_of_values(space: GeneSpace) -> None:
    everything = space.all_genomes()
    # Left alone: 3, right alone: 2, both: 6; each at two resolutions.
    assert space.size == len(everything) == 2 * (3 + 2 + 6)
    active = space.active(everything)
    assert np.array_equal(active[:, 2], np.isin(everything[:, 1], (0, 2)))
    assert np.array_equal(active[:, 3], np.isin(everything[:, 1], (1, 2)))
    assert np.array_equal(space.canonical(everything), everything)
    drawn = space.sample(500, np.random.default_rng(0))
    assert {row.tobytes() for row in drawn} == {row.tobytes() for row in everything}


def test_configs_are_their_values_and_back(space: GeneSpace) -> None:
    configs = [space.config(genome) for genome in space.all_genomes()]
    assert len(set(configs)) == len({config.id for config in configs}) == space.size
    assert np.array_equal(space.genomes(configs), space.all_genomes())
    for config in configs:
        assert space.read(json.loads(json.dumps(config.to_dict()))) == config
    assert GeneConfig((("resolution", 16), ("branch", 1))) == GeneConfig(
        (("resolution", 16.0), ("branch", 1.0))
    )
    assert str(space.smallest) == "resolution=16 branch=0 left.width=8"


def test_restriction_and_ends(space: GeneSpace) -> None:
    wide = space.keep_largest({"width": 1}).restrict({"branch": (2,)})
    assert wide.size == 2 and wide.allowed_resolutions == (16, 24)
    assert dict(wide.largest.values) == {"resolution": 24, "branch": 2, "left.width": 32, "right.width": 16}
    assert wide.fingerprint == space.fingerprint and wide.unrestricted == space
    with pytest.raises(UserError, match="No width is left of 8, 16 after"):
        space.restrict({"width": (32,)})


def test_networks_of_other_spaces_are_refused(space: GeneSpace) -> None:
    with pytest.raises(UserError, match="left.width is 12; space 'two_branches' has the choices 8, 16, 32"):
        space.genome(GeneConfig((("resolution", 16), ("branch", 0), ("left.width", 12))))
    with pytest.raises(UserError, match="it has those of branch, left.width, resolution"):
        space.genome(GeneConfig((("resolution", 16), ("branch", 0), ("right.width", 8))))
    with pytest.raises(UserError, match="expected a number for each gene"):
        space.read({"resolution": "big"})


@pytest.mark.parametrize(
    ("genes", "text"),
    [
        ((*GENES, GENES[1]), "expected distinct names with resolution"),
        (GENES[1:], "expected distinct names with resolution"),
        ((GENES[0], Gene("x", (2, 1))), "choices of gene x are 2, 1;"),
        ((GENES[0], Gene("x", (1,), active_if=Condition("y", (1,)))), "x is switched on by y"),
        ((*GENES, Gene("x", (1,), active_if=Condition("left.width", (8,)))), "expected a gene .* always on"),
    ],
)
def test_genes_that_make_no_space_are_refused(genes: tuple[Gene, ...], text: str) -> None:
    with pytest.raises(UserError, match=text):
        GeneSpace("wrong", genes)


def test_a_space_is_its_plain_values(space: GeneSpace) -> None:
    values = json.loads(json.dumps(space.to_dict()))
    assert build(GeneSpace, values) == space and build(GeneSpace, values).fingerprint == space.fingerprint
    other = GeneSpace("two_branches", (*GENES[:3], Gene("right.width", (8, 16, 32), "width")))
    assert other.fingerprint != space.fingerprint


def test_features_leave_out_what_switches_others_on(space: GeneSpace) -> None:
    assert space.num_features == 2 + 3 + 2
    genome = space.genome(space.read({"resolution": 24, "branch": 1, "right.width": 16}))
    assert space.encode(genome[None]).tolist() == [[0, 1, 0, 0, 0, 0, 1]]
    assert OneHot(space)(genome[None]).tolist() == [[0, 1, 0, 1, 0, 1, 0, 0, 0, 1]]


def test_a_staged_space_and_a_plain_one_of_its_genes_are_alike() -> None:
    stages = (StageSpec(8, 1, (1, 2), (3, 5), (3.0, 6.0), "relu", False),) * 2
    staged = StagedSpace("staged", "mobilenet_v3", (8, 12), 8, 1, stages, (24, 32))
    plain = GeneSpace("plain", staged.genes)
    assert np.array_equal(plain.all_genomes(), staged.all_genomes())
    for one, other in zip(plain.all_genomes(), staged.all_genomes(), strict=True):
        config = staged.config(other)
        assert dict(plain.config(one).values) == dict(staged.values_of(config))
