"""Function-preserving channel sorting before a width phase."""

from __future__ import annotations

from ofa.elastic.blocks import ElasticLayer
from ofa.lowering import slots
from ofa.space import SearchSpace
from ofa.supernet import Supernet


def sort_channels(supernet: Supernet, trained: SearchSpace) -> None:
    """Sort inner channels by the L1 norm of their consumers, so that narrow networks keep the best ones.

    Args:
        supernet: changed in place.
        trained: restricted space of the networks trained so far, whose outputs stay as they are.
    """
    for layer, slot in zip(supernet.layers, slots(supernet.space), strict=True):
        assert isinstance(layer, ElasticLayer)
        layer.sort_channels(slot.variants(trained))
