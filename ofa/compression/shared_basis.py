"""Training of kernels as combinations of basis kernels, with coefficients of which many become zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import override

from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.compression.penni import basis_and_coefficients

_BASIS, _COEFFICIENTS = "parametrizations.weight.original0", "parametrizations.weight.original1"


@dataclass(frozen=True)
class KernelFactors:
    """The kernels of a convolution: coefficients (out, in, rank) of basis kernels (rank, height, width)."""

    basis: Tensor
    coefficients: Tensor

    @property
    def without_unused(self) -> KernelFactors:
        """The same kernels without basis kernels that no coefficient uses; one stays."""
        is_used = torch.ne(self.coefficients, 0).flatten(0, 1).any(0)
        is_used[0] |= not is_used.any()
        return KernelFactors(self.basis[is_used], self.coefficients[:, :, is_used])


def factors_of(weight: Tensor, rank: int) -> KernelFactors:
    """Return the factors that come closest to the weight of a convolution, in its type and on its device."""
    return KernelFactors(*(factor.to(weight) for factor in basis_and_coefficients(weight, rank)))


def share_bases(network: nn.Module, factors: Mapping[str, KernelFactors]) -> None:
    """Let convolutions compute with kernels from these factors, which are trained instead, in place.

    The kernels are multiplied out in every pass, so that a training takes as long as that of convolutions
    (Li et al. 2020). Coefficients that are zero stay zero.

    Args:
        network: network.
        factors: factors of the weights by the name of the layer.
    """
    for name, own in factors.items():
        layer = network.get_submodule(name)
        mask = torch.ne(own.coefficients, 0)
        parametrize.register_parametrization(layer, "weight", _SharedBasis(own, mask))


def trained_factors(network: nn.Module, names: Sequence[str]) -> dict[str, KernelFactors]:
    """Return the factors of layers, and let them have plain weights again, in place."""
    factors = {}
    for name in names:
        mask = _parametrisation(network, name).mask
        basis, coefficients = (tensor.detach() for tensor in _originals(network, name))
        factors[name] = KernelFactors(basis, torch.where(mask, coefficients, 0.0))
        parametrize.remove_parametrizations(network.get_submodule(name), "weight")
    return factors


class SparsePenalty:
    """The L1 norm of coefficients as a part of the loss, with the basis and them trained in turns.

    Joint training of both is less stable (Li et al. 2020).
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        pointwise: Sequence[str],
        weight: float,
        turn_epochs: int,
    ) -> None:
        """Take what is penalised.

        Args:
            network: network whose layers share bases.
            names: layers with a basis.
            pointwise: 1x1 convolutions, whose weights are coefficients as they are.
            weight: weight of the norm in the loss.
            turn_epochs: epochs in which the coefficients alone are trained, then the basis alone; 0 for both
                together.
        """
        pairs = [_originals(network, name) for name in names]
        self._bases, self._coefficients = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self._penalised = [
            *self._coefficients,
            *(network.get_parameter(f"{name}.weight") for name in pointwise),
        ]
        self._weight, self._turn_epochs = weight, turn_epochs

    def __call__(self) -> Tensor:
        """Return the weighted norm."""
        return self._weight * torch.stack([tensor.abs().sum() for tensor in self._penalised]).sum()

    def before_epoch(self, epoch: int) -> None:
        """Choose what is trained in an epoch, counted from 0."""
        is_basis_turn = self._turn_epochs > 0 and epoch // self._turn_epochs % 2 == 1
        for basis, coefficients in zip(self._bases, self._coefficients, strict=True):
            basis.requires_grad_(is_basis_turn or not self._turn_epochs)
            coefficients.requires_grad_(not is_basis_turn)

    def end(self) -> None:
        """Let everything be trained again."""
        for tensor in (*self._bases, *self._coefficients):
            tensor.requires_grad_(True)


@torch.no_grad()
def prune_coefficients(
    network: nn.Module, names: Sequence[str], pointwise: Sequence[str], threshold: float
) -> None:
    """Set small coefficients to zero, in place: those below `threshold` standard deviations of a layer's.

    Args:
        network: network whose layers share bases.
        names: layers with a basis.
        pointwise: 1x1 convolutions, whose weights are coefficients as they are.
        threshold: standard deviations of the coefficients of the layer.

    Raises:
        UserError: if nothing would be left of a layer.
    """
    emptied = []
    for name in (*names, *pointwise):
        values = _originals(network, name)[1] if name in names else network.get_parameter(f"{name}.weight")
        is_small = values.abs() < threshold * values.std(correction=0)
        emptied += [name] if is_small.all() else []
        values.masked_fill_(is_small, 0.0)
        if name in names:
            _parametrisation(network, name).mask.copy_(~is_small)
    if emptied:
        raise UserError(
            f"All coefficients of {listed_names(emptied)} are below {threshold:g} standard deviations; give "
            "a smaller penni.threshold."
        )


def pointwise_layers(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the 1x1 convolutions that read all channels."""
    return tuple(
        name
        for name, layer in network.named_modules()
        if type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.groups == 1
    )


class _SharedBasis(nn.Module):
    """A weight made of a basis and coefficients; those outside the mask are zero."""

    mask: Tensor

    def __init__(self, initial: KernelFactors, mask: Tensor) -> None:
        super().__init__()
        self._initial: KernelFactors | None = initial
        self.register_buffer("mask", mask)

    @override
    def forward(self, basis: Tensor, coefficients: Tensor) -> Tensor:
        kept = torch.where(self.mask, coefficients, 0.0)
        return torch.einsum("oir,rhw->oihw", kept, basis)

    def right_inverse(self, _: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first factors, which need not give the former weight."""
        initial, self._initial = self._initial, None
        assert initial is not None
        return initial.basis.clone(), initial.coefficients.clone()


def _parametrisation(network: nn.Module, name: str) -> _SharedBasis:
    parametrisation = network.get_submodule(f"{name}.parametrizations.weight.0")
    assert isinstance(parametrisation, _SharedBasis)
    return parametrisation


def _originals(network: nn.Module, name: str) -> tuple[nn.Parameter, nn.Parameter]:
    layer = network.get_submodule(name)
    return layer.get_parameter(_BASIS), layer.get_parameter(_COEFFICIENTS)
