"""`Reconstructor`: weights of layers that lost inputs, fitted to what the layers computed before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.graph.layer_calls import LayerCall, LayerCalls
from ofa.graph.settings import MIN_FITTED_IMAGES

_POSITIONS = 64
"""Positions of an image at which outputs are compared, at most."""

_RIDGE = 1e-3
"""Weight of the distance to the sliced weights, as a part of the mean square of the inputs."""

_NO_INPUT = 1e-30
"""Mean square of the inputs of a layer that reads zeros alone, so that its equations can be solved."""

_HELD_OUT = 4
"""One of so many images judges the fit."""

_CHUNK = 16
"""Images whose patches are in memory at once."""


@dataclass(frozen=True)
class FittedLayer:
    """What a fit gained for one layer.

    Attributes:
        name: qualified name of the layer.
        error_before: squared error of its outputs with the sliced weights on images that were not fitted, as
            a part of their mean square.
        error_after: the same with the fitted weights, which the layer has only if it is smaller.
    """

    name: str
    error_before: float
    error_after: float


class Reconstructor:
    """Fits the sub-networks of one network to the outputs of its layers.

    A layer that reads fewer channels than before gets the weights that map what is left of its inputs to its
    former outputs with the least squared error, with a ridge towards the sliced weights (He et al. 2017,
    "Channel pruning for accelerating very deep neural networks", sec. 3.1, for the weights). Layers are
    fitted in the order in which the network calls them, each to the inputs that those before it leave.
    """

    def __init__(self, original: nn.Module, images: Tensor) -> None:
        """Compute the outputs of all layers once.

        Args:
            original: the network in eval mode; convolutions of images and linear maps that it computes more
                than once, or whose weight is no parameter of its own, are not fitted.
            images: (n, ...), on its device; all of them are in memory as one batch.

        Raises:
            UserError: if there are fewer than `MIN_FITTED_IMAGES` images.
        """
        if len(images) < MIN_FITTED_IMAGES:
            raise UserError(
                f"There are {len(images)} images to fit layers to; expected {MIN_FITTED_IMAGES} at least."
            )
        self._images = images
        self._outputs: dict[str, Tensor] = {}
        self._num_inputs = {
            name: value[0].numel() for name, value in original.named_parameters() if len(value)
        }
        num_calls = Counter[str]()

        def record(name: str, call: LayerCall, outputs: Tensor) -> None:
            num_calls[name] += 1
            if call.is_by_image(len(images)):
                self._outputs[name] = _sampled(call.output_rows(outputs, len(images)), name).cpu()

        with torch.no_grad(), LayerCalls(original, after=record):
            original(images)
        for name, count in num_calls.items():
            if count > 1:
                self._outputs.pop(name, None)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers that can be fitted."""
        return tuple(map(_layer_name, self._outputs))

    def fit(self, pruned: nn.Module, positions: Mapping[str, Tensor]) -> tuple[FittedLayer, ...]:
        """Fit the layers of a sub-network that read fewer values, in place.

        A layer keeps its sliced weights where the fitted ones are not strictly better on images that were not
        fitted.

        Args:
            pruned: the sub-network in eval mode, of the class of the network or a graph module.
            positions: positions of its values in the full tensors, by name; see `GraphSupernet.positions`.

        Returns:
            The layers in the order of their calls.
        """
        outputs = {}
        for name, weight in pruned.named_parameters():
            if name in self._outputs and weight[0].numel() < self._num_inputs[name]:
                rows = positions[name].reshape(len(weight), -1)
                outputs[name] = (name, rows[:, 0].cpu() // self._num_inputs[name])
        return self._fit_layers(pruned, outputs)

    def fit_factors(self, changed: nn.Module, layers: Mapping[str, str]) -> tuple[FittedLayer, ...]:
        """Fit layers to what others computed that they end the computation of, in place; see `fit`.

        Args:
            changed: the network in eval mode, some layers replaced by several ones.
            layers: names of the last of these ones, with the name of the layer that they replace.
        """
        weights = dict(changed.named_parameters())
        outputs = {
            f"{name}.weight": (f"{original}.weight", torch.arange(len(weights[f"{name}.weight"])))
            for name, original in layers.items()
            if f"{original}.weight" in self._outputs
        }
        return self._fit_layers(changed, outputs)

    @torch.no_grad()
    def _fit_layers(
        self, network: nn.Module, outputs: Mapping[str, tuple[str, Tensor]]
    ) -> tuple[FittedLayer, ...]:
        """Fit layers of a network, each to some outputs of a layer of the original one."""
        results: list[FittedLayer] = []

        def fit_layer(name: str, call: LayerCall) -> None:
            if name in outputs and call.is_by_image(len(self._images)):
                results.append(self._fit(name, call, *outputs[name]))

        with LayerCalls(network, before=fit_layer):
            network(self._images)
        return tuple(results)

    def _fit(self, name: str, call: LayerCall, original: str, outputs: Tensor) -> FittedLayer:
        """Fit the weight of a call, each group of a convolution by itself."""
        targets = self._outputs[original][..., outputs].double()
        if call.bias is not None:
            targets = targets - call.bias.cpu().double()
        sliced = call.weight.detach().cpu().reshape(call.groups, -1, call.weight[0].numel()).double()
        num_groups, num_outputs, size = sliced.shape
        products = torch.zeros(num_groups, size, size).double()
        residues = torch.zeros(num_groups, size, num_outputs).double()
        held_out: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(targets), _CHUNK):
            rows = _sampled(call.input_rows(len(targets), start, start + _CHUNK), original).cpu().double()
            goal = targets[start : start + _CHUNK]
            judges = torch.arange(start, start + len(rows)) % _HELD_OUT == 0
            held_out.append((_by_group(rows[judges], num_groups), _by_group(goal[judges], num_groups)))
            rows, goal = _by_group(rows[~judges], num_groups), _by_group(goal[~judges], num_groups)
            products += rows.mT @ rows
            residues += rows.mT @ (goal - rows @ sliced.mT)
        diagonals = products.diagonal(dim1=1, dim2=2)
        diagonals.add_(_RIDGE * diagonals.mean(1, keepdim=True).clamp(min=_NO_INPUT))
        fitted = sliced + torch.linalg.solve(products, residues).mT
        before, after = (_error_share(weight, held_out) for weight in (sliced, fitted))
        if after < before:
            call.weight.copy_(fitted.reshape(call.weight.shape))
        return FittedLayer(_layer_name(name), before, after)


def _by_group(rows: Tensor, num_groups: int) -> Tensor:
    """Return rows (images, places, values of all groups) as (groups, images * places, values)."""
    return rows.reshape(-1, num_groups, rows.shape[2] // num_groups).movedim(1, 0)


def _error_share(weight: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> float:
    """Return the squared error of outputs by a weight (groups, outputs, inputs), as a part of the squares."""
    error = sum(float(((rows @ weight.mT - goal) ** 2).sum()) for rows, goal in pairs)
    total = sum(float((goal**2).sum()) for _, goal in pairs)
    return error / total if total else 0.0


def _sampled(rows: Tensor, name: str) -> Tensor:
    """Return some places of each image (images, places, values), the same ones for every network."""
    generator = torch.Generator().manual_seed(len(_layer_name(name)))
    return rows[:, torch.randperm(rows.shape[1], generator=generator)[:_POSITIONS]]


def _layer_name(weight_name: str) -> str:
    return weight_name.removesuffix(".weight")
