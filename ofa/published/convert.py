"""Published networks as sub-networks of a given space, or of a space that holds just that network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ofa.architecture.common_layers import ConvSpec, LinearSpec
from ofa.architecture.layer import LayerSpec, make_divisible
from ofa.architecture.lowering import lower
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.errors import UserError
from ofa.published.network import PublishedNetwork
from ofa.space.staged import StagedSpace, stage_gene
from ofa.space.stages import StageSpec
from ofa.space.subnet import BlockConfig, SubnetConfig


def subnet_of(network: PublishedNetwork, space: StagedSpace) -> SubnetConfig:
    """Return the sub-network of the (restricted) `space` with exactly the layers of `network`.

    Raises:
        UserError: naming every reason why the space has no such sub-network.
    """
    reasons = []
    if network.family != space.family:
        raise UserError(
            f"The network {network.name} is of family {network.family}; space {space.name!r} is of family "
            f"{space.family}."
        )
    stages, space_stages = (
        _stages(network.specs),
        _stages(lower(space.unrestricted, space.unrestricted.largest)),
    )
    widths, space_widths = ([stage[0].out_channels for stage in part] for part in (stages, space_stages))
    if widths != space_widths:
        reasons.append(f"its stages have {_join(widths)} channels; those of the space {_join(space_widths)}")
    if network.resolution not in _allowed(space, "resolution"):
        choices_text = _join(_allowed(space, "resolution"))
        reasons.append(f"its resolution is {network.resolution}; the space has {choices_text}")
    blocks = []
    for index, stage in enumerate(stages[: len(space_stages)]):
        reasons += _stage_reasons(space, index, stage)
        blocks.append(
            tuple(BlockConfig(spec.kernel_size, _ratio(spec, space.stages[index])) for spec in stage)
        )
    if not reasons:
        config = SubnetConfig(network.resolution, tuple(blocks))
        pairs = itertools.zip_longest(lower(space, config), network.specs)
        different_pairs = [(ours, theirs) for ours, theirs in pairs if ours != theirs]
        if not different_pairs:
            return config
        reasons += [_difference(ours, theirs) for ours, theirs in different_pairs]
    raise UserError(
        f"The network {network.name} is no sub-network of space {space.name!r}: {'; '.join(reasons)}."
    )


def own_space(network: PublishedNetwork) -> tuple[StagedSpace, SubnetConfig]:
    """Return a small space that contains `network`, and the network as its sub-network.

    It allows exporting and costing a published network that no existing space contains.

    Raises:
        UserError: if the network does not have the structure of its family.
    """
    specs = network.specs
    stem, first_block, classifier = specs[0], specs[1], specs[-1]
    assert (
        isinstance(stem, ConvSpec)
        and isinstance(first_block, MBConvSpec)
        and isinstance(classifier, LinearSpec)
    )
    stages = _stages(specs)
    space = StagedSpace(
        name=network.name,
        family=network.family,
        resolutions=(network.resolution,),
        stem_channels=stem.out_channels,
        stem_stride=stem.stride,
        stages=tuple(_stage_spec(stage) for stage in stages),
        head_channels=tuple(s.out_channels for s in specs[2:] if isinstance(s, ConvSpec)),
        num_classes=classifier.out_channels,
        in_channels=stem.in_channels,
        bn_epsilon=stem.bn_epsilon,
        first_block_channels=first_block.out_channels,
    )
    if first_block.out_channels == stem.out_channels:
        space = replace(space, first_block_channels=None)
    return space, subnet_of(network, space)


def _stages(specs: Sequence[LayerSpec]) -> list[list[MBConvSpec]]:
    """Return the blocks after the first one by stage; a stage starts at a change of channels."""
    stages: list[list[MBConvSpec]] = []
    for spec in (spec for spec in specs[2:] if isinstance(spec, MBConvSpec)):
        if spec.residual and stages:
            stages[-1].append(spec)
        else:
            stages.append([spec])
    return stages


def _stage_spec(stage: Sequence[MBConvSpec]) -> StageSpec:
    first_block = stage[0]
    return StageSpec(
        channels=first_block.out_channels,
        stride=first_block.stride,
        depths=(len(stage),),
        kernel_sizes=tuple(sorted({spec.kernel_size for spec in stage})),
        expand_ratios=tuple(sorted({spec.mid_channels / spec.in_channels for spec in stage})),
        activation=first_block.activation,
        squeeze_excite=first_block.squeeze_excite,
    )


def _stage_reasons(space: StagedSpace, index: int, stage: Sequence[MBConvSpec]) -> list[str]:
    """Return why a stage's choices are outside the space."""
    depths = _allowed(space, stage_gene("depth", index))
    if len(stage) not in depths:
        return [f"stage {index} has depth {len(stage)}; the space has {_join(depths)}"]
    reasons = []
    for number, spec in enumerate(stage):
        values = {"kernel_size": spec.kernel_size, "expand_ratio": _ratio(spec, space.stages[index])}
        for kind, value in values.items():
            choices = _allowed(space, stage_gene(kind, index, number))
            if value not in choices:
                where = f"of stage {index}, block {number}"
                reasons.append(f"{kind} {where} is {value:g}; the space has {_join(choices)}")
    return reasons


def _difference(ours: LayerSpec | None, theirs: LayerSpec | None) -> str:
    """Describe the difference of two layers, by their keys if these differ."""
    if ours is not None and theirs is not None and ours.key != theirs.key:
        return f"it has {theirs.key} where the space has {ours.key}"
    return f"it has {theirs} where the space has {ours}"


def _ratio(spec: MBConvSpec, stage: StageSpec) -> float:
    """Return the stage's expand ratio that gives the block's mid channels; else the plain quotient."""
    for ratio in stage.expand_ratios:
        if make_divisible(round(spec.in_channels * ratio)) == spec.mid_channels:
            return ratio
    return spec.mid_channels / spec.in_channels


def _allowed(space: StagedSpace, gene: str) -> list[float]:
    column = space.gene_index[gene]
    return [space.genes[column].choices[index] for index in space.allowed[column]]


def _join(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
