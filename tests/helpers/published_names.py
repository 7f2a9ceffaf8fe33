"""Names of published checkpoint entries and published architectures, for this project's supernets.

Covers the newer generation of names; layers are identified by type and position.
"""

from __future__ import annotations

from typing import Any

from ofa.space.staged import StagedSpace
from ofa.space.subnet import BlockConfig, StemConfig, SubnetConfig

WIDTHS = (0.65, 0.8, 1.0)


def mobile_config(space: StagedSpace, resolution: int, arch: dict[str, Any]) -> SubnetConfig:
    """Return the config of a published architecture: values of every block and the depth of each stage."""
    stages, first = [], 0
    for stage, depth in zip(space.stages, arch["d"], strict=True):
        chosen = range(first, first + depth)
        stages.append(tuple(BlockConfig(arch["ks"][i], arch["e"][i]) for i in chosen))
        first += stage.depths[-1]
    return SubnetConfig(resolution, tuple(stages))


def resnet_config(space: StagedSpace, resolution: int, arch: dict[str, Any]) -> SubnetConfig:
    """Return the config of a published ResNet-50: depths above the base, ratios, indices of widths."""
    stages, first = [], 0
    stem_depth, *extra = arch["d"]
    for stage, more in zip(space.stages, extra, strict=True):
        chosen = range(first, first + stage.depths[0] + more)
        stages.append(tuple(BlockConfig(3, arch["e"][i]) for i in chosen))
        first += stage.depths[-1]
    inner, outer, *widths = (WIDTHS[index] for index in arch["w"])
    # 0.65 and 0.8 are the same number of channels inside the stem.
    stem = StemConfig(int(stem_depth == 2), max(inner, 0.8), outer)
    return SubnetConfig(resolution, tuple(stages), tuple(widths), stem)


def mobile_name(name: str, num_layers: int, features_at: dict[int, str]) -> str:
    """Return the published name of a tensor of a supernet of inverted bottlenecks.

    Args:
        name: name of the tensor in the supernet's state.
        num_layers: number of layers of the supernet.
        features_at: published names of the layers after the blocks, by their distance from the end.
    """
    _, index, rest = name.split(".", 2)
    layer = int(index)
    ends = {0: "first_conv", num_layers - 1: "classifier"}
    ends |= {num_layers - distance: published for distance, published in features_at.items()}
    if layer in ends:
        return f"{ends[layer]}.{rest.removeprefix('layer.')}"
    part, _, leaf = rest.partition(".")
    # The first block is not elastic; elastic operators wrap their convolution and batch norm once more.
    inner = "" if layer == 1 else "{kind}."
    kind = "bn" if part == "depthwise_bn" else leaf.split(".")[0]
    if part == "squeeze_excite":
        renamed = f"depth_conv.se.fc.{leaf}"
    elif part == "depthwise":
        matrices = {"matrices.5": "7to5_matrix", "matrices.3": "5to3_matrix"}
        renamed = "depth_conv.conv." + matrices.get(leaf, inner.format(kind="conv") + leaf)
    elif part == "depthwise_bn":
        renamed = f"depth_conv.bn.{inner.format(kind=kind)}{leaf}"
    else:
        place = {"expand": "inverted_bottleneck", "project": "point_linear"}[part]
        renamed = f"{place}.{kind}.{inner.format(kind=kind)}{leaf.split('.', 1)[1]}"
    return f"blocks.{layer - 1}.conv.{renamed}"


def mobilenet_v3_name(name: str, num_layers: int) -> str:
    return mobile_name(name, num_layers, {4: "final_expand_layer", 2: "feature_mix_layer"})


def proxyless_name(name: str, num_layers: int) -> str:
    return mobile_name(name, num_layers, {3: "feature_mix_layer"})


def resnet_name(name: str, num_layers: int) -> str:
    _, index, rest = name.split(".", 2)
    layer = int(index)
    if layer == num_layers - 1:
        return f"classifier.linear.{rest}"
    part, kind, leaf = rest.split(".")
    if part == "layer":
        middle = ".conv" if layer == 1 else ""
        return f"input_stem.{layer}{middle}.{kind}.{kind}.{leaf}"
    places = {"reduce": "conv1", "middle": "conv2", "expand": "conv3", "shortcut": "downsample"}
    return f"blocks.{layer - 4}.{places[part]}.{kind}.{kind}.{leaf}"
