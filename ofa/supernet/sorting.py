"""Function-preserving channel sorting before a width phase."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from ofa.architecture.lowering import slots
from ofa.space.staged import StagedSpace
from ofa.supernet.layer import ElasticLayer, sort_channels_between

if TYPE_CHECKING:
    from ofa.supernet.supernet import Supernet


def sort_channels(supernet: Supernet, trained: StagedSpace) -> None:
    """Sort channels by the L1 norm of their consumers, so that narrow networks keep the best ones.

    Both the channels inside layers and, where their number is elastic, those between layers.

    Args:
        supernet: changed in place.
        trained: restricted space of the networks trained so far, whose outputs stay as they are.
    """
    variants = [slot.variants(trained) for slot in slots(supernet.space)]
    for stream in _channel_groups(supernet):
        widths = {spec.out_channels for spec in variants[stream.producers[0]]}
        producers = [t for i in stream.producers for t in _layer(supernet, i).output_tensors()]
        consumers = [t for i in stream.consumers for t in _layer(supernet, i).input_weights()]
        sort_channels_between(producers, consumers, widths)
    for index, specs in enumerate(variants):
        _layer(supernet, index).sort_channels(specs)


@dataclass
class _ChannelGroup:
    """Positions of the layers that write channels in one common order, and of those that read them."""

    producers: list[int]
    consumers: list[int] = field(default_factory=list)


def _channel_groups(supernet: Supernet) -> list[_ChannelGroup]:
    """Return the streams between layers whose number of channels is elastic.

    A residual layer reads a stream and adds to it, and pooling passes it on; any other layer ends one
    stream and begins the next.
    """
    streams: list[_ChannelGroup] = []
    elastic: list[_ChannelGroup] = []
    for index, slot in enumerate(slots(supernet.space)):
        specs = slot.variants(supernet.space)
        if streams:
            streams[-1].consumers.append(index)
        if streams and specs[0].keeps_channels:
            streams[-1].producers.append(index)
            continue
        streams.append(_ChannelGroup([index]))
        if len({spec.out_channels for spec in specs}) > 1:
            elastic.append(streams[-1])
    return elastic


def _layer(supernet: Supernet, index: int) -> ElasticLayer[Any]:
    layer: nn.Module = supernet.layers[index]
    assert isinstance(layer, ElasticLayer)
    return layer
