"""A sub-network as the values of its genes, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ofa.common.errors import UserError
from ofa.space.genes import GeneKey
from ofa.space.stages import StageSpec, StemSpec
from ofa.space.subnet import BlockConfig, StemConfig, SubnetConfig


def gene_values(config: SubnetConfig) -> Iterator[tuple[GeneKey, float]]:
    """Yield key and value of every gene that matters for `config`, a stage's depth before its blocks."""
    yield ("resolution", -1, -1), config.resolution
    if config.stem is not None:
        yield ("stem_depth", -1, -1), config.stem.depth
        yield ("width", -1, 0), config.stem.inner_width
        yield ("width", -1, 1), config.stem.width
    for s, width in enumerate(config.widths):
        yield ("width", s, -1), width
    for s, blocks in enumerate(config.stages):
        yield ("depth", s, -1), len(blocks)
        for b, block in enumerate(blocks):
            yield ("kernel_size", s, b), block.kernel_size
            yield ("expand_ratio", s, b), block.expand_ratio


def check_structure(
    config: SubnetConfig, stages: Sequence[StageSpec], stem: StemSpec | None, name: str
) -> None:
    """Raise unless `config` has the parts that networks of a space have: stages, widths and stem.

    Args:
        config: of whatever space.
        stages: of the space.
        stem: of the space.
        name: of the space, for the error.
    """
    if len(config.stages) != len(stages):
        raise UserError(f"The sub-network has {len(config.stages)} stages; space {name!r} has {len(stages)}.")
    if bool(config.widths) != bool(stages[0].widths):
        found, expected = ("has", "none") if config.widths else ("lacks", "one of each stage")
        raise UserError(f"The sub-network {found} widths; space {name!r} expects {expected}.")
    if (config.stem is None) != (stem is None):
        found, expected = ("has", "none") if config.stem else ("lacks", "them")
        raise UserError(f"The sub-network {found} choices of the stem; space {name!r} expects {expected}.")


def config_of(values: Mapping[GeneKey, float]) -> SubnetConfig:
    """Return the sub-network of all genes' values; those of inactive blocks make no difference."""
    num_stages = sum(kind == "depth" for kind, _, _ in values)
    stages = tuple(
        tuple(
            BlockConfig(int(values["kernel_size", s, b]), values["expand_ratio", s, b])
            for b in range(int(values["depth", s, -1]))
        )
        for s in range(num_stages)
    )
    widths = tuple(values["width", s, -1] for s in range(num_stages) if ("width", s, -1) in values)
    stem = None
    if ("stem_depth", -1, -1) in values:
        depth, inner, outer = (values[key] for key in _STEM_KEYS)
        stem = StemConfig(int(depth), inner, outer)
    return SubnetConfig(int(values["resolution", -1, -1]), stages, widths, stem)


_STEM_KEYS: tuple[GeneKey, ...] = (("stem_depth", -1, -1), ("width", -1, 0), ("width", -1, 1))
