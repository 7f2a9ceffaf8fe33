"""`LayerSpec`: one layer of a network as a value, with everything that its cost depends on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, at least `divisor` and never below 0.9 * channels."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def output_size(input_size: int, stride: int) -> int:
    """Side of the output of a layer with 'same' padding, in pixels."""
    return (input_size - 1) // stride + 1


@dataclass(frozen=True)
class Operator:
    """One convolution (or linear layer: size 1) inside a layer; all costs are sums over these."""

    input_size: int
    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    batch_norm: bool = False

    @property
    def input_elements(self) -> int:
        """Elements of the input activation of one image."""
        return self.in_channels * self.input_size**2

    @property
    def output_elements(self) -> int:
        """Elements of the output activation of one image."""
        return self.out_channels * output_size(self.input_size, self.stride) ** 2


@dataclass(frozen=True)
class LayerSpec(ABC):
    """One layer with everything that its cost depends on; `input_size` is the side in pixels."""

    input_size: int

    @property
    @abstractmethod
    def key(self) -> str:
        """Readable text, equal exactly for layers of equal cost; latency tables are keyed by it."""

    @property
    @abstractmethod
    def operators(self) -> tuple[Operator, ...]:
        """Main-path and squeeze-excite operators in the order they run."""

    @property
    @abstractmethod
    def input_channels(self) -> int:
        """Channels of the layer's input."""

    @property
    @abstractmethod
    def output_channels(self) -> int:
        """Channels of the layer's output."""

    @property
    def residual(self) -> bool:
        """Whether the input is held until the end and added."""
        return False

    @property
    def keeps_channels(self) -> bool:
        """Whether output channel i is, or has added to it, input channel i."""
        return self.residual

    @property
    def peak_elements(self) -> int:
        """Largest number of activation elements that live at once while the layer runs on one image.

        Live are the input and output of the running operator and, in a residual layer, the layer's input.
        Activations and batch norm are taken to be in place; squeeze-excite's vectors are not counted.
        """
        path = [op for op in self.operators if op.input_size == self.input_size or op.input_size > 1]
        held = self.input_channels * self.input_size**2 if self.residual else 0
        return max(op.input_elements + op.output_elements + (held if i else 0) for i, op in enumerate(path))


@dataclass(frozen=True)
class ConvSpec(LayerSpec):
    """Convolution, optional batch norm, activation; `add_input` makes it residual."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: str
    batch_norm: bool = True
    bn_epsilon: float = 1e-5
    add_input: bool = False

    @property
    def key(self) -> str:
        """See `LayerSpec.key`."""
        flags = ("-bn" if self.batch_norm else "") + ("-add" if self.add_input else "")
        return (
            f"conv-in{self.input_size}x{self.in_channels}-out{self.out_channels}"
            f"-k{self.kernel_size}-s{self.stride}-{self.activation}{flags}"
        )

    @property
    def residual(self) -> bool:
        """See `LayerSpec.residual`."""
        return self.add_input

    @property
    def operators(self) -> tuple[Operator, ...]:
        """See `LayerSpec.operators`."""
        return (
            Operator(
                self.input_size,
                self.in_channels,
                self.out_channels,
                self.kernel_size,
                self.stride,
                batch_norm=self.batch_norm,
            ),
        )

    @property
    def input_channels(self) -> int:
        """See `LayerSpec.input_channels`."""
        return self.in_channels

    @property
    def output_channels(self) -> int:
        """See `LayerSpec.output_channels`."""
        return self.out_channels


@dataclass(frozen=True)
class MBConvSpec(LayerSpec):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, squeeze-excite, 1x1 projection.

    (Sandler et al. 2018; squeeze-excite and hard-swish as in Howard et al. 2019.)
    """

    in_channels: int
    mid_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: str
    squeeze_excite: bool
    expand: bool = True
    bn_epsilon: float = 1e-5

    @property
    def key(self) -> str:
        """See `LayerSpec.key`."""
        flags = ("-se" if self.squeeze_excite else "") + ("" if self.expand else "-noexpand")
        return (
            f"mbconv-in{self.input_size}x{self.in_channels}-mid{self.mid_channels}-out{self.out_channels}"
            f"-k{self.kernel_size}-s{self.stride}-{self.activation}{flags}"
        )

    @property
    def residual(self) -> bool:
        """Whether the block adds its input: stride 1 and equal widths."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def se_channels(self) -> int:
        """Hidden width of squeeze-excite (reduction 4)."""
        return make_divisible(self.mid_channels // 4)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """See `LayerSpec.operators`."""
        size, mid = self.input_size, self.mid_channels
        out_size = output_size(size, self.stride)
        operators = [
            Operator(size, mid, mid, self.kernel_size, self.stride, groups=mid, batch_norm=True),
            Operator(out_size, mid, self.out_channels, batch_norm=True),
        ]
        if self.expand:
            operators.insert(0, Operator(size, self.in_channels, mid, batch_norm=True))
        if self.squeeze_excite:
            hidden = self.se_channels
            squeeze = [Operator(1, mid, hidden, bias=True), Operator(1, hidden, mid, bias=True)]
            operators[-1:-1] = squeeze
        return tuple(operators)

    @property
    def input_channels(self) -> int:
        """See `LayerSpec.input_channels`."""
        return self.in_channels

    @property
    def output_channels(self) -> int:
        """See `LayerSpec.output_channels`."""
        return self.out_channels


@dataclass(frozen=True)
class PoolSpec(LayerSpec):
    """Global average pooling to 1x1."""

    channels: int

    @property
    def key(self) -> str:
        """See `LayerSpec.key`."""
        return f"pool-in{self.input_size}x{self.channels}"

    @property
    def operators(self) -> tuple[Operator, ...]:
        """See `LayerSpec.operators`."""
        return ()

    @property
    def input_channels(self) -> int:
        """See `LayerSpec.input_channels`."""
        return self.channels

    @property
    def output_channels(self) -> int:
        """See `LayerSpec.output_channels`."""
        return self.channels

    @property
    def keeps_channels(self) -> bool:
        """See `LayerSpec.keeps_channels`."""
        return True

    @property
    def peak_elements(self) -> int:
        """See `LayerSpec.peak_elements`."""
        return self.channels * (self.input_size**2 + 1)


@dataclass(frozen=True)
class LinearSpec(LayerSpec):
    """Dropout and linear classifier on a 1x1 feature map."""

    in_features: int
    out_features: int

    @property
    def key(self) -> str:
        """See `LayerSpec.key`."""
        return f"linear-in{self.in_features}-out{self.out_features}"

    @property
    def operators(self) -> tuple[Operator, ...]:
        """See `LayerSpec.operators`."""
        return (Operator(1, self.in_features, self.out_features, bias=True),)

    @property
    def input_channels(self) -> int:
        """See `LayerSpec.input_channels`."""
        return self.in_features

    @property
    def output_channels(self) -> int:
        """See `LayerSpec.output_channels`."""
        return self.out_features
