"""`reconstruct`: weights of layers that lost inputs, fitted to what the layers computed before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.graph.state import state_of

_POSITIONS = 64
"""Positions of an image whose outputs are fitted, at most."""

_RIDGE = 1e-3
"""Weight of the distance to the sliced weights, as a part of the mean square of the inputs."""

_HELD_OUT = 4
"""One of so many batches judges the fit."""


@dataclass(frozen=True)
class Reconstruction:
    """What a fit gained for one layer.

    Attributes:
        layer: qualified name of the layer.
        error_before: squared error of its outputs with sliced weights on images that were not fitted, as a
            part of their mean square.
        error_after: the same with fitted weights.
    """

    layer: str
    error_before: float
    error_after: float

    @property
    def is_better(self) -> bool:
        """Whether the fitted weights are closer to what the layer computed."""
        return self.error_after < self.error_before


@torch.no_grad()
def reconstruct(
    original: nn.Module,
    pruned: nn.Module,
    positions: Mapping[str, Tensor],
    batches: Sequence[Tensor],
    progress: ProgressCallback = silent,
) -> tuple[Reconstruction, ...]:
    """Fit the layers that read fewer channels to what they computed, in place.

    The weights of a convolution or linear layer become the least-squares map from the inputs that are left to
    the outputs that it had with all of them, with a ridge towards the sliced weights. Each layer is fitted
    by itself to the inputs of the original network. A layer keeps its sliced weights where the fitted ones are not
    strictly better on images that were not fitted (He et al. 2017 fit layers like this).

    Args:
        original: the network in eval mode; its convolutions and linear layers are called as modules.
        pruned: a sub-network of it with the same names of parameters.
        positions: position of each value of the pruned network in the original tensor, by name; see
            `GraphSupernet.positions`.
        batches: images, at least two batches; every fourth one judges the fit.
        progress: called per batch.

    Returns:
        What each layer that reads fewer channels gained.

    Raises:
        UserError: if there are fewer than two batches, or fewer rows than a layer has weights for an output.
    """
    if len(batches) < 2:
        raise UserError(f"There are {len(batches)} batches to fit layers to; expected at least 2.")
    fits = _layers_to_fit(original, pruned, positions)
    num_held_out = math.ceil(len(batches) / _HELD_OUT)
    with _recording(original, fits):
        for index, batch in enumerate(batches):
            for fit in fits.values():
                fit.judges = index >= len(batches) - num_held_out
            progress(index, len(batches), "fitting layers")
            original(batch)
            if index == len(batches) - num_held_out - 1:
                for fit in fits.values():
                    fit.solve()
    weights = dict(pruned.named_parameters())
    results = []
    for name, fit in fits.items():
        results.append(fit.result(name))
        if results[-1].is_better:
            weights[f"{name}.weight"].copy_(fit.fitted)
    progress(len(batches), len(batches), "")
    return tuple(results)


class _Fit:
    """Least squares of one layer, accumulated over batches."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, sliced: Tensor, positions: Tensor) -> None:
        """Prepare the sums.

        Args:
            layer: the layer with all inputs.
            sliced: its weight in the pruned network, (outputs, inputs, ...).
            positions: position of each of these values in the layer's weight.
        """
        self.judges = False
        rows = positions.reshape(positions.shape[0], -1)
        num_inputs = layer.weight[0].numel()
        self._outputs, self._columns = rows[:, 0] // num_inputs, rows[0] % num_inputs
        self._layer, self._shape = layer, sliced.shape
        self._sliced = sliced.detach().flatten(1).double()
        size = len(self._columns)
        self._products = torch.zeros(size, size, dtype=torch.float64, device=sliced.device)
        self._targets = torch.zeros(size, len(self._outputs), dtype=torch.float64, device=sliced.device)
        self._num_rows = 0
        self._errors = torch.zeros(3, dtype=torch.float64)
        self.fitted = self._sliced

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Take the inputs and outputs of a call of the layer."""
        rows, targets = _rows(self._layer, inputs, outputs)
        if self._layer.bias is not None:
            targets = targets - self._layer.bias
        rows, targets = rows[:, self._columns].double(), targets[:, self._outputs].double()
        if self.judges:
            errors = [((rows @ weight.T - targets) ** 2).sum() for weight in (self._sliced, self.fitted)]
            self._errors += torch.stack([*errors, (targets**2).sum()]).cpu()
            return
        self._num_rows += len(rows)
        self._products += rows.T @ rows
        self._targets += rows.T @ (targets - rows @ self._sliced.T)

    def solve(self) -> None:
        """Fit the weights to the sums so far."""
        ridge = _RIDGE * self._products.diagonal().mean()
        matrix = self._products + ridge * torch.eye(len(self._products)).to(self._products)
        self.fitted = self._sliced + torch.linalg.solve(matrix, self._targets).T
