"""Layers that all families share: convolution, pooling and classifier."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from ofa.architecture.layer import LayerSpec, Operator, output_size


@dataclass(frozen=True)
class ConvSpec(LayerSpec):
    """Convolution, optional batch norm, activation; `add_input` makes it residual."""

    kernel_size: int
    stride: int
    activation: str
    batch_norm: bool = True
    bn_epsilon: float = 1e-5
    add_input: bool = False

    @property
    @override
    def key(self) -> str:
        flags = ("-bn" if self.batch_norm else "") + ("-add" if self.add_input else "")
        return (
            f"conv-in{self.input_size}x{self.in_channels}-out{self.out_channels}"
            f"-k{self.kernel_size}-s{self.stride}-{self.activation}{flags}"
        )

    @property
    @override
    def residual(self) -> bool:
        return self.add_input

    @property
    @override
    def operators(self) -> tuple[Operator, ...]:
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


@dataclass(frozen=True)
class PoolSpec(LayerSpec):
    """Global average pooling to 1x1; the number of channels stays."""

    def __post_init__(self) -> None:
        """Check that input and output channels are equal."""
        assert self.in_channels == self.out_channels, self

    @property
    @override
    def key(self) -> str:
        return f"pool-in{self.input_size}x{self.in_channels}"

    @property
    @override
    def operators(self) -> tuple[Operator, ...]:
        return ()

    @property
    @override
    def keeps_channels(self) -> bool:
        return True

    @property
    @override
    def peak_elements(self) -> int:
        return self.in_channels * (self.input_size**2 + 1)


@dataclass(frozen=True)
class LinearSpec(LayerSpec):
    """Dropout and linear classifier on a 1x1 feature map."""

    @property
    @override
    def key(self) -> str:
        return f"linear-in{self.in_channels}-out{self.out_channels}"

    @property
    @override
    def operators(self) -> tuple[Operator, ...]:
        return (Operator(1, self.in_channels, self.out_channels, bias=True),)


@dataclass(frozen=True)
class MaxPoolSpec(LayerSpec):
    """Max-pooling with 'same' padding; the number of channels stays."""

    kernel_size: int
    stride: int

    def __post_init__(self) -> None:
        """Check that input and output channels are equal."""
        assert self.in_channels == self.out_channels, self

    @property
    @override
    def key(self) -> str:
        return f"maxpool-in{self.input_size}x{self.in_channels}-k{self.kernel_size}-s{self.stride}"

    @property
    @override
    def operators(self) -> tuple[Operator, ...]:
        return ()

    @property
    @override
    def keeps_channels(self) -> bool:
        return True

    @property
    @override
    def peak_elements(self) -> int:
        return self.in_channels * (self.input_size**2 + output_size(self.input_size, self.stride) ** 2)
