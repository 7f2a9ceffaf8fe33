"""Block keys of published latency tables: the key of each layer.

There are two styles. Tables of MobileNetV3 networks give a block's mid channels, squeeze-excite and
hard-swish, and separate keys for pooling and classifier. Tables of MobileNetV2 networks give the expand ratio
only, and the classifier's key includes the pooling before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import singledispatch

from ofa.architecture.common_layers import ConvSpec, LinearSpec, PoolSpec
from ofa.architecture.layer import LayerSpec, output_size
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.display import short_repr
from ofa.common.errors import UserError, unknown_name

_MAP = r"(\d+)x(\d+)x(\d+)"
_BLOCK = (
    rf"(?P<block>expanded_conv)-input:{_MAP}-output:{_MAP}-expand:[\d.]+-kernel:\d+-stride:\d+-idskip:[01]"
)
_KEY = re.compile(
    rf"(?P<conv>Conv|Conv_1|Conv_2|AvgPool2D)-input:{_MAP}-output:{_MAP}"
    rf"|(?P<logits>Logits)-input:{_MAP}-output:(\d+)"
    rf"|{_BLOCK}(?P<flags>-se:[01]-hs:[01])?"
)


class KeyStyle(Enum):
    """How a table writes a block's width: mid channels (MobileNetV3) or expand ratio (MobileNetV2)."""

    CHANNELS = "channels"
    RATIO = "ratio"


def key_style_named(name: str) -> KeyStyle:
    """Return the style of that name.

    Raises:
        UserError: if the name is unknown, listing the known ones.
    """
    styles = {style.value: style for style in KeyStyle}
    if name not in styles:
        raise unknown_name("key style", name, styles)
    return styles[name]


def published_key(spec: LayerSpec, style: KeyStyle, map_size: int) -> str | None:
    """Return the published key of a layer; None for a layer that is part of another key.

    Args:
        spec: the layer.
        style: key style of the table.
        map_size: side in pixels of the map before pooling, which is part of some classifiers' keys.

    Raises:
        UserError: if published tables have no key for this kind of layer.
    """
    return _key(spec, style, map_size)


def published_keys(specs: Iterable[LayerSpec], style: KeyStyle) -> list[tuple[LayerSpec, str | None]]:
    """Return each layer of networks of one resolution with its published key; see `published_key`."""
    map_size = next((spec.input_size for spec in specs if isinstance(spec, PoolSpec)), 1)
    return [(spec, published_key(spec, style, map_size)) for spec in specs]


@singledispatch
def _key(spec: LayerSpec, style: KeyStyle, map_size: int) -> str | None:
    raise UserError(f"Published tables have no key for a layer such as {spec.key}.")


@_key.register
def _(spec: ConvSpec, style: KeyStyle, map_size: int) -> str | None:
    out = output_size(spec.input_size, spec.stride)
    maps = f"input:{_map(spec.input_size, spec.in_channels)}-output:{_map(out, spec.out_channels)}"
    # Only the convolution after pooling has no batch norm.
    name = "Conv" if spec.kernel_size > 1 else "Conv_1" if spec.batch_norm else "Conv_2"
    return f"{name}-{maps}"


@_key.register
def _(spec: MBConvSpec, style: KeyStyle, map_size: int) -> str | None:
    out = output_size(spec.input_size, spec.stride)
    maps = f"input:{_map(spec.input_size, spec.in_channels)}-output:{_map(out, spec.out_channels)}"
    size = f"kernel:{spec.kernel_size}-stride:{spec.stride}-idskip:{int(spec.residual)}"
    if style is KeyStyle.RATIO:
        return f"expanded_conv-{maps}-expand:{spec.mid_channels / spec.in_channels:g}-{size}"
    flags = f"se:{int(spec.squeeze_excite)}-hs:{int(spec.activation == 'hard_swish')}"
    return f"expanded_conv-{maps}-expand:{spec.mid_channels}-{size}-{flags}"


@_key.register
def _(spec: PoolSpec, style: KeyStyle, map_size: int) -> str | None:
    if style is KeyStyle.RATIO:
        return None
    return f"AvgPool2D-input:{_map(spec.input_size, spec.in_channels)}-output:{_map(1, spec.in_channels)}"


@_key.register
def _(spec: LinearSpec, style: KeyStyle, map_size: int) -> str | None:
    size = map_size if style is KeyStyle.RATIO else 1
    return f"Logits-input:{_map(size, spec.in_channels)}-output:{spec.out_channels}"


def _map(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"


def key_style(key: str) -> KeyStyle | None:
    """Return the style of a block's key; None for keys that both styles share.

    Raises:
        UserError: if the key is not a key of published tables.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise UserError(
            f"{short_repr(key)} is not a published block key; expected e.g. "
            "Conv-input:224x224x3-output:112x112x24 or "
            "expanded_conv-input:...-output:...-expand:...-kernel:...-stride:...-idskip:..."
        )
    if match["block"] is None:
        return None
    return KeyStyle.CHANNELS if match["flags"] else KeyStyle.RATIO


def key_kind(key: str) -> str:
    """Return the kind of layer that a key names, e.g. AvgPool2D."""
    return key.partition("-")[0]


def key_resolution(key: str) -> int | None:
    """Return the input size (pixels) in the key of a network's first layer; None for other keys."""
    match = re.match(r"Conv-input:(\d+)x", key)
    return int(match[1]) if match else None


def key_widths(key: str) -> tuple[int, int] | None:
    """Return a block's input and output channels; None for keys of other layers."""
    match = re.match(rf"expanded_conv-input:{_MAP}-output:{_MAP}", key)
    return (int(match[3]), int(match[6])) if match else None
