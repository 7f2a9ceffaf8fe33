"""`lower`: how a space's choices become layers.

A family describes a space as slots (`ofa.architecture.slots`): positions of the supernet that name the genes
they depend on and build the corresponding layer. Only the families know a topology.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ofa.architecture.layer import LayerSpec
from ofa.architecture.mobilenet import mobilenet_v3, proxyless_nas
from ofa.architecture.resnet import resnet
from ofa.architecture.slots import Slot
from ofa.common.errors import unknown_name
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

FAMILIES: dict[str, Callable[[StagedSpace], tuple[Slot, ...]]] = {
    "mobilenet_v3": mobilenet_v3,
    "proxyless_nas": proxyless_nas,
    "resnet": resnet,
}


@lru_cache(maxsize=256)
def slots(space: StagedSpace) -> tuple[Slot, ...]:
    """Return the positions of the space's supernet, from input to output."""
    if space.family not in FAMILIES:
        raise unknown_name("family", space.family, FAMILIES)
    return FAMILIES[space.family](space)


@lru_cache(maxsize=4096)
def lower_slots(space: StagedSpace, config: SubnetConfig) -> tuple[LayerSpec | None, ...]:
    """Return one entry per slot: the layer that `config` has there, or None.

    Raises:
        UserError: if `config` is outside the space.
    """
    genome = space.genome(config).tolist()
    values = [gene.choices[index] for gene, index in zip(space.genes, genome, strict=True)]
    return tuple(slot.build(*(values[gene] for gene in slot.genes.values())) for slot in slots(space))


def lower(space: StagedSpace, config: SubnetConfig) -> tuple[LayerSpec, ...]:
    """Return the layers of `config` in the order they run."""
    return tuple(spec for spec in lower_slots(space, config) if spec is not None)


def distinct_layers(space: StagedSpace) -> tuple[LayerSpec, ...]:
    """Return every layer that any sub-network of the (restricted) space can contain, once per key."""
    variants = (spec for slot in slots(space) for spec in slot.variants(space))
    return tuple({spec.key: spec for spec in variants}.values())
