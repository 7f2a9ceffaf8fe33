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
    """One convolution (or linear layer: size 1) inside a layer; all costs are sums over these.

    Attributes:
        input_size: side of the input, or its height, in pixels.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel, or its height.
        stride: stride in both directions, or the vertical one.
        groups: groups of the channels.
        bias: whether it has a bias.
        batch_norm: whether batch norm follows.
        horizontal: width of the input, width of the kernel and horizontal stride where they are others.
    """

    input_size: int
    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    batch_norm: bool = False
    horizontal: tuple[int, int, int] | None = None

    @property
    def input_elements(self) -> int:
        """Elements of the input activation of one image."""
        width, _, _ = self._horizontal
        return self.in_channels * self.input_size * width

    @property
    def output_elements(self) -> int:
        """Elements of the output activation of one image."""
        width, _, stride = self._horizontal
        return self.out_channels * output_size(self.input_size, self.stride) * output_size(width, stride)

    @property
    def kernel_area(self) -> int:
        """Pixels of a kernel."""
        _, width, _ = self._horizontal
        return self.kernel_size * width

    @property
    def num_weights(self) -> int:
        """Number of weights, without bias and batch norm."""
        return self.kernel_area * (self.in_channels // self.groups) * self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.num_weights // self.out_channels * self.output_elements

    @property
    def _horizontal(self) -> tuple[int, int, int]:
        return self.horizontal or (self.input_size, self.kernel_size, self.stride)


@dataclass(frozen=True)
class LayerSpec(ABC):
    """One layer with everything that its cost depends on.

    Attributes:
        input_size: side of the input in pixels.
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    input_size: int
    in_channels: int
    out_channels: int

    @property
    @abstractmethod
    def key(self) -> str:
        """Readable text that is equal exactly for layers of equal cost; the key in latency tables."""

    @property
    @abstractmethod
    def operators(self) -> tuple[Operator, ...]:
        """Main-path and squeeze-excite operators in the order they run."""

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return False

    @property
    def keeps_channels(self) -> bool:
        """Whether output channel i is input channel i, or includes it as a summand."""
        return self.residual

    @property
    def peak_elements(self) -> int:
        """Largest number of activation elements alive at once while the layer runs on one image.

        Alive are the input and output of the running operator and, in a residual layer, the layer's input.
        Activations and batch norm count as in-place; the vectors of squeeze-excite do not count.
        """
        path = [op for op in self.operators if op.input_size == self.input_size or op.input_size > 1]
        held = self.in_channels * self.input_size**2 if self.residual else 0
        return max(op.input_elements + op.output_elements + (held if i else 0) for i, op in enumerate(path))
