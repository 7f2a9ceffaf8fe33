"""Convolutions of a user's network as pairs: the number of channels between the two, the rank, is elastic."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ofa.common.display import listed_names, short_text
from ofa.common.errors import UserError
from ofa.graph.capture import tensors_in
from ofa.graph.genes import Choices
from ofa.graph.parts import matching_modules
from ofa.graph.structure import Group, SplitLayer
from ofa.modules.split import (
    composed_weight,
    factoring_obstacle,
    full_rank,
    sort_by_singular_value,
    split_layers,
    split_weights,
    with_factors,
)

# Share of the largest output by which rounding may change the outputs.
_TOLERANCE = 1e-2


def find_splits(
    model: nn.Module, choices: Choices, exclude: Sequence[str] = (), include: Sequence[str] = ()
) -> tuple[SplitLayer, ...]:
    """Return the convolutions that are to be split, each at the largest of its ranks.

    Grouped ones, 1x1 kernels, those with several names or computed weights, and ranks below
    `choices.min_channels` are left out.

    Args:
        model: the user's network.
        choices: what its genes may be.
        exclude: patterns of modules that stay.
        include: patterns of the only modules that may vary.

    Raises:
        UserError: for a pattern that matches nothing, weights that are not finite, or if ranks are asked for
            and no convolution qualifies.
    """
    excluded = matching_modules(model, exclude, "exclude")
    included = matching_modules(model, include, "include")
    num_names = Counter(id(layer) for _, layer in model.named_modules(remove_duplicate=False))
    splits, others = [], Counter[str]()
    for name, layer in model.named_modules():
        shares = choices.of(name).ranks
        if not shares or not isinstance(layer, nn.Conv2d):
            continue
        rank = _largest_rank(full_rank(layer.weight), max(shares), choices.divisor)
        obstacle = "of a lower rank" if rank < choices.min_channels else factoring_obstacle(layer)
        if {name, f"{name}.weight"} & excluded or (include and name not in included):
            obstacle = "excluded"
        if not name or num_names[id(layer)] > 1:
            obstacle = "with several names" if name else "the network itself"
        if obstacle:
            others[obstacle] += 1
        else:
            splits.append(SplitLayer(name, rank))
    if not splits and (choices.ranks or any(rule.ranks for rule in choices.rules)):
        reasons = ", ".join(f"{count} {reason}" for reason, count in others.items()) or "there is none"
        raise UserError(f"No convolution can be split: {reasons}. Leave ranks empty for this network.")
    infinite = [s.name for s in splits if not torch.isfinite(_convolution(model, s.name).weight).all()]
    if infinite:
        raise UserError(f"The weights of {listed_names(infinite)} are not finite; nothing can be split.")
    return tuple(splits)


def _largest_rank(full: int, share: float, divisor: int) -> int:
    return full if share == 1 else min(full, max(divisor, round(share * full / divisor) * divisor))


def split_network(model: nn.Module, splits: Sequence[SplitLayer]) -> nn.Module:
    """Return a copy of a network with split convolutions, which come closest to its own.

    The channels between the two are in the order of their singular values.
    """

    def factored(convolution: nn.Conv2d, rank: int) -> nn.Sequential:
        factors = split_weights(convolution.weight.detach().cpu().double(), rank)
        return with_factors(split_layers(convolution, rank), factors, convolution.bias)

    return _replaced(model, splits, factored)


def split_structure(model: nn.Module, splits: Sequence[SplitLayer]) -> nn.Module:
    """Return a network with split convolutions whose weights are undefined; itself if there are none.

    Raises:
        UserError: if a layer is no convolution of the network.
    """
    return _replaced(model, splits, split_layers) if splits else model


def _replaced(
    model: nn.Module, splits: Sequence[SplitLayer], make: Callable[[nn.Conv2d, int], nn.Sequential]
) -> nn.Module:
    network = copy.deepcopy(model)
    for split in splits:
        convolution = _convolution(network, split.name)
        layers = make(convolution, split.rank).train(convolution.training)
        for parameter in layers.parameters():
            parameter.requires_grad_(convolution.weight.requires_grad)
        parent, _, last = split.name.rpartition(".")
        setattr(network.get_submodule(parent), last, layers)
    return network


def _convolution(model: nn.Module, name: str) -> nn.Conv2d:
    layer = dict(model.named_modules()).get(name)
    if not isinstance(layer, nn.Conv2d):
        found = "no module of this name" if layer is None else f"a {type(layer).__name__}"
        raise UserError(f"{type(model).__name__} has {found} as {name}, which was split; expected a Conv2d.")
    return layer


@torch.no_grad()
def checked_split(
    model: nn.Module, splits: Sequence[SplitLayer], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> nn.Module:
    """Return a network with split convolutions, as `split_network`; itself if there are none.

    It is checked that it computes what the network does with the kernels that its pairs stand for.

    Args:
        model: the user's network.
        splits: its convolutions that are split.
        args: positional inputs.
        kwargs: inputs by name.

    Raises:
        UserError: if it fails, or computes something else, because code asks for the type of a layer or reads
            its weight.
    """
    if not splits:
        return model
    split = split_network(model, splits)
    whole = copy.deepcopy(model)
    for layer in splits:
        convolution, (first, last) = _convolution(whole, layer.name), _pair(split, layer.name)
        convolution.weight.copy_(composed_weight(first.double(), last.double()))
    hint = (
        "Its code may ask for the type of a layer or read its weight: exclude such modules, or set no ranks."
    )
    try:
        outputs = tensors_in(split(*args, **kwargs))
    except Exception as error:  # Whatever the user's forward raises.
        reason = short_text(f"{type(error).__name__}: {error}", 200)
        raise UserError(f"{type(model).__name__} fails with split convolutions: {reason}. {hint}") from error
    for found, expected in zip(outputs, tensors_in(whole(*args, **kwargs)), strict=True):
        if not _are_close(found, expected):
            raise UserError(f"{type(model).__name__} computes something else with split convolutions. {hint}")
    return split


def _are_close(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape or not expected.is_floating_point():
        return torch.equal(found, expected)
    largest = float(expected.nan_to_num(0, 0, 0).abs().max()) if expected.numel() else 0.0
    return torch.allclose(found, expected, 0, _TOLERANCE * largest, equal_nan=True)


def _pair(model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    first, last = (model.get_parameter(f"{name}.{number}.weight") for number in (0, 1))
    return first, last


def sort_ranks(group: Group, state: Mapping[str, Tensor], rank: int) -> None:
    """Put the first `rank` channels of a split convolution in the order of their singular values, in place.

    Args:
        group: the channels between its two parts.
        state: full parameters and buffers.
        rank: channels that compute the function that stays, but for rounding.
    """
    first, last = (state[f"{group.layer}.{number}.weight"] for number in (0, 1))
    sort_by_singular_value(first, last, rank)
