"""Weights of one supernet as the start of another one, for other classes or other channels of the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ofa.common.mismatches import listed, mismatches, raise_mismatches
from ofa.common.tensors import has_usual_numbers
from ofa.modules.static import StaticNetwork
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet


@dataclass(frozen=True)
class TransferReport:
    """What a network took from the weights of another one.

    Attributes:
        taken_names: names of the tensors that equal those of the source, bit for bit.
        adapted_names: names of first convolutions, summed or spread over other channels of the images.
        new_names: names of the tensors that kept their initial values.
        classes: numbers of classes of the source (None if it had no classifier) and of the network.
        in_channels: channels of the images of the source and of the network.
        classifier_names: those of `new_names` that are of the classifier.
    """

    taken_names: tuple[str, ...]
    adapted_names: tuple[str, ...]
    new_names: tuple[str, ...]
    classes: tuple[int | None, int]
    in_channels: tuple[int, int]
    classifier_names: tuple[str, ...]

    @property
    def has_new_classifier(self) -> bool:
        """Whether the classifier has its initial values."""
        return bool(self.classifier_names)

    @property
    def text(self) -> str:
        """One line for the user, e.g. "348 of 350 tensors; new: classifier (1000 → 5 classes)"."""
        num_all = len(self.taken_names) + len(self.adapted_names) + len(self.new_names)
        parts = [f"{len(self.taken_names)} of {num_all} tensors"]
        channels = "({} → {} channels)".format(*self.in_channels)
        if self.adapted_names:
            parts.append(f"adapted: first convolution {channels}")
        has_new_first = len(self.new_names) > len(self.classifier_names)
        new = [f"first convolution {channels}"] if has_new_first else []
        if self.has_new_classifier:
            before, after = self.classes
            new.append(f"classifier ({'none' if before is None else before} → {after} classes)")
        return "; ".join([*parts, *([f"new: {', '.join(new)}"] if new else [])])


def adapt_channels(weight: Tensor, in_channels: int) -> Tensor | None:
    """Return the weight (out, in, k, k) of a first convolution for images of other channels.

    The response to a grey image stays what it was: the weights of all channels are summed for one channel,
    and the weight of one channel is spread in equal parts over several. None for any other pair of numbers.
    """
    if in_channels == weight.shape[1]:
        return weight
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    if weight.shape[1] == 1:
        return (weight / in_channels).expand(-1, in_channels, -1, -1)
    return None


def transfer_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    what: str = "The source",
    is_classifier_kept: bool = True,
    names: Mapping[str, str] | None = None,
    hint: str = "",
) -> TransferReport:
    """Copy weights and statistics of another network of the same structure into `network`.

    Everything is taken but the classifier, where the number of classes differs or it is not to be kept, and
    the first convolution, where the channels of the images differ; see `adapt_channels`.

    Args:
        network: supernet or static network, changed only if all tensors fit; the rest stays as it is.
        state: tensors by name; a classifier may be missing.
        what: name of the source in errors.
        is_classifier_kept: whether a classifier of equal shape is taken; false if it tells other classes.
        names: names of the tensors in errors, where they differ from those in `state`.
        hint: sentence that ends the error.

    Raises:
        UserError: naming every tensor that is missing, unexpected, of another shape, or no finite number.
    """
    own, given = _tensors(network.state_dict()), _tensors(state)
    first, classifier = next(iter(own)), [name for name in own if _is_classifier(name)]
    num_classes, in_channels = len(own[classifier[0]]), own[first].shape[1]
    source_classes = next((given[n].shape[0] for n in classifier if n in given and given[n].ndim), None)
    source_channels = given[first].shape[1] if first in given and given[first].ndim == 4 else in_channels
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    expected[first] = (expected[first][0], source_channels, *expected[first][2:])
    for name in classifier:
        shape = expected.pop(name)
        if source_classes is not None:
            expected[name] = (source_classes, *shape[1:])
    raise_mismatches(what, _misfits(expected, given, names or {}), hint)
    first_weight = adapt_channels(given[first], in_channels)
    new = () if is_classifier_kept and source_classes == num_classes else tuple(classifier)
    if first_weight is None:
        new = (first, *new)
    else:
        given[first] = first_weight
    with torch.no_grad():
        for name in own.keys() - set(new):
            own[name].copy_(given[name])
    adapted = (first,) if first_weight is not None and source_channels != in_channels else ()
    return TransferReport(
        taken_names=tuple(name for name in own if name not in (*new, *adapted)),
        adapted_names=adapted,
        new_names=new,
        classes=(source_classes, num_classes),
        in_channels=(source_channels, in_channels),
        classifier_names=tuple(name for name in new if name != first),
    )


def fill_largest(supernet: Supernet, config: SubnetConfig, network: StaticNetwork) -> None:
    """Copy the weights of a static network into the supernet whose largest network (of any size) it is.

    The transforms of kernels, which the largest network does not use, stay as they are.
    """
    for number, (layer, spec) in enumerate(supernet.active_layers(config)):
        layer.take(network.layers[number].state_dict(), spec)


def _is_classifier(name: str) -> bool:
    return ".linear." in name


def _tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries without the counters of batch norm, which only static networks have."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _misfits(
    expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], names: Mapping[str, str]
) -> list[str]:
    """Return one text per kind of misfit, with the `names` of the tensors in the source."""
    shown_state = {names.get(name, name): tensor for name, tensor in state.items()}
    others = [name for name, tensor in shown_state.items() if not tensor.is_floating_point()]
    infinite = [n for n, tensor in shown_state.items() if not has_usual_numbers(tensor)]
    return [
        *mismatches({names.get(name, name): shape for name, shape in expected.items()}, shown_state),
        *listed("not floating-point", others),
        *listed("not finite", infinite),
    ]
