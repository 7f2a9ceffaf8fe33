"""Names of published checkpoint entries, and their correspondence to tensors of this project.

Published files name an entry in one of two ways. `short_name` converts both to a common form, in which every
operator occurs once: blocks.3.depth_conv.bn.weight. Names of this project are converted to the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import singledispatch

from ofa.architecture.common_layers import ConvSpec, LinearSpec
from ofa.architecture.layer import LayerSpec
from ofa.architecture.mobilenet import MBConvSpec
from ofa.architecture.resnet import BottleneckSpec
from ofa.common.errors import UserError

_REPEATED = re.compile(r"\.(conv|bn|linear)(\.\1)+\.")
# Blocks with a shortcut keep their convolution one level further down.
_WRAPPER = re.compile(
    r"^(blocks\.\d+)\.(?:conv|mobile_inverted_conv)\.(?=inverted_bottleneck|depth_conv|point_linear)"
)
_STEM_WRAPPER = re.compile(r"^(input_stem\.\d+)\.conv\.(?=bn\.)")
_COUNTER = "num_batches_tracked"
_MBCONV_PARTS = {
    "expand": "inverted_bottleneck",
    "depthwise": "depth_conv.conv",
    "depthwise_bn": "depth_conv.bn",
    "squeeze_excite": "depth_conv.se.fc",
    "project": "point_linear",
}
_BOTTLENECK_PARTS = {"reduce": "conv1", "middle": "conv2", "expand": "conv3", "shortcut": "downsample"}


def short_name(name: str) -> str:
    """Return the common form of a published name of either generation."""
    name = _REPEATED.sub(lambda match: f".{match[1]}.", name)
    name = _WRAPPER.sub(r"\1.", name)
    return _STEM_WRAPPER.sub(r"\1.", name)


def shorten_names(names: Iterable[str], what: str) -> dict[str, str]:
    """Return the published names of `what` by their short form, without batch counters.

    Raises:
        UserError: if two names have the same short form.
    """
    short: dict[str, str] = {}
    doubles = []
    for name in names:
        key = short_name(name)
        if key.rpartition(".")[2] == _COUNTER:
            continue
        if key in short:
            doubles.append(f"{short[key]} and {name}")
        short[key] = name
    if doubles:
        raise UserError(f"{what}: these entries are the same tensor under two names: {'; '.join(doubles)}.")
    return short


def published_names(specs: Sequence[LayerSpec], names: Iterable[str]) -> dict[str, str]:
    """Return the short published name of each tensor of a supernet or static network.

    Args:
        specs: one layer per index of the network's `layers`, e.g. any variant of each slot.
        names: tensor names in its state; batch counters, which checkpoints may omit, are left out.
    """
    prefixes = _prefixes(specs)
    result = {}
    for name in names:
        _, index, entry = name.split(".", 2)
        if not entry.endswith(_COUNTER):
            result[name] = f"{prefixes[int(index)]}.{_entry(specs[int(index)], entry)}"
    return result


def _prefixes(specs: Sequence[LayerSpec]) -> list[str]:
    """Return the published name prefix of each layer, from its type and position."""
    blocks = [i for i, spec in enumerate(specs) if isinstance(spec, MBConvSpec | BottleneckSpec)]
    convolutions = [i for i, spec in enumerate(specs) if isinstance(spec, ConvSpec)]
    stem = [i for i in convolutions if i < blocks[0]]
    head = [i for i in convolutions if i > blocks[-1]]
    prefixes = {index: f"blocks.{number}" for number, index in enumerate(blocks)}
    prefixes |= {index: f"input_stem.{number}" for number, index in enumerate(stem)}
    if len(stem) == 1:
        prefixes[stem[0]] = "first_conv"
    prefixes |= dict(zip(reversed(head), ("feature_mix_layer", "final_expand_layer"), strict=False))
    return [prefixes.get(index, "classifier") for index in range(len(specs))]


@singledispatch
def _entry(spec: LayerSpec, entry: str) -> str:
    raise UserError(f"Published checkpoints have no layer such as {spec.key}.")


@_entry.register(ConvSpec)
@_entry.register(LinearSpec)
def _(spec: LayerSpec, entry: str) -> str:
    return entry.removeprefix("layer.")


@_entry.register
def _(spec: MBConvSpec, entry: str) -> str:
    part, _, leaf = entry.partition(".")
    if leaf.startswith("matrices."):
        kernel_size = int(leaf.removeprefix("matrices."))
        leaf = f"{kernel_size + 2}to{kernel_size}_matrix"
    return f"{_MBCONV_PARTS[part]}.{leaf}"


@_entry.register
def _(spec: BottleneckSpec, entry: str) -> str:
    part, _, leaf = entry.partition(".")
    return f"{_BOTTLENECK_PARTS[part]}.{leaf}"
