"""Function-preserving channel sorting before a width phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ofa.architecture.lowering import slots
from ofa.space.staged import StagedSpace
from ofa.supernet.layer import ElasticLayer, sort_channels_between


def sort_layers(space: StagedSpace, layers: Sequence[ElasticLayer[Any]], trained: StagedSpace) -> None:
    """Sort channels by the L1 norm of their consumers, so that narrow networks keep the best ones.

    Sorts the channels inside layers and, where their number is elastic, between layers.

    Args:
        space: space of the supernet.
        layers: layers of the supernet, one per slot; changed in place.
        trained: restricted space of the networks trained so far, which keep their outputs.
    """
    variants = [slot.variants(trained) for slot in slots(space)]
    for group in _channel_groups(space):
        widths = {spec.out_channels for spec in variants[group.producers[0]]}
        producers = [t for i in group.producers for t in layers[i].output_tensors()]
        consumers = [t for i in group.consumers for t in layers[i].input_weights()]
        sort_channels_between(producers, consumers, widths)
    for index, specs in enumerate(variants):
        layers[index].sort_channels(specs)


@dataclass
class _ChannelGroup:
    """Positions of the layers that write channels in one common order, and of the layers that read them."""

    producers: list[int]
    consumers: list[int] = field(default_factory=list)


def _channel_groups(space: StagedSpace) -> list[_ChannelGroup]:
    """Return the groups of channels between layers whose number is elastic.

    A residual layer reads a group and adds to it, and pooling passes it on; any other layer ends one group
    and begins the next.
    """
    groups: list[_ChannelGroup] = []
    elastic: list[_ChannelGroup] = []
    for index, slot in enumerate(slots(space)):
        specs = slot.variants(space)
        if groups:
            groups[-1].consumers.append(index)
        if groups and specs[0].keeps_channels:
            groups[-1].producers.append(index)
            continue
        groups.append(_ChannelGroup([index]))
        if len({spec.out_channels for spec in specs}) > 1:
            elastic.append(groups[-1])
    return elastic
