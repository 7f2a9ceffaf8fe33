"""Tests of ofa.space."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa.architecture.lowering import lower, slots
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.space.genes import unique_rows
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec, StemSpec
from ofa.space.subnet import BlockConfig, StemConfig, SubnetConfig

SPACE_FILES = sorted((Path(__file__).resolve().parents[3] / "conf" / "space").glob("*.yaml"))


def raw_genomes(space: StagedSpace, count: int, seed: int) -> Any:
    """Return rows of valid choice indices, not canonical."""
    counts = [len(gene.choices) for gene in space.genes]
    return np.random.default_rng(seed).integers(0, counts, (count, len(counts)), dtype=np.int8)


def every_config(space: StagedSpace) -> Iterator[SubnetConfig]:
    """Enumerate the networks of a whole space from its declaration, without genes."""
    per_stage = []
    for stage in space.stages:
        choices = itertools.product(stage.kernel_sizes, stage.expand_ratios, stage.ranks or (1.0,))
        blocks = [BlockConfig(*choice) for choice in choices]
        per_stage.append([c for depth in stage.depths for c in itertools.product(blocks, repeat=depth)])
    stems: list[StemConfig | None] = [None]
    if space.stem is not None:
        parts = itertools.product(space.stem.depths, space.stem.inner_widths, space.stem.widths)
        stems = [StemConfig(*part) for part in parts]
    widths = [stage.widths for stage in space.stages if stage.widths]
    for resolution, stem, chosen in itertools.product(space.resolutions, stems, itertools.product(*widths)):
        for stages in itertools.product(*per_stage):
            yield SubnetConfig(resolution, stages, chosen, stem)


# -- what a space is -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)
def test_every_space_file_builds_and_lowers(path: Path, load_space: Callable[[str], StagedSpace]) -> None:
    space = load_space(path.stem)
    assert space.name == path.stem
    for config in (space.smallest, space.largest):
        assert space.contains(config) and lower(space, config)


SIZES = {
    "micro_space": 2 * (4 + 16) * (6 + 36),
    "micro_proxyless": 2 * (6 + 36) * 4,
    "micro_resnet": 2 * (2 * 2 * 2) * (3 * (2 + 4)) * (3 * (4 + 8)),
    "micro_resnet_rank": 2 * (2 * 2 * 2) * (2 * (2 + 4)) * (2 * (4 + 8)),
}


@pytest.mark.parametrize("name", SIZES)
def test_size_is_the_number_of_enumerated_networks(name: str, request: pytest.FixtureRequest) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    configs = set(every_config(space))
    assert len(configs) == space.size == SIZES[name]
    raw = np.array(list(itertools.product(*(range(len(gene.choices)) for gene in space.genes))), np.int8)
    canonical = np.unique(space.canonical(raw), axis=0)
    assert len(canonical) == space.size
    assert {space.config(genome) for genome in canonical} == configs


@pytest.mark.parametrize("name", SIZES)
def test_everything_is_each_network_once(name: str, request: pytest.FixtureRequest) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    genomes = space.all_genomes()
    assert genomes.dtype == np.int8 and len(genomes) == space.size
    assert {space.config(genome) for genome in genomes} == set(every_config(space))
    assert np.array_equal(genomes, np.unique(genomes, axis=0)) and is_canonical(space, genomes)
    part = space.keep_largest({"depth": 1, "resolution": 1, "width": 2})
    assert len(part.all_genomes()) == part.size
    expected = {config for config in every_config(space) if part.contains(config)}
    assert {space.config(genome) for genome in part.all_genomes()} == expected


@pytest.mark.parametrize("name", SIZES)
def test_different_configs_are_different_networks(name: str, request: pytest.FixtureRequest) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    assert len({lower(space, config) for config in every_config(space)}) == space.size


def test_full_space_has_the_published_number_of_networks(full_space: StagedSpace) -> None:
    per_resolution = full_space.size / len(full_space.resolutions)
    assert full_space.size == len(full_space.resolutions) * 7371**5
    assert 2e19 < per_resolution < 2.5e19


def test_published_families_have_the_sizes_of_their_choices(
    load_space: Callable[[str], StagedSpace],
) -> None:
    per_stage = 9**2 + 9**3 + 9**4
    assert load_space("proxyless_nas").size == load_space("mobilenet_v2").size == 7 * per_stage**5 * 9
    three, seven = 3**2 + 3**3 + 3**4, 3**4 + 3**5 + 3**6
    stem = 2 * 2 * 3
    assert load_space("resnet50").size == 8 * stem * 3**4 * three**3 * seven


def test_genes_of_elastic_stem_and_widths(micro_resnet: StagedSpace) -> None:
    genes = micro_resnet.genes
    keys = [(gene.kind, *position) for gene, position in zip(genes, micro_resnet.positions, strict=True)]
    assert keys[:7] == [
        ("resolution", -1, -1),
        ("stem_depth", -1, -1),
        ("width", -1, 0),
        ("width", -1, 1),
        ("width", 0, -1),
        ("depth", 0, -1),
        ("kernel_size", 0, 0),
    ]
    assert keys[10:12] == [("width", 1, -1), ("depth", 1, -1)] and len(keys) == 18
    assert [gene.name for gene in genes[:6]] == [
        *("resolution", "stem.depth", "stem.inner_width", "stem.width", "stages.0.width", "stages.0.depth")
    ]
    assert micro_resnet.gene_index == {gene.name: column for column, gene in enumerate(genes)}


def test_genes_of_elastic_ranks(micro_resnet_rank: StagedSpace) -> None:
    space = micro_resnet_rank
    positions = dict(zip((gene.name for gene in space.genes), space.positions, strict=True))
    ranks = [gene for gene in space.genes if gene.kind == "rank"]
    assert [gene.choices for gene in ranks] == [(0.25, 1.0)] * 2 + [(0.25, 0.5)] * 3
    assert positions["stages.1.blocks.2.rank"] == (1, 2)
    deepest = next(gene for gene in ranks if gene.name == "stages.1.blocks.2.rank")
    assert deepest.active_if is not None and deepest.active_if.values == (3,)
    whole = space.restrict({"rank": [0.5, 1.0]})
    assert {block.rank for block in whole.smallest.stages[0]} == {1.0}
    assert {block.rank for block in whole.largest.stages[1]} == {0.5}


def test_genes_are_the_resolution_then_each_stages_depth_and_blocks(micro_space: StagedSpace) -> None:
    pairs = zip(micro_space.genes, micro_space.positions, strict=True)
    assert [(gene.kind, *position) for gene, position in pairs] == [
        ("resolution", -1, -1),
        ("depth", 0, -1),
        ("kernel_size", 0, 0),
        ("expand_ratio", 0, 0),
        ("kernel_size", 0, 1),
        ("expand_ratio", 0, 1),
        ("depth", 1, -1),
        ("kernel_size", 1, 0),
        ("expand_ratio", 1, 0),
        ("kernel_size", 1, 1),
        ("expand_ratio", 1, 1),
    ]


# -- genomes and configs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("micro_space", "small_space", "tiny_space", "full_space", "micro_proxyless", "micro_resnet"),
        "micro_resnet_rank",
    ],
)
def test_genome_of_config_of_genome_is_the_genome(name: str, request: pytest.FixtureRequest) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    genomes = space.sample(10_000, np.random.default_rng(0))
    assert genomes.shape == (10_000, len(space.genes)) and genomes.dtype == np.int8
    assert np.array_equal(space.genomes([space.config(genome) for genome in genomes]), genomes)


@pytest.mark.parametrize("name", ["proxyless_nas", "mobilenet_v2", "resnet50", "resnet50_rank"])
def test_published_families_round_trip_and_encode_injectively(
    name: str, load_space: Callable[[str], StagedSpace]
) -> None:
    space = load_space(name)
    genomes = space.sample(3000, np.random.default_rng(0))
    assert np.array_equal(space.genomes([space.config(genome) for genome in genomes]), genomes)
    distinct = genomes[unique_rows(genomes)]
    assert len(np.unique(space.encode(distinct), axis=0)) == len(distinct)


def test_config_holds_stem_and_widths(micro_resnet: StagedSpace) -> None:
    quarter, half = BlockConfig(3, 0.25), BlockConfig(3, 0.5)
    stages = ((half,), (quarter, half))
    config = SubnetConfig(20, stages, (0.75, 0.5), StemConfig(1, 0.5, 1.0))
    genome = micro_resnet.genome(config)
    assert genome.tolist() == [1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert micro_resnet.config(genome) == config
    # Resolution, stem depth, stem widths, then per stage its width and two or three blocks.
    (row,) = micro_resnet.encode(genome[None])
    assert micro_resnet.num_features == 2 + 2 + 2 + 2 + (3 + 2 * 3) + (3 + 3 * 3)
    assert set(np.flatnonzero(row)) == {1, 3, 4, 7, 9, 11, 13, 17, 20, 21, 23, 25}


def test_genomes_of_no_networks(micro_space: StagedSpace) -> None:
    assert micro_space.genomes([]).shape == (0, 11)


def test_raw_genomes_of_one_network_are_one_canonical_row(small_space: StagedSpace) -> None:
    raw = raw_genomes(small_space, 2000, 1)
    other = raw.copy()
    fresh = raw_genomes(small_space, 2000, 2)
    inactive = ~small_space.active(raw)
    other[inactive] = fresh[inactive]
    assert (other != raw).any(axis=1).sum() > 500
    assert [small_space.config(g) for g in raw] == [small_space.config(g) for g in other]
    canonical = small_space.canonical(raw)
    assert np.array_equal(canonical, small_space.canonical(other))
    assert np.array_equal(canonical, small_space.canonical(canonical))
    assert np.array_equal(canonical, small_space.genomes([small_space.config(g) for g in raw]))


def test_config_holds_the_values_of_its_genes(small_space: StagedSpace) -> None:
    genome = small_space.genome(
        SubnetConfig(
            28,
            (
                (BlockConfig(5, 6),),
                (BlockConfig(3, 3), BlockConfig(7, 4)),
                (BlockConfig(7, 6), BlockConfig(3, 4), BlockConfig(5, 3)),
            ),
        )
    )
    stages = [[0, 1, 2, 0, 0, 0, 0], [1, 0, 0, 2, 1, 0, 0], [2, 2, 2, 0, 1, 1, 0]]
    assert genome.tolist() == [3, *itertools.chain(*stages)]


@pytest.mark.parametrize("name", ["small_space", "tiny_space", "full_space"])
def test_encoding_is_injective(name: str, request: pytest.FixtureRequest) -> None:
    space: StagedSpace = request.getfixturevalue(name)
    genomes = space.sample(12_000, np.random.default_rng(3))
    genomes = genomes[unique_rows(genomes)][:10_000]
    assert len(genomes) == 10_000
    features = space.encode(genomes)
    assert features.shape == (10_000, space.num_features) and features.dtype == np.float32
    assert len(np.unique(features, axis=0)) == 10_000


def test_encoding_is_one_hot_over_resolution_and_active_blocks(small_space: StagedSpace) -> None:
    genomes = small_space.sample(200, np.random.default_rng(4))
    features = small_space.encode(genomes)
    assert small_space.num_features == 5 + 9 * (3 + 3) and set(np.unique(features)) == {0.0, 1.0}
    blocks = [sum(small_space.config(genome).depths) for genome in genomes]
    assert np.array_equal(features.sum(axis=1), 1 + 2 * np.array(blocks))
    config = SubnetConfig(20, ((BlockConfig(7, 3),), (BlockConfig(3, 4),), (BlockConfig(5, 6),)))
    (row,) = small_space.encode(small_space.genome(config)[None])
    # 5 resolutions, then per stage three blocks of 3 kernels and 3 ratios.
    assert set(np.flatnonzero(row)) == {1, 5 + 2, 5 + 3, 23 + 0, 23 + 4, 41 + 1, 41 + 5}


def test_encoding_ignores_genes_of_inactive_blocks(small_space: StagedSpace) -> None:
    raw = raw_genomes(small_space, 500, 5)
    assert np.array_equal(small_space.encode(raw), small_space.encode(small_space.canonical(raw)))


def test_unique_rows_are_first_occurrences_in_order() -> None:
    rows = np.array([[3, 1], [0, 2], [3, 1], [0, 0], [0, 2]], np.int8)
    assert unique_rows(rows).tolist() == [0, 1, 3]


# -- drawing -------------------------------------------------------------------------------------


def is_canonical(space: StagedSpace, genomes: Any) -> bool:
    return genomes.dtype == np.int8 and np.array_equal(genomes, space.canonical(genomes))


def test_sample_is_canonical_uniform_per_gene_and_a_function_of_the_generator(
    small_space: StagedSpace,
) -> None:
    genomes = small_space.sample(9000, np.random.default_rng(6))
    assert is_canonical(small_space, genomes)
    assert np.array_equal(genomes, small_space.sample(9000, np.random.default_rng(6)))
    assert not np.array_equal(genomes, small_space.sample(9000, np.random.default_rng(7)))
    for column, gene in enumerate(small_space.genes):
        picked = genomes[small_space.active(genomes)[:, column], column]
        shares = np.bincount(picked, minlength=len(gene.choices)) / len(picked)
        # Five standard deviations of a share among at least 3000 draws are below 0.05.
        assert np.abs(shares - 1 / len(gene.choices)).max() < 0.05


def test_operators_stay_inside_a_restricted_space(small_space: StagedSpace) -> None:
    space = small_space.restrict(
        {"resolution": (20, 28), "depth": (2, 3), "kernel_size": (5, 7), "expand_ratio": (4,)}
    )
    rng = np.random.default_rng(8)
    parents = space.sample(300, rng)
    for genomes in (
        parents,
        space.mutate(parents, 0.3, rng),
        space.mutate(parents, 1.0, rng),
    ):
        assert is_canonical(space, genomes)
        assert all(space.contains(space.config(genome)) for genome in genomes)


def test_mutation_rate(small_space: StagedSpace) -> None:
    rng = np.random.default_rng(9)
    parents = small_space.sample(4000, rng)
    assert np.array_equal(small_space.mutate(parents, 0.0, rng), parents)
    children = small_space.mutate(parents, 0.2, rng)
    assert is_canonical(small_space, children)
    # A redrawn gene of n choices keeps its value with chance 1/n; the resolution has five.
    assert np.mean(children[:, 0] != parents[:, 0]) == pytest.approx(0.2 * 4 / 5, abs=0.03)


def test_blocks_that_a_deeper_child_activates_are_drawn_afresh(small_space: StagedSpace) -> None:
    rng = np.random.default_rng(10)
    shallow = np.repeat(small_space.genome(small_space.smallest)[None], 4000, axis=0)
    children = small_space.mutate(shallow, 0.1, rng)
    kernel = small_space.gene_index["stages.0.blocks.2.kernel_size"]
    grown = children[small_space.active(children)[:, kernel], kernel]
    assert len(grown) > 50 and len(np.unique(grown)) == 3


def test_restriction_keeps_genes_and_fingerprint(small_space: StagedSpace) -> None:
    space = small_space.restrict(
        {"resolution": (24,), "depth": (2, 3), "kernel_size": (7,), "expand_ratio": (3, 6)}
    )
    assert space.genes == small_space.genes and space.fingerprint == small_space.fingerprint
    assert space.unrestricted == small_space and space != small_space
    assert space.size == (2**2 + 2**3) ** 3
    assert space.num_features == small_space.num_features
    assert space.smallest.depths == (2, 2, 2) and space.largest.depths == (3, 3, 3)
    assert space.smallest.stages[0][0] == BlockConfig(7, 3) and space.smallest.resolution == 24
    assert space.contains(space.largest) and not space.contains(small_space.largest)
    assert np.array_equal(space.genome(space.largest), small_space.genome(space.largest))


def test_restrictions_compose(small_space: StagedSpace) -> None:
    once = small_space.restrict({"kernel_size": (5, 7), "depth": (3,)})
    assert small_space.restrict({"kernel_size": (5, 7)}).restrict({"depth": (3,)}) == once
    with pytest.raises(UserError, match=r"No kernel_size is left of 3, 5, 7 .* \(3,\)"):
        once.restrict({"kernel_size": (3,)})


def test_largest_choices(small_space: StagedSpace) -> None:
    space = small_space.keep_largest({"depth": 1, "kernel_size": 2, "expand_ratio": 1})
    assert space == small_space.restrict({"depth": (3,), "kernel_size": (5, 7), "expand_ratio": (6,)})
    assert small_space.keep_largest({}) == small_space.restrict()


def test_widths_and_stem_are_restricted(micro_resnet: StagedSpace) -> None:
    space = micro_resnet.restrict({"width": (0.5, 1.0), "stem_depth": (0,)})
    assert space.size == micro_resnet.size // 2 * 4 // 9
    assert micro_resnet.keep_largest({"width": 1, "stem_depth": 1}).smallest == SubnetConfig(
        16, ((BlockConfig(3, 0.25),), (BlockConfig(3, 0.25),) * 2), (1.0, 1.0), StemConfig(1, 1.0, 1.0)
    )
    with pytest.raises(UserError, match=r"No width is left of 0.5, 1 .* \(0.75,\)"):
        micro_resnet.restrict({"width": (0.75,)})


def test_restricted_size_equals_enumeration(micro_space: StagedSpace) -> None:
    space = micro_space.restrict({"depth": (2,), "kernel_size": (3, 7), "resolution": (12,)})
    assert space.size == sum(space.contains(config) for config in every_config(micro_space)) == 4 * 16


def test_fingerprint_is_a_function_of_the_whole_space(micro_space: StagedSpace) -> None:
    loaded = build(StagedSpace, json.loads(json.dumps(micro_space.to_dict())))
    assert loaded == micro_space and loaded.fingerprint == micro_space.fingerprint
    assert len(micro_space.fingerprint) == 16
    stage = dataclasses.replace(micro_space.stages[0], stride=2)
    changes: list[dict[str, Any]] = [
        {"name": "other"},
        {"resolutions": (8, 16)},
        {"num_classes": 6},
        {"width_multiplier": 1.5},
        {"bn_epsilon": 1e-3},
        {"stages": (stage, micro_space.stages[1])},
    ]
    changes += [{"first_block_channels": 8}, {"stem": StemSpec((0, 1), (1.0,), (1.0,))}]
    others = {dataclasses.replace(micro_space, **change).fingerprint for change in changes}
    assert len(others) == len(changes) and micro_space.fingerprint not in others


def test_space_with_stem_and_widths_comes_back_from_json(micro_resnet: StagedSpace) -> None:
    loaded = build(StagedSpace, json.loads(json.dumps(micro_resnet.to_dict())))
    assert loaded == micro_resnet and loaded.fingerprint == micro_resnet.fingerprint


def test_ranks_come_back_from_json(micro_resnet: StagedSpace, micro_resnet_rank: StagedSpace) -> None:
    loaded = build(StagedSpace, json.loads(json.dumps(micro_resnet_rank.to_dict())))
    assert loaded == micro_resnet_rank and loaded.fingerprint == micro_resnet_rank.fingerprint
    assert micro_resnet_rank.fingerprint != micro_resnet.fingerprint
    earlier = micro_resnet.to_dict()
    for stage in earlier["stages"]:
        del stage["ranks"]
    assert build(StagedSpace, earlier) == micro_resnet


def test_unexpected_ranks_are_named(micro_resnet: StagedSpace, micro_resnet_rank: StagedSpace) -> None:
    config = dataclasses.replace(micro_resnet.largest, stages=micro_resnet_rank.largest.stages)
    with pytest.raises(UserError, match="Stage 1 of the sub-network has ranks; space 'micro_resnet' expects"):
        micro_resnet.genome(config)
    with pytest.raises(UserError, match=r"stages.1.blocks.0.rank is 1; .* choices 0.25, 0.5\."):
        micro_resnet_rank.genome(
            dataclasses.replace(micro_resnet_rank.largest, stages=micro_resnet.largest.stages)
        )


def test_fingerprints_of_files_made_so_far_stay(load_space: Callable[[str], StagedSpace], root: Path) -> None:
    """Tables, checkpoints, predictors and records that people have carry these."""
    expected = json.loads((root / "tests" / "data" / "earlier_run" / "expected.json").read_text())
    for name, fingerprint in expected["fingerprints"].items():
        name, _, changed = name.partition("/")
        if name != "earlier_run":
            space = load_space(name)
            space = dataclasses.replace(space, num_classes=37) if changed else space
            assert space.fingerprint == fingerprint


def test_a_new_optional_field_counts_only_where_it_is_set(micro_space: StagedSpace) -> None:
    @dataclasses.dataclass(frozen=True)
    class LaterStage(StageSpec):
        new_choice: tuple[int, ...] = ()

    @dataclasses.dataclass(frozen=True)
    class LaterSpace(StagedSpace):
        new_option: bool = False

    later_stages = tuple(LaterStage(**vars(stage)) for stage in micro_space.stages)
    fields = {field.name: getattr(micro_space, field.name) for field in dataclasses.fields(micro_space)}
    later = LaterSpace(**{**fields, "stages": later_stages})
    assert later.fingerprint == micro_space.fingerprint
    assert dataclasses.replace(later, new_option=True).fingerprint != later.fingerprint
    changed = (dataclasses.replace(later_stages[0], new_choice=(1,)), *later_stages[1:])
    assert dataclasses.replace(later, stages=changed).fingerprint != later.fingerprint


def test_equal_spaces_have_equal_fingerprints(micro_space: StagedSpace) -> None:
    stages = [
        dataclasses.replace(stage, expand_ratios=tuple(int(e) for e in stage.expand_ratios))
        for stage in micro_space.stages
    ]
    same = dataclasses.replace(micro_space, stages=tuple(stages), width_multiplier=1)
    assert same == micro_space and same.fingerprint == micro_space.fingerprint


# -- mistakes ------------------------------------------------------------------------------------

BLOCK = BlockConfig(3, 4)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            SubnetConfig(30, ((BLOCK,),) * 3),
            "resolution is 30; space 'small' has the choices 16, 20, 24, 28, 32.",
        ),
        (
            SubnetConfig(28, ((BLOCK,), (BLOCK,) * 4, (BLOCK,))),
            "stages.1.depth is 4; space 'small' has the choices 1, 2, 3.",
        ),
        (
            SubnetConfig(28, ((BLOCK,), (BLOCK,), (BLOCK, BlockConfig(9, 4)))),
            "stages.2.blocks.1.kernel_size is 9; space 'small' has the choices 3, 5, 7.",
        ),
        (
            SubnetConfig(28, ((BlockConfig(3, 2.5),), (BLOCK,), (BLOCK,))),
            "stages.0.blocks.0.expand_ratio is 2.5; space 'small' has the choices 3, 4, 6.",
        ),
        (
            SubnetConfig(28, ((BLOCK,), (BLOCK,))),
            "The sub-network has 2 stages; space 'small' has 3.",
        ),
    ],
)
def test_config_outside_the_space_names_field_value_and_choices(
    small_space: StagedSpace, config: SubnetConfig, text: str
) -> None:
    with pytest.raises(UserError) as caught:
        small_space.genome(config)
    assert str(caught.value) == text
    assert not small_space.contains(config)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"widths": ()}, "The sub-network lacks widths; space 'micro_resnet' expects one of each stage."),
        ({"stem": None}, "The sub-network lacks choices of the stem; space 'micro_resnet' expects them."),
        (
            {"widths": (1.0, 0.8)},
            "stages.1.width is 0.8; space 'micro_resnet' has the choices 0.5, 0.75, 1.",
        ),
        (
            {"stem": StemConfig(2, 1.0, 1.0)},
            "stem.depth is 2; space 'micro_resnet' has the choices 0, 1.",
        ),
        (
            {"stem": StemConfig(1, 1.0, 0.75)},
            "stem.width is 0.75; space 'micro_resnet' has the choices 0.5, 1.",
        ),
    ],
)
def test_wrong_stem_and_widths_are_named(
    micro_resnet: StagedSpace, change: dict[str, Any], text: str
) -> None:
    with pytest.raises(UserError) as caught:
        micro_resnet.genome(dataclasses.replace(micro_resnet.largest, **change))
    assert str(caught.value) == text


def test_unexpected_stem_and_widths_are_named(micro_space: StagedSpace) -> None:
    largest = micro_space.largest
    with pytest.raises(UserError, match="has widths; space 'micro' expects none"):
        micro_space.genome(dataclasses.replace(largest, widths=(1.0, 1.0)))
    with pytest.raises(UserError, match="has choices of the stem; space 'micro' expects none"):
        micro_space.genome(dataclasses.replace(largest, stem=StemConfig(0, 1.0, 1.0)))


def test_config_outside_a_restricted_space_names_what_is_left(small_space: StagedSpace) -> None:
    space = small_space.restrict({"kernel_size": (5, 7)})
    with pytest.raises(UserError, match=r"stages.0.blocks.0.kernel_size is 3; .* choices 5, 7\."):
        space.genome(small_space.smallest)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"depths": (2, 1)}, r"depths are \[2, 1\]; expected distinct positive numbers in ascending order"),
        ({"kernel_sizes": ()}, r"kernel_sizes are \[\]"),
        ({"kernel_sizes": (3, 4)}, r"kernel_sizes are \[3, 4\]; expected odd numbers"),
        ({"expand_ratios": (3.0, 3.0)}, "expand_ratios are"),
        ({"activation": "swish"}, "activation is 'swish'; expected relu, relu6 or hard_swish"),
        ({"stride": 0}, "channels and stride of a stage must be at least 1"),
        ({"ranks": (0.5, 0.25)}, r"ranks are \[0.5, 0.25\]; expected distinct positive numbers in ascending"),
        ({"ranks": (0.5, 1.5)}, r"ranks are \[0.5, 1.5\]; expected shares of the full rank, up to 1"),
    ],
)
def test_wrong_stage_is_a_user_error(micro_space: StagedSpace, change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        dataclasses.replace(micro_space.stages[0], **change)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"resolutions": (12, 8)}, r"resolutions are \[12, 8\]"),
        ({"stages": ()}, "at least one stage"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"head_channels": (0, 8)}, r"head_channels are \[0, 8\]; expected at least 1"),
        ({"first_block_channels": 0}, "first_block_channels is 0; expected at least 1"),
        ({"width_multiplier": 0.0}, "width_multiplier is 0.0; expected a positive number"),
    ],
)
def test_wrong_space_is_a_user_error(micro_space: StagedSpace, change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        dataclasses.replace(micro_space, **change)


def test_wrong_widths_and_stems_are_user_errors(micro_resnet: StagedSpace) -> None:
    first, second = micro_resnet.stages
    with pytest.raises(UserError, match=r"widths are \[1.0, 0.5\]; expected distinct positive numbers"):
        dataclasses.replace(first, widths=(1.0, 0.5))
    with pytest.raises(UserError, match="Some stages have widths; expected them in every stage or in none"):
        dataclasses.replace(micro_resnet, stages=(first, dataclasses.replace(second, widths=())))
    with pytest.raises(
        UserError, match=r"depths of the stem are \[-1, 1\]; expected distinct numbers from 0"
    ):
        StemSpec((-1, 1), (1.0,), (1.0,))
    with pytest.raises(UserError, match=r"inner_widths of the stem are \[\]"):
        StemSpec((0, 1), (), (1.0,))


def test_depths_may_start_anywhere() -> None:
    stage = StageSpec(8, 1, (2, 4), (3,), (2.0, 3.0), "relu", False)
    space = StagedSpace("gap", "mobilenet_v3", (8,), 8, 1, (stage,), (16, 16))
    assert space.size == len(set(every_config(space))) == 2**2 + 2**4
    genomes = space.sample(2000, np.random.default_rng(0))
    assert {space.config(genome) for genome in genomes} == set(every_config(space))
    assert np.array_equal(space.genomes([space.config(genome) for genome in genomes]), genomes)


def test_images_smaller_than_the_total_stride_are_refused_where_the_space_is_made(
    micro_space: StagedSpace, micro_resnet: StagedSpace
) -> None:
    # Strides 1, 1 and 2.
    assert dataclasses.replace(micro_space, resolutions=(2, 12)).smallest.resolution == 2
    strided = dataclasses.replace(micro_space, stem_stride=4, resolutions=(8, 12))
    message = (
        r"include 4, 6 px, less than the total stride of its layers, 8; the smallest possible resolution is 8"
    )
    with pytest.raises(UserError, match=message):
        dataclasses.replace(strided, resolutions=(4, 6, 12))
    # The max-pooling of a ResNet halves once more: 2 * 2 * 1 * 2.
    assert slots(dataclasses.replace(micro_resnet, resolutions=(8, 16)))
    with pytest.raises(UserError, match="include 6 px, less than the total stride of its layers, 8"):
        slots(dataclasses.replace(micro_resnet, resolutions=(6, 16)))
