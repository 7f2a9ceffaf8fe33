"""`Reconstructor`: weights of layers that lost inputs, fitted to what the layers computed before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ofa.common.errors import UserError
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

Layer = nn.Conv2d | nn.Linear


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
            original: the network in eval mode; convolutions and linear layers that it does not call as
                modules, or more than once, are not fitted.
            images: (n, ...), on its device; all of them are in memory as one batch.

        Raises:
            UserError: if there are fewer than `MIN_FITTED_IMAGES` images.
        """
        if len(images) < MIN_FITTED_IMAGES:
            raise UserError(
                f"There are {len(images)} images to fit layers to; expected {MIN_FITTED_IMAGES} at least."
            )
        self._layers, self._images = _layers(original), images
        self._outputs: dict[str, Tensor] = {}
        num_calls = Counter[str]()

        def record(name: str, outputs: Tensor) -> None:
            num_calls[name] += 1
            self._outputs[name] = _sampled_outputs(outputs, self._layers[name], name)

        handles = [
            layer.register_forward_hook(lambda _, inputs, outputs, name=name: record(name, outputs))
            for name, layer in self._layers.items()
        ]
        with torch.no_grad(), _removed(handles):
            original(images)
        for name, count in num_calls.items():
            if count > 1:
                del self._outputs[name]

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers that can be fitted."""
        return tuple(self._outputs)

    def fit(self, pruned: nn.Module, positions: Mapping[str, Tensor]) -> tuple[FittedLayer, ...]:
        """Fit the layers of a sub-network that read fewer values, in place.

        A layer keeps its sliced weights where the fitted ones are not strictly better on images that were not
        fitted.

        Args:
            pruned: the sub-network in eval mode; without layers that are called as modules it is unchanged.
            positions: positions of its values in the full tensors, by name; see `GraphSupernet.positions`.

        Returns:
            The layers in the order of their calls.
        """
        outputs = {}
        for name, layer in _layers(pruned).items():
            num_inputs = self._layers[name].weight[0].numel() if name in self._outputs else 0
            if layer.weight[0].numel() < num_inputs:
                rows = positions[f"{name}.weight"].reshape(len(layer.weight), -1)
                outputs[name] = (name, rows[:, 0].cpu() // num_inputs)
        return self._fit_layers(pruned, outputs)

    def fit_factors(self, changed: nn.Module, layers: Mapping[str, str]) -> tuple[FittedLayer, ...]:
        """Fit layers to what others computed that they end the computation of, in place; see `fit`.

        Args:
            changed: the network in eval mode, some layers replaced by several ones.
            layers: names of the last of these ones, with the name of the layer that they replace.
        """
        last_layers = _layers(changed)
        outputs = {
            name: (original, torch.arange(len(last_layers[name].weight)))
            for name, original in layers.items()
            if name in last_layers and original in self._outputs
        }
        return self._fit_layers(changed, outputs)

    @torch.no_grad()
    def _fit_layers(
        self, network: nn.Module, outputs: Mapping[str, tuple[str, Tensor]]
    ) -> tuple[FittedLayer, ...]:
        """Fit layers of a network, each to some outputs of a layer of the original one."""
        results: list[FittedLayer] = []
        layers = _layers(network)

        def fit_layer(name: str, inputs: Tensor) -> None:
            results.append(self._fit(name, layers[name], *outputs[name], inputs))

        handles = [
            layers[name].register_forward_pre_hook(lambda _, inputs, name=name: fit_layer(name, inputs[0]))
            for name in outputs
        ]
        with _removed(handles):
            network(self._images)
        return tuple(results)

    def _fit(self, name: str, layer: Layer, original: str, outputs: Tensor, inputs: Tensor) -> FittedLayer:
        targets = self._outputs[original][..., outputs].double()
        if layer.bias is not None:
            targets = targets - layer.bias.cpu().double()
        sliced = layer.weight.detach().cpu().flatten(1).double()
        size = sliced.shape[1]
        products, residues = torch.zeros(size, size).double(), torch.zeros(size, len(sliced)).double()
        held_out: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(inputs), _CHUNK):
            rows = _sampled_inputs(inputs[start : start + _CHUNK], layer, original).cpu().double()
            goal = targets[start : start + _CHUNK]
            judges = torch.arange(start, start + len(rows)) % _HELD_OUT == 0
            held_out.append((rows[judges].flatten(0, 1), goal[judges].flatten(0, 1)))
            rows, goal = rows[~judges].flatten(0, 1), goal[~judges].flatten(0, 1)
            products += rows.T @ rows
            residues += rows.T @ (goal - rows @ sliced.T)
        ridge = _RIDGE * products.diagonal().mean().clamp(min=_NO_INPUT)
        products.diagonal().add_(ridge)
        fitted = sliced + torch.linalg.solve(products, residues).T
        before, after = (_error_share(weight, held_out) for weight in (sliced, fitted))
        if after < before:
            layer.weight.copy_(fitted.reshape(layer.weight.shape))
        return FittedLayer(name, before, after)


def _layers(network: nn.Module) -> dict[str, Layer]:
    """Return the layers of a network that can be fitted, by name."""
    return {name: layer for name, layer in network.named_modules() if _can_be_fitted(layer)}


def _can_be_fitted(layer: nn.Module) -> bool:
    if type(layer) is nn.Linear:
        return True
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


@contextmanager
def _removed(handles: list[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _error_share(weight: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> float:
    """Return the squared error of outputs by a weight (outputs, inputs), as a part of their squares."""
    error = sum(float(((rows @ weight.T - goal) ** 2).sum()) for rows, goal in pairs)
    total = sum(float((goal**2).sum()) for _, goal in pairs)
    return error / total if total else 0.0


def _places(num_places: int, name: str) -> Tensor:
    """Return the places of an image's outputs that are compared: the same for every network."""
    generator = torch.Generator().manual_seed(len(name))
    return torch.randperm(num_places, generator=generator)[:_POSITIONS]


def _sampled_outputs(outputs: Tensor, layer: Layer, name: str) -> Tensor:
    """Return outputs at some places of each image (n, places, channels), on the CPU."""
    rows = outputs.flatten(2).movedim(1, 2) if isinstance(layer, nn.Conv2d) else _rows(outputs)
    return rows[:, _places(rows.shape[1], name)].cpu()


def _sampled_inputs(inputs: Tensor, layer: Layer, name: str) -> Tensor:
    """Return what the outputs at these places are computed from (n, places, inputs of an output)."""
    if isinstance(layer, nn.Linear):
        rows = _rows(inputs)
    else:
        assert not isinstance(layer.padding, str)
        patches = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = patches.movedim(1, 2)
    return rows[:, _places(rows.shape[1], name)]


def _rows(values: Tensor) -> Tensor:
    """Return values (n, ..., features) as (n, places, features)."""
    return values.reshape(len(values), -1, values.shape[-1])
