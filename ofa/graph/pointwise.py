"""Groups of channels that only 1x1 convolutions make and read, in mostly depthwise networks."""

from __future__ import annotations

import math

from torch import nn

from ofa.graph.structure import GraphStructure

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def pointwise_groups(model: nn.Module, structure: GraphStructure) -> frozenset[str]:
    """Return the names of the groups that no spatial convolution touches, in mostly depthwise networks.

    In such a network, one with more depthwise than regular spatial convolutions, these channels are the
    narrow streams between blocks (Sandler et al. 2018, "linear bottlenecks"): few, and shared by many layers,
    while the channels of the spatial convolutions are many, and each of one block. In other networks there
    are none.

    Args:
        model: the network.
        structure: what may vary in it.
    """
    depthwise, regular = set[str](), set[str]()
    for path, module in model.named_modules():
        if isinstance(module, _CONVOLUTIONS) and math.prod(module.kernel_size) > 1:
            is_depthwise = module.groups == module.in_channels > 1
            (depthwise if is_depthwise else regular).add(f"{path}.weight")
    if len(depthwise) <= len(regular):
        return frozenset()
    spatial = depthwise | regular
    return frozenset(
        group.name for group in structure.groups if spatial.isdisjoint(part.tensor for part in group.touched)
    )
