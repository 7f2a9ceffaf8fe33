"""The convolutions of a network that can have another form, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.compression.changes import FORMS, LayerChange
from ofa.compression.form import convolution_macs

Size = tuple[int, int]


@dataclass(frozen=True)
class Candidate:
    """A convolution with the forms that it can have.

    Attributes:
        layer: qualified name of the convolution.
        shape: text of its weights, stride and padding.
        sizes: height and width of its input in each call of the network, at least one.
        macs: its multiply-accumulates for one image.
        changes: other forms of it that take fewer multiply-accumulates.
        changed_macs: multiply-accumulates of each of them.
    """

    layer: str
    shape: str
    sizes: tuple[Size, ...]
    macs: int
    changes: tuple[LayerChange, ...]
    changed_macs: tuple[int, ...]


@dataclass(frozen=True)
class Candidates:
    """The convolutions of a network that can be changed, and the others by the reason.

    Attributes:
        layers: those that can be changed, in the order of the network.
        obstacles: number of the others, by the reason.
    """

    layers: tuple[Candidate, ...]
    obstacles: Mapping[str, int]

    @property
    def text(self) -> str:
        """A line for the user, e.g. "3 of 61 convolutions qualify (the others: 50 1x1 kernel, 8 grouped)"."""
        total = len(self.layers) + sum(self.obstacles.values())
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.obstacles.items())
        others = f" (the others: {reasons})" if reasons and self.layers else f": {reasons}" if reasons else ""
        return f"{len(self.layers)} of {total} convolutions qualify{others}"


def find_candidates(
    network: nn.Module, image_shape: tuple[int, int, int], forms: Sequence[str]
) -> Candidates:
    """Return the convolutions that can have one of the forms.

    Args:
        network: network in eval mode.
        image_shape: (channels, height, width) of its images.
        forms: keys of `FORMS`.

    Raises:
        UserError: if no convolution qualifies, naming the reasons, or weights are not finite.
    """
    sizes = _input_sizes(network, image_shape)
    names = Counter(id(layer) for _, layer in network.named_modules(remove_duplicate=False))
    layers, obstacles = [], Counter[str]()
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        obstacle = _obstacle(layer, forms, names[id(layer)], sizes.get(name, ()))
        candidate = None if obstacle else _candidate(name, layer, forms, sizes[name])
        if candidate is None or not candidate.changes:
            obstacles[obstacle or "with too few channels"] += 1
        else:
            layers.append(candidate)
    found = Candidates(tuple(layers), obstacles)
    if not layers:
        raise UserError(f"{found.text}. {' and '.join(forms)} can do nothing for this network.")
    _check_finite(network, [candidate.layer for candidate in layers])
    return found


def with_rank(candidates: Candidates, rank: int) -> Candidates:
    """Return the convolutions with the changes of one rank alone.

    Raises:
        UserError: if no convolution can have it, naming the ranks that some can have.
    """
    layers, obstacles = [], Counter(candidates.obstacles)
    for layer in candidates.layers:
        positions = [index for index, change in enumerate(layer.changes) if change.ranks == (rank,)]
        if positions:
            changes = tuple(layer.changes[index] for index in positions)
            macs = tuple(layer.changed_macs[index] for index in positions)
            layers.append(replace(layer, changes=changes, changed_macs=macs))
        else:
            obstacles[f"with no gain at rank {rank}"] += 1
    if not layers:
        ranks = [change.ranks[0] for layer in candidates.layers for change in layer.changes]
        raise UserError(f"No convolution gains at rank {rank}; expected {min(ranks)} to {max(ranks)}.")
    return Candidates(tuple(layers), obstacles)


def _obstacle(layer: nn.Conv2d, forms: Sequence[str], num_names: int, sizes: Sequence[Size]) -> str | None:
    """Return why a convolution can have none of the forms; None if it can have one."""
    if num_names > 1:
        return "with several names"
    if not sizes:
        return "not called by name"
    reasons = [FORMS[form].obstacle(layer) for form in forms]
    return None if None in reasons else reasons[0]


def _candidate(name: str, layer: nn.Conv2d, forms: Sequence[str], sizes: Sequence[Size]) -> Candidate:
    changes, macs = [], []
    for form in (FORMS[form] for form in forms):
        for ranks in () if form.obstacle(layer) else form.choices(layer, sizes[0]):
            changes.append(LayerChange(name, form.name, ranks))
            macs.append(sum(form.macs(layer, ranks, size) for size in sizes))
    return Candidate(
        layer=name,
        shape=_shape_text(layer),
        sizes=tuple(sizes),
        macs=sum(convolution_macs(layer, size) for size in sizes),
        changes=tuple(changes),
        changed_macs=tuple(macs),
    )


def _shape_text(layer: nn.Conv2d) -> str:
    def sides(values: Sequence[int | str]) -> str:
        return "x".join(map(str, values))

    further = [] if set(layer.dilation) == {1} else [f"d{sides(layer.dilation)}"]
    channels = f"{layer.in_channels}>{layer.out_channels}"
    numbers = (f"k{sides(layer.kernel_size)}", f"s{sides(layer.stride)}", f"p{sides(tuple(layer.padding))}")
    return " ".join((channels, *numbers, *further))


@torch.no_grad()
def _input_sizes(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, tuple[Size, ...]]:
    """Return height and width of the inputs of each convolution that is called as a module."""
    sizes: dict[str, list[Size]] = {}
    handles = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):

            def record(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                sizes.setdefault(name, []).append((inputs[0].shape[-2], inputs[0].shape[-1]))

            handles.append(layer.register_forward_pre_hook(record))
    try:
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        network(torch.zeros(1, *image_shape, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return {name: tuple(values) for name, values in sizes.items()}


def _check_finite(network: nn.Module, names: Sequence[str]) -> None:
    parameters = dict(network.named_parameters())
    bad_names = [name for name in names if not torch.isfinite(parameters[f"{name}.weight"]).all()]
    if bad_names:
        raise UserError(f"The weights of {listed_names(bad_names)} are not finite; nothing can be factored.")
