"""Weights of another supernet, or network, of the same user's model as the start of a supernet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ofa.common.mismatches import listed, mismatches, raise_mismatches
from ofa.common.tensors import has_usual_numbers
from ofa.graph.supernet import GraphSupernet
from ofa.supernet.transfer import TransferReport, adapt_channels


def take_state(
    supernet: GraphSupernet, state: Mapping[str, Tensor], *, what: str, is_classifier_kept: bool
) -> TransferReport:
    """Copy the tensors of the same model, trained for any images, into a supernet.

    Everything is taken but the classifier, where its classes differ or it is not to be kept. Convolutions
    that read images of other channels are summed or spread, see `adapt_channels`. The transforms of kernels
    stay as they are where the source has none.

    Args:
        supernet: changed only if all tensors fit.
        state: tensors by the supernet's names.
        what: name of the source in errors.
        is_classifier_kept: whether a classifier of equal shape is taken; false if it tells other classes.

    Raises:
        UserError: naming the tensors that are missing, unexpected, of another shape, or no finite numbers.
    """
    own = supernet.state_dict()
    given, adapted = dict(state), list[str]()
    classifier = [name for name in supernet.classifier_parameters if name in own]
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    source_classes = next((len(given[name]) for name in classifier if name in given), None)
    own_classes = supernet.space.num_classes
    new = () if is_classifier_kept and source_classes == own_classes else tuple(classifier)
    channels = (supernet.space.in_channels, supernet.space.in_channels)
    for name, tensor in state.items():
        fitting = _for_channels(tensor, shapes.get(name, ()))
        if fitting is not None:
            channels = (tensor.shape[1], channels[1])
            given[name] = fitting
            adapted.append(name)
    for name in [name for name in own if name not in given and name.startswith("kernel_matrices.")]:
        given[name] = own[name]
    for name in new:
        shapes.pop(name)
        given.pop(name, None)
    infinite = [name for name, tensor in given.items() if not has_usual_numbers(tensor)]
    raise_mismatches(what, [*mismatches(shapes, given), *listed("not finite", infinite)])
    with torch.no_grad():
        for name in shapes:
            own[name].copy_(given[name])
    return TransferReport(
        taken_names=tuple(name for name in shapes if name not in adapted),
        adapted_names=tuple(adapted),
        new_names=new,
        classes=(source_classes, own_classes),
        in_channels=channels,
        classifier_names=new,
    )


def _for_channels(tensor: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Return the weight of a convolution for other channels of its images; None for any other tensor."""
    is_other = len(shape) == tensor.dim() == 4 and shape[1] != tensor.shape[1]
    if not is_other or (shape[0], *shape[2:]) != (tensor.shape[0], *tensor.shape[2:]):
        return None
    return adapt_channels(tensor, shape[1])
