"""Layers of residual networks: max-pooling and the bottleneck."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.layers import LayerSpec, Operator, output_size


@dataclass(frozen=True)
class MaxPoolSpec(LayerSpec):
    """Max-pooling with 'same' padding."""

    channels: int
    kernel_size: int
    stride: int

    @property
    def key(self) -> str:
        """See `LayerSpec.key`."""
        return f"maxpool-in{self.input_size}x{self.channels}-k{self.kernel_size}-s{self.stride}"

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
        return self.channels * (self.input_size**2 + output_size(self.input_size, self.stride) ** 2)


@dataclass(frozen=True)
class BottleneckSpec(LayerSpec):
    """Bottleneck: 1x1 reduction, k x k convolution with the stride, 1x1 expansion, addition, activation.

    (He et al. 2016.) With `project`, the shortcut is average-pooling by the stride and a 1x1 convolution
    (variant D of He et al. 2019); without, the input itself.
    """

    in_channels: int
    mid_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: str
    project: bool
    bn_epsilon: float = 1e-5

    @property
    def key(self) -> str:
        """See `LayerSpec.key`."""
        return (
            f"bottleneck-in{self.input_size}x{self.in_channels}-mid{self.mid_channels}"
            f"-out{self.out_channels}-k{self.kernel_size}-s{self.stride}-{self.activation}"
            f"{'-project' if self.project else ''}"
        )

    @property
    def residual(self) -> bool:
        """Whether the shortcut is the input itself."""
        return not self.project

    @property
    def operators(self) -> tuple[Operator, ...]:
        """See `LayerSpec.operators`; the shortcut's convolution comes last."""
        size, out_size = self.input_size, output_size(self.input_size, self.stride)
        mid = self.mid_channels
        operators = [
            Operator(size, self.in_channels, mid, batch_norm=True),
            Operator(size, mid, mid, self.kernel_size, self.stride, batch_norm=True),
            Operator(out_size, mid, self.out_channels, batch_norm=True),
        ]
        if self.project:
            operators.append(Operator(out_size, self.in_channels, self.out_channels, batch_norm=True))
        return tuple(operators)

    @property
    def input_channels(self) -> int:
        """See `LayerSpec.input_channels`."""
        return self.in_channels

    @property
    def output_channels(self) -> int:
        """See `LayerSpec.output_channels`."""
        return self.out_channels

    @property
    def peak_elements(self) -> int:
        """See `LayerSpec.peak_elements`.

        The input lives until the shortcut has consumed it, which comes after the main path; the main
        path's output lives until the shortcut is added.
        """
        reduce, middle, expand = (op.input_elements + op.output_elements for op in self.operators[:3])
        source = self.operators[0].input_elements
        live = [reduce, source + middle, source + expand]
        if self.project:
            shortcut = self.operators[3]
            output = shortcut.output_elements
            live.append(shortcut.input_elements + 2 * output)
            if self.stride > 1:
                live.append(source + shortcut.input_elements + output)
        return max(live)
