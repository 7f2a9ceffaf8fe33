"""Published network descriptions (`net.config`, `run.config`) as layers of this project."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.architecture.common_layers import ConvSpec, LinearSpec, PoolSpec
from ofa.architecture.cost import network_cost
from ofa.architecture.layer import LayerSpec, output_size
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.display import short_repr
from ofa.common.errors import UserError
from ofa.common.mismatches import raise_mismatches
from ofa.common.reading import read_json
from ofa.modules.static import StaticNetwork
from ofa.published.checkpoint import load_weights
from ofa.published.state import read_state
from ofa.space.staged import MAX_SIDE

FAMILIES = {"MobileNetV3": "mobilenet_v3", "ProxylessNASNets": "proxyless_nas"}
"""Family by published type of network."""

MAX_PARAMETERS = 10**9
"""Most parameters of a network."""

_ACTIVATIONS = {None: "none", "relu": "relu", "relu6": "relu6", "h_swish": "hard_swish"}
_PLAIN = {"dilation": 1, "groups": 1, "has_shuffle": False, "ops_order": "weight_bn_act"}
_LINEAR = {
    "bias": True,
    "use_bn": False,
    "act_func": None,
    "has_shuffle": False,
    "ops_order": "weight_bn_act",
}


@dataclass(frozen=True)
class PublishedNetwork:
    """One fixed network as described by its authors.

    Attributes:
        name: name of the network in texts.
        family: family of this project that it belongs to.
        specs: layers of the network.
        dropout: dropout probability before the classifier.
    """

    name: str
    family: str
    specs: tuple[LayerSpec, ...]
    dropout: float

    @property
    def resolution(self) -> int:
        """Side of the input in pixels."""
        return self.specs[0].input_size

    def build(self, weights: Path | None = None) -> StaticNetwork:
        """Return the network in eval mode, with the published weights or (None) random ones.

        Raises:
            UserError: if the file is missing or damaged, or its entries do not match the network's; all
                missing, unexpected, wrongly shaped or non-finite entries are named.
        """
        network = StaticNetwork(self.specs, self.dropout)
        if weights is not None:
            hint = f"Expected the weights of the network {self.name}."
            load_weights(network, self.specs, read_state(weights), f"The checkpoint {weights}", hint)
        return network.eval()


def read_network(net_config: Path, run_config: Path | None = None) -> PublishedNetwork:
    """Read a published network; the input size is the `image_size` of `run_config`.

    Args:
        net_config: JSON description of the layers.
        run_config: JSON description of the training; by default `run.config` beside `net_config`.

    Raises:
        UserError: naming every missing or invalid file, and every layer that is not supported.
    """
    values = read_json(net_config, net_config.name)
    run = run_config or net_config.with_name("run.config")
    reader = _Reader([])
    run_values = read_json(run, run.name)
    resolution = reader.integer(run_values, "image_size", str(run), MAX_SIDE)
    kind = values.get("name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"{net_config} describes a network of kind {short_repr(kind)}; known: "
            f"{', '.join(sorted(FAMILIES))}."
        )
    reader.epsilon = float(reader.number(values.get("bn"), "eps", "bn"))
    specs, dropout = reader.network(values, resolution)
    raise_mismatches(f"{net_config}", reader.errors)
    num_parameters = network_cost(specs).parameters
    if num_parameters > MAX_PARAMETERS:
        raise UserError(
            f"{net_config} describes a network of {num_parameters:.3g} parameters; expected at most "
            f"{MAX_PARAMETERS:.0e}."
        )
    return PublishedNetwork(net_config.absolute().parent.name, FAMILIES[kind], specs, dropout)


class _Reader:
    """Translates layers and collects all errors."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors
        self.epsilon = 1e-5

    # -- values ------------------------------------------------------------------------------------

    def number(self, values: object, name: str, where: str) -> float:
        """Return a number of at least 0; on an error, note it and return 0."""
        value = values.get(name) if isinstance(values, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
            self.errors.append(f"{where}.{name} is {short_repr(value)}; expected a number")
            return 0.0
        return value

    def integer(self, values: object, name: str, where: str, maximum: int = 2**24) -> int:
        """Return a positive integer up to `maximum`; on an error, note it and return 1."""
        value = values.get(name) if isinstance(values, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
            self.errors.append(f"{where}.{name} is {short_repr(value)}; expected a positive integer")
            return 1
        return value

    def flag(self, values: Mapping[str, Any], name: str, where: str) -> bool:
        """Return a value that is true, false or null for false; on an error, note it and return False."""
        value = values[name]
        if not (value is None or isinstance(value, bool)):
            self.errors.append(f"{where}.{name} is {short_repr(value)}; expected true or false")
        return value is True

    def expect(self, values: Mapping[str, Any], where: str, expected: Mapping[str, object]) -> None:
        """Note every value that is present and differs from the fixed value of this project's layers."""
        for name, value in expected.items():
            if name in values and values[name] != value:
                self.errors.append(f"{where}.{name} is {short_repr(values[name])}; expected {value!r}")

    def activation(self, values: Mapping[str, Any], where: str) -> str:
        """Return the name of an activation in this project."""
        name = values.get("act_func")
        if not (name is None or isinstance(name, str)) or name not in _ACTIVATIONS:
            names_text = ", ".join(sorted(filter(None, _ACTIVATIONS)))
            self.errors.append(f"{where}.act_func is {short_repr(name)}; known: {names_text}")
            return "none"
        return _ACTIVATIONS[name]

    def group(self, values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """Return a layer's settings; on an error, note it and return an empty group."""
        group = values.get(name)
        if not isinstance(group, Mapping):
            self.errors.append(f"{name} is missing")
            return {}
        return group

    # -- layers ------------------------------------------------------------------------------------

    def network(self, values: Mapping[str, Any], resolution: int) -> tuple[tuple[LayerSpec, ...], float]:
        """Return all layers, and the dropout before the last."""
        specs: list[LayerSpec] = [
            self.convolution(self.group(values, "first_conv"), "first_conv", resolution)
        ]
        blocks = values.get("blocks")
        if not isinstance(blocks, list) or not blocks:
            self.errors.append("blocks are missing")
            blocks = []
        for index, block in enumerate(blocks):
            specs.append(self.block(block, f"blocks.{index}", _size_after(specs[-1])))
        if "final_expand_layer" in values:
            name = "final_expand_layer"
            specs.append(self.convolution(self.group(values, name), name, _size_after(specs[-1])))
            specs.append(_pool_after(specs[-1]))
        name = "feature_mix_layer"
        specs.append(self.convolution(self.group(values, name), name, _size_after(specs[-1])))
        if "final_expand_layer" not in values:
            specs.append(_pool_after(specs[-1]))
        classifier = self.group(values, "classifier")
        self.expect(classifier, "classifier", {"name": "LinearLayer", **_LINEAR})
        features = self.integer(classifier, "in_features", "classifier")
        specs.append(LinearSpec(1, features, self.integer(classifier, "out_features", "classifier")))
        dropout = self.number({"dropout_rate": 0, **classifier}, "dropout_rate", "classifier")
        if not self.errors:
            self.check_widths(specs)
        return tuple(specs), dropout

    def convolution(self, values: Mapping[str, Any], where: str, size: int) -> ConvSpec:
        """Return a plain convolution with an activation."""
        self.expect(values, where, {"name": "ConvLayer", "bias": False, "dropout_rate": 0, **_PLAIN})
        return ConvSpec(
            size,
            self.integer(values, "in_channels", where),
            self.integer(values, "out_channels", where),
            self.integer(values, "kernel_size", where),
            self.integer(values, "stride", where),
            self.activation(values, where),
            self.flag({"use_bn": True, **values}, "use_bn", where),
            self.epsilon,
        )

    def block(self, values: object, where: str, size: int) -> MBConvSpec:
        """Return an inverted bottleneck."""
        block = values if isinstance(values, Mapping) else {}
        conv_values = block.get("mobile_inverted_conv", block.get("conv"))
        settings = conv_values if isinstance(conv_values, Mapping) else {}
        if settings.get("name") != "MBInvertedConvLayer":
            self.errors.append(
                f"{where} is a {short_repr(settings.get('name'))}; expected an MBInvertedConvLayer"
            )
            return MBConvSpec(size, 1, 1, 3, 1, "relu", False, mid_channels=1)
        names = ("in_channels", "out_channels", "kernel_size", "stride")
        channels, out_channels, kernel_size, stride = (self.integer(settings, n, where) for n in names)
        ratio = self.number(settings, "expand_ratio", where)
        has_mid_channels = settings.get("mid_channels") is not None
        mid = self.integer(settings, "mid_channels", where) if has_mid_channels else round(channels * ratio)
        spec = MBConvSpec(
            size,
            channels,
            out_channels,
            kernel_size,
            stride,
            self.activation(settings, where),
            self.flag({"use_se": False, **settings}, "use_se", where),
            mid_channels=mid,
            expand=ratio != 1,
            bn_epsilon=self.epsilon,
        )
        self.check_block(spec, block.get("shortcut"), where)
        return spec

    def check_block(self, spec: MBConvSpec, shortcut: object, where: str) -> None:
        """Note a block whose computation differs from this project's."""
        if not spec.expand and spec.mid_channels != spec.in_channels:
            self.errors.append(f"{where}.mid_channels is {spec.mid_channels} without an expansion")
        if spec.kernel_size % 2 == 0:
            self.errors.append(f"{where}.kernel_size is {spec.kernel_size}; expected an odd number")
        if isinstance(shortcut, Mapping) and shortcut.get("name") == "IdentityLayer":
            self.expect(shortcut, f"{where}.shortcut", {"use_bn": False, "act_func": None})
        elif shortcut is not None:
            self.errors.append(
                f"{where}.shortcut is {short_repr(shortcut)}; expected an IdentityLayer or null"
            )
        if spec.residual != (shortcut is not None):
            actual, expected = ("no", "one") if spec.residual else ("a", "none")
            self.errors.append(
                f"{where} has {actual} shortcut; expected {expected} at stride {spec.stride} from "
                f"{spec.in_channels} to {spec.out_channels} channels"
            )

    def check_widths(self, specs: list[LayerSpec]) -> None:
        """Note layers whose input channels differ from the previous layer's output."""
        for layer, next_layer in itertools.pairwise(specs):
            if layer.out_channels != next_layer.in_channels:
                self.errors.append(
                    f"{layer.out_channels} channels leave {layer.key}, and {next_layer.key} follows"
                )


def _pool_after(spec: LayerSpec) -> PoolSpec:
    return PoolSpec(_size_after(spec), spec.out_channels, spec.out_channels)


def _size_after(spec: LayerSpec) -> int:
    """Return the side of a layer's output."""
    if isinstance(spec, PoolSpec):
        return 1
    stride = spec.stride if isinstance(spec, ConvSpec | MBConvSpec) else 1
    return output_size(spec.input_size, stride)
