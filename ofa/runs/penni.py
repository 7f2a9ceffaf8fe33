"""`train_penni`: kernels of few coefficients, trained, pruned, and without the channels that nothing uses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from ofa.common.errors import UserError
from ofa.compression.changes import BASIS_FORMS, LayerChange, apply_filled
from ofa.compression.nonzero_cost import hybrid_bits
from ofa.compression.shared_basis import (
    KernelFactors,
    SparsePenalty,
    factors_of,
    pointwise_layers,
    prune_coefficients,
    share_bases,
    trained_factors,
)
from ofa.compression.sparse import zeros_kept
from ofa.compression.unused_units import (
    CutNetwork,
    removable_groups,
    used_units,
    without_units,
)
from ofa.runs.compression_training import StepTraining

SPARSE_TRAINING, TUNING = "penni-sparse", "penni"
"""Names of the two trainings."""


@dataclass(frozen=True)
class PenniNetwork:
    """A network with convolutions by shared bases, and how it differs from the one that it was made of.

    Attributes:
        network: the network.
        changes: the changes, with the number of basis kernels that are used.
        sparse_layers: layers with coefficients, whose zeros a training keeps.
    """

    network: nn.Module
    changes: tuple[LayerChange, ...]
    sparse_layers: tuple[str, ...]


def train_penni(original: nn.Module, changes: Sequence[LayerChange], training: StepTraining) -> PenniNetwork:
    """Return a network with changed convolutions, those by shared bases trained.

    The coefficients are trained with a penalty, the small ones set to zero, channels left out that no
    coefficient makes or reads, and the rest is trained further with the zeros kept (Li et al. 2020).
    Channels that are constant take their constant with them: batch norm is recalibrated, which takes it up
    except at the border of padded maps, and training does the rest.

    Args:
        original: network on the device of training, in eval mode; not changed.
        changes: changes of its convolutions, some of them to forms of `BASIS_FORMS`.
        training: trains networks.

    Raises:
        UserError: if nothing would be left of a layer, or a file cannot be written.
        StoppedError: after a signal, with everything that was trained kept.
    """
    others = [change for change in changes if change.form not in BASIS_FORMS]
    by_basis = [change for change in changes if change.form in BASIS_FORMS]
    names = [change.layer for change in by_basis]
    network, settings = training.changed(original, others), training.settings.penni
    pointwise = pointwise_layers(network) if settings.pointwise else ()
    first_length, last_length = training.settings.penni_lengths
    share_bases(network, {change.layer: _factors(network, change) for change in by_basis})
    penalty = SparsePenalty(network, names, pointwise, settings.penalty, settings.turn_epochs)
    training(network, SPARSE_TRAINING, first_length, penalty=penalty)
    penalty.end()
    prune_coefficients(network, names, pointwise, settings.threshold)
    factors = trained_factors(network, names)
    cut = _without_unused(network, training)
    network = cut.network
    share_bases(network, {name: _cut(factors[name], cut, name) for name in names})
    training.recalibrate(network)
    training(network, TUNING, last_length, context=zeros_kept(network, pointwise))
    factors = trained_factors(network, names)
    for text in _texts(network, factors):
        training.note(text)
    network, by_basis = _in_forms(network, by_basis, factors)
    sparse = (f"{change.layer}.{BASIS_FORMS[change.form].coefficient_index}" for change in by_basis)
    return PenniNetwork(network, (*others, *by_basis), (*pointwise, *sparse))


def _factors(network: nn.Module, change: LayerChange) -> KernelFactors:
    return factors_of(network.get_parameter(f"{change.layer}.weight"), change.ranks[0])


def _without_unused(network: nn.Module, training: StepTraining) -> CutNetwork:
    """Return a network without the channels that nothing uses; all of them if it cannot be converted."""
    try:
        groups = removable_groups(copy.deepcopy(network).cpu().eval(), training.image_shape)
    except UserError as error:
        training.note(f"no channel is left out, because the network cannot be converted: {error}")
        return CutNetwork(network, {})
    used = used_units(network, groups)
    total, gone = sum(map(len, used)), sum(int((~flags).sum()) for flags in used)
    training.note(f"{gone} of {total} channels are left out: no coefficient makes them, or none reads them")
    return without_units(network, groups, used)


def _cut(own: KernelFactors, cut: CutNetwork, name: str) -> KernelFactors:
    """Return the factors of a layer without the channels and basis kernels that are gone."""
    return KernelFactors(own.basis, cut.cut(own.coefficients, f"{name}.weight")).without_unused


def _in_forms(
    network: nn.Module, changes: Sequence[LayerChange], factors: Mapping[str, KernelFactors]
) -> tuple[nn.Module, list[LayerChange]]:
    """Return the network with the forms of the changes, filled with the trained factors."""
    weights, own_changes = {}, []
    for change in changes:
        own = factors[change.layer]
        weights[change.layer] = BASIS_FORMS[change.form].arranged(own.basis, own.coefficients)
        own_changes.append(replace(change, ranks=(len(own.basis),)))
    return apply_filled(network, own_changes, weights).eval(), own_changes


def _texts(network: nn.Module, factors: Mapping[str, KernelFactors]) -> tuple[str, str]:
    """Return lines about the zeros, and about the size in mixed precision."""
    coefficients = [own.coefficients for own in factors.values()]
    total = sum(tensor.numel() for tensor in coefficients)
    zeros = sum(int((tensor == 0).sum()) for tensor in coefficients)
    full_bits = sum(32 * parameter.numel() for parameter in network.parameters())
    return (
        f"{100 * zeros / total:.0f} % of {total} coefficients are zero; processors take the same time for "
        "zeros, and for basis kernels more than their MACs tell",
        f"with bases in 8 bits and ternary coefficients the weights would take "
        f"{hybrid_bits(network, factors) / 8e3:.1f} kB, those of the kernels in fp32 {full_bits / 8e3:.1f} "
        "kB: no engine computes so, and the network is not trained for it",
    )
