"""Layers that every family has: convolution, pooling and classifier."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.architecture.layer import LayerSpec, Operator, output_size


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
