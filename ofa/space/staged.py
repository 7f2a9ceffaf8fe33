"""`StagedSpace`: a space declared by stages of blocks, like the published families."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from typing_extensions import override

from ofa.common.errors import UserError
from ofa.space.genes import Condition, Gene
from ofa.space.space import SearchSpace, identifying_values
from ofa.space.stages import StageSpec, StemSpec, check_choices
from ofa.space.subnet import BlockConfig, StemConfig, SubnetConfig

MAX_SIDE, MAX_CHANNELS, MAX_DEPTH = 16_384, 2**22, 256
"""Largest side of an image in pixels, numbers of channels or classes, and numbers of blocks or stages."""

STEM_GENES = ("stem.depth", "stem.inner_width", "stem.width")


def stage_gene(kind: str, stage: int, block: int | None = None) -> str:
    """Return the name of the gene of a stage, or of one of its blocks."""
    return f"stages.{stage}.{kind}" if block is None else f"stages.{stage}.blocks.{block}.{kind}"


class ImageFacts(Protocol):
    """Properties of images that a space depends on; image sets and their descriptions have them."""

    @property
    def in_channels(self) -> int:
        """Number of channels of an image."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""


@dataclass(frozen=True)
class StagedSpace(SearchSpace[SubnetConfig]):
    """A space of networks that consist of stages.

    Kinds of genes: resolution, stem_depth, width, depth, kernel_size, expand_ratio, rank.

    Attributes:
        family: name of the rule that turns the declaration into layers; see `ofa.architecture.lowering`.
        resolutions: input sizes in pixels.
        stem_channels: output channels of the stem, before multipliers.
        stem_stride: stride of the first convolution.
        stages: declarations of the elastic stages.
        head_channels: widths of the convolutions between stages and classifier; the family sets their number.
        width_multiplier: factor of all channels.
        num_classes: number of outputs of the classifier.
        in_channels: number of channels of the images.
        bn_epsilon: epsilon of batch norm.
        first_block_channels: output channels of the block before the elastic stages; None: those of the stem.
        stem: elastic choices of the stem; None for a fixed stem.
    """

    family: str
    resolutions: tuple[int, ...]
    stem_channels: int
    stem_stride: int
    stages: tuple[StageSpec, ...]
    head_channels: tuple[int, ...]
    width_multiplier: float = 1.0
    num_classes: int = 1000
    in_channels: int = 3
    bn_epsilon: float = 1e-5
    first_block_channels: int | None = None
    stem: StemSpec | None = None

    def for_data(self, data: ImageFacts) -> StagedSpace:
        """Return the space with the channels and the number of classes of an image set."""
        return replace(self, in_channels=data.in_channels, num_classes=data.num_classes)

    # Otherwise the dataclass defines a hash that walks all stages at every cache look-up.
    __hash__ = SearchSpace.__hash__

    def __post_init__(self) -> None:
        """Check the resolutions and the sizes that every family needs."""
        check_choices("resolutions", self.resolutions)
        _check_sizes(self)
        if not self.stages:
            raise UserError("A space needs at least one stage.")
        if len({bool(stage.widths) for stage in self.stages}) > 1:
            raise UserError("Some stages have widths; expected them in every stage or in none.")
        for name in ("stem_channels", "stem_stride", "num_classes", "in_channels"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if self.first_block_channels is not None and self.first_block_channels < 1:
            raise UserError(f"first_block_channels is {self.first_block_channels}; expected at least 1.")
        if self.head_channels and min(self.head_channels) < 1:
            raise UserError(f"head_channels are {list(self.head_channels)}; expected at least 1.")
        if not self.width_multiplier > 0:
            raise UserError(f"width_multiplier is {self.width_multiplier}; expected a positive number.")
        check_resolutions(self, self.stem_stride * math.prod(stage.stride for stage in self.stages))
        for name in ("width_multiplier", "bn_epsilon"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """All genes: resolution, stem, then per stage width, depth and each block's choices."""
        genes = [Gene("resolution", self.resolutions, "resolution")]
        if self.stem is not None:
            stem = (self.stem.depths, self.stem.inner_widths, self.stem.widths)
            genes += map(Gene, STEM_GENES, stem, ("stem_depth", "width", "width"))
        for s, stage in enumerate(self.stages):
            part = f"stages.{s}"
            if stage.widths:
                genes.append(Gene(stage_gene("width", s), stage.widths, "width", part))
            depth = Gene(stage_gene("depth", s), stage.depths, "depth", part)
            genes.append(depth)
            for b in range(stage.depths[-1]):
                exists = Condition(depth.name, tuple(d for d in stage.depths if d > b))
                genes += (
                    Gene(stage_gene(kind, s, b), choices, kind, part, exists)
                    for kind, choices in _block_choices(stage).items()
                )
        return tuple(genes)

    @cached_property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """Stage and block of each gene, -1 for none; the stem's inner width has block 0, its width 1."""
        positions = [(-1, -1)]
        if self.stem is not None:
            positions += [(-1, -1), (-1, 0), (-1, 1)]
        for s, stage in enumerate(self.stages):
            positions += [(s, -1)] * (1 + bool(stage.widths))
            positions += [(s, b) for b in range(stage.depths[-1]) for _ in _block_choices(stage)]
        return tuple(positions)

    @override
    def identity(self) -> Mapping[str, Any]:
        return identifying_values(self.unrestricted, _ALWAYS_HASHED)

    @override
    def read(self, values: Mapping[str, Any]) -> SubnetConfig:
        return SubnetConfig.from_dict(values)

    @override
    def config_of(self, values: Mapping[str, float]) -> SubnetConfig:
        stages = tuple(
            tuple(
                BlockConfig(
                    int(values[stage_gene("kernel_size", s, b)]),
                    values[stage_gene("expand_ratio", s, b)],
                    values.get(stage_gene("rank", s, b), 1.0),
                )
                for b in range(int(values[stage_gene("depth", s)]))
            )
            for s in range(len(self.stages))
        )
        widths = tuple(values[stage_gene("width", s)] for s, stage in enumerate(self.stages) if stage.widths)
        stem = None
        if self.stem is not None:
            depth, inner_width, width = (values[name] for name in STEM_GENES)
            stem = StemConfig(int(depth), inner_width, width)
        return SubnetConfig(int(values["resolution"]), stages, widths, stem)

    @override
    def values_of(self, config: SubnetConfig) -> Mapping[str, float]:
        self._check_structure(config)
        values: dict[str, float] = {"resolution": config.resolution}
        if config.stem is not None:
            stem = config.stem
            values |= zip(STEM_GENES, (stem.depth, stem.inner_width, stem.width), strict=True)
        for s, width in enumerate(config.widths):
            values[stage_gene("width", s)] = width
        for s, (blocks, stage) in enumerate(zip(config.stages, self.stages, strict=True)):
            values[stage_gene("depth", s)] = len(blocks)
            # Report an unknown depth itself, not a block that does not exist.
            for b, block in enumerate(blocks[: stage.depths[-1]]):
                values |= {stage_gene(kind, s, b): getattr(block, kind) for kind in _block_choices(stage)}
        return values

    def _check_structure(self, config: SubnetConfig) -> None:
        """Raise unless `config` has the structure of this space: its stages, widths and stem."""
        expected = f"space {self.name!r}"
        if len(config.stages) != len(self.stages):
            raise UserError(
                f"The sub-network has {len(config.stages)} stages; {expected} has {len(self.stages)}."
            )
        if bool(config.widths) != bool(self.stages[0].widths):
            has, asks = ("has", "none") if config.widths else ("lacks", "one of each stage")
            raise UserError(f"The sub-network {has} widths; {expected} expects {asks}.")
        for s, (blocks, stage) in enumerate(zip(config.stages, self.stages, strict=True)):
            if not stage.ranks and any(block.rank != 1 for block in blocks):
                raise UserError(f"Stage {s} of the sub-network has ranks; {expected} expects none.")
        if (config.stem is None) != (self.stem is None):
            has, asks = ("has", "none") if config.stem else ("lacks", "them")
            raise UserError(f"The sub-network {has} choices of the stem; {expected} expects {asks}.")


def _block_choices(stage: StageSpec) -> dict[str, tuple[float, ...]]:
    """Return the choices of each block of a stage by the kind of their genes."""
    choices = {"kernel_size": stage.kernel_sizes, "expand_ratio": stage.expand_ratios}
    return choices | ({"rank": stage.ranks} if stage.ranks else {})


def _check_sizes(space: StagedSpace) -> None:
    """Raise the error for a declaration that stands for more genes or weights than any memory holds."""
    channels = (space.stem_channels, *space.head_channels, *(stage.channels for stage in space.stages))
    depths = [stage.depths[-1] for stage in space.stages]
    sizes = {
        "resolutions": (space.resolutions, MAX_SIDE),
        "channels": ((*channels, space.in_channels, space.num_classes), MAX_CHANNELS),
        "depths": ((*depths, len(depths)), MAX_DEPTH),
    }
    for name, (values, maximum) in sizes.items():
        if values and max(values) > maximum:
            raise UserError(f"{name} of a space include {max(values)}; expected at most {maximum}.")


def check_resolutions(space: StagedSpace, total_stride: int) -> None:
    """Raise the error for images that layers of this total stride leave no whole pixel of.

    Args:
        space: space whose resolutions are checked.
        total_stride: product of the strides of all layers.

    Raises:
        UserError: naming the resolutions that are too small, and the smallest possible one.
    """
    too_small = [resolution for resolution in space.resolutions if resolution < total_stride]
    if too_small:
        raise UserError(
            f"resolutions of space {space.name!r} include {', '.join(map(str, too_small))} px, less than the "
            f"total stride of its layers, {total_stride}; the smallest possible resolution is {total_stride}."
        )


# Fields with a default that are part of every fingerprint nevertheless, because they were part of the first
# ones. Never add a name: see `ofa.space.space.identifying_values`.
_ALWAYS_HASHED: dict[type, tuple[str, ...]] = {
    StagedSpace: (
        *("width_multiplier", "num_classes", "in_channels", "bn_epsilon"),
        *("first_block_channels", "stem"),
    ),
    StageSpec: ("widths",),
}
