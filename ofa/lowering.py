"""`lower`: the one place that knows how a space's choices become layers.

A family describes a space as *slots*. A slot is one position of the supernet; it names the genes it
depends on and builds the layer that these genes ask for, or None where the layer does not exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ofa.errors import unknown_name
from ofa.layers import ConvSpec, LayerSpec, LinearSpec, MBConvSpec, PoolSpec, make_divisible, output_size
from ofa.space import SearchSpace
from ofa.subnet import SubnetConfig


@dataclass(frozen=True)
class Slot:
    """One position of the supernet.

    Attributes:
        genes: columns of the genes that the layer depends on.
        build: takes the values of these genes in order; None where the layer does not exist.
    """

    genes: tuple[int, ...]
    build: Callable[..., LayerSpec | None]

    def variants(self, space: SearchSpace) -> tuple[LayerSpec, ...]:
        """Return the distinct layers that this slot can hold in the (restricted) space."""
        choices = ([space.genes[g].choices[i] for i in space.allowed[g]] for g in self.genes)
        specs = (self.build(*values) for values in itertools.product(*choices))
        return tuple(dict.fromkeys(spec for spec in specs if spec is not None))


def _mobilenet_v3(space: SearchSpace) -> tuple[Slot, ...]:
    """MobileNetV3 with elastic stages (Howard et al. 2019; Cai et al. 2020)."""

    def width(channels: int) -> int:
        return make_divisible(channels * space.width_multiplier)

    epsilon = space.bn_epsilon
    stem = width(space.stem_channels)

    def build_stem(resolution: int) -> LayerSpec:
        sizes = (resolution, space.in_channels, stem, 3, space.stem_stride)
        return ConvSpec(*sizes, "hard_swish", bn_epsilon=epsilon)

    def build_first(resolution: int) -> LayerSpec:
        size = output_size(resolution, space.stem_stride)
        return MBConvSpec(size, stem, stem, stem, 3, 1, "relu", False, expand=False, bn_epsilon=epsilon)

    slots = [Slot((0,), build_stem), Slot((0,), build_first)]
    strides: tuple[int, ...] = (space.stem_stride,)
    channels = stem
    for s, stage in enumerate(space.stages):
        for b in range(stage.depths[-1]):
            stride = stage.stride if b == 0 else 1
            genes = tuple(
                space.gene_index[key]
                for key in (("resolution", -1, -1), ("kernel_size", s, b), ("expand_ratio", s, b))
            )
            if b >= stage.depths[0]:
                genes += (space.gene_index["depth", s, -1],)

            def build_block(
                resolution: int,
                kernel_size: int,
                expand_ratio: float,
                depth: int | None = None,
                block: int = b,
                stride: int = stride,
                strides: tuple[int, ...] = strides,
                widths: tuple[int, int] = (channels, width(stage.channels)),
                activation: str = stage.activation,
                squeeze_excite: bool = stage.squeeze_excite,
            ) -> LayerSpec | None:
                if depth is not None and block >= depth:
                    return None
                mid = make_divisible(round(widths[0] * expand_ratio))
                return MBConvSpec(
                    _size_after(resolution, strides),
                    widths[0],
                    mid,
                    widths[1],
                    kernel_size,
                    stride,
                    activation,
                    squeeze_excite,
                    bn_epsilon=epsilon,
                )

            slots.append(Slot(genes, build_block))
            strides += (stride,)
            channels = width(stage.channels)

    expand, features = (width(c) for c in space.head_channels)

    def build_expand(resolution: int) -> LayerSpec:
        size = _size_after(resolution, strides)
        return ConvSpec(size, channels, expand, 1, 1, "hard_swish", bn_epsilon=epsilon)

    def build_pool(resolution: int) -> LayerSpec:
        return PoolSpec(_size_after(resolution, strides), expand)

    def build_mix() -> LayerSpec:
        return ConvSpec(1, expand, features, 1, 1, "hard_swish", batch_norm=False)

    def build_classifier() -> LayerSpec:
        return LinearSpec(1, features, space.num_classes)

    slots += [Slot((0,), build_expand), Slot((0,), build_pool), Slot((), build_mix)]
    return (*slots, Slot((), build_classifier))


def _size_after(resolution: int, strides: tuple[int, ...]) -> int:
    size = resolution
    for stride in strides:
        size = output_size(size, stride)
    return size


FAMILIES: dict[str, Callable[[SearchSpace], tuple[Slot, ...]]] = {"mobilenet_v3": _mobilenet_v3}


@lru_cache(maxsize=256)
def slots(space: SearchSpace) -> tuple[Slot, ...]:
    """Return the positions of the space's supernet, input to output."""
    if space.family not in FAMILIES:
        raise unknown_name("family", space.family, FAMILIES)
    return FAMILIES[space.family](space)


@lru_cache(maxsize=4096)
def lower_slots(space: SearchSpace, config: SubnetConfig) -> tuple[LayerSpec | None, ...]:
    """Return one entry per slot: the layer that `config` has there, or None.

    Raises:
        UserError: if `config` is outside the space.
    """
    genome = space.genome(config).tolist()
    values = [gene.choices[index] for gene, index in zip(space.genes, genome, strict=True)]
    return tuple(slot.build(*(values[gene] for gene in slot.genes)) for slot in slots(space))


def lower(space: SearchSpace, config: SubnetConfig) -> tuple[LayerSpec, ...]:
    """Return the layers of `config` in the order they run."""
    return tuple(spec for spec in lower_slots(space, config) if spec is not None)


def distinct_layers(space: SearchSpace) -> tuple[LayerSpec, ...]:
    """Return every layer that any sub-network of the (restricted) space can contain, once per key."""
    variants = (spec for slot in slots(space) for spec in slot.variants(space))
    return tuple({spec.key: spec for spec in variants}.values())
