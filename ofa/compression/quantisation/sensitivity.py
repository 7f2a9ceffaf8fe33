"""The search for layers that have to stay in floating point, by their sensitivity."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent

LayerSetMetric = Callable[[frozenset[int]], float]
"""Takes the layers that stay in floating point, returns the loss when all others are quantised."""

MAX_EVALUATIONS = 24


@dataclass(frozen=True)
class FloatingPointLayers:
    """Outcome of a set of floating-point layers.

    Attributes:
        layers: positions of the layers that stay in floating point, ascending.
        loss: points of the metric lost with this set.
        reached: whether the loss is within the allowed maximum.
        evaluations: number of evaluated quantised networks.
    """

    layers: tuple[int, ...]
    loss: float
    reached: bool
    evaluations: int


def rank_layers(
    layers: Sequence[int], output_error: LayerSetMetric, progress: ProgressCallback = silent
) -> tuple[int, ...]:
    """Return the layers in descending order of sensitivity.

    The sensitivity of a layer is the error of the output when only that layer is quantised, measured on
    calibration images without labels.

    Args:
        layers: positions of all layers that can be quantised.
        output_error: error of the network's output; see `LayerSetMetric`.
        progress: called per layer.
    """
    sensitivity: dict[int, float] = {}
    for index, layer in enumerate(layers):
        progress(index, len(layers), f"sensitivity of layer {layer}")
        sensitivity[layer] = output_error(frozenset(layers) - {layer})
    progress(len(layers), len(layers), "")
    return tuple(sorted(layers, key=lambda layer: (-sensitivity[layer], layer)))


def choose_kept_layers(
    ranking: Callable[[], Sequence[int]],
    loss: LayerSetMetric,
    max_loss: float,
    *,
    max_kept: int,
    max_evaluations: int = MAX_EVALUATIONS,
    progress: ProgressCallback = silent,
) -> FloatingPointLayers:
    """Keep the fewest layers that bring the loss to at most `max_loss`.

    Keeps 0, 1, 2, 4, ... of the most sensitive layers until the loss is small enough, and finds the
    smallest sufficient number between the last two by bisection. Then quantises each kept layer after all, in
    ascending order of sensitivity, if the loss allows it.

    Args:
        ranking: returns layers in descending order of sensitivity; called only if layers have to be kept.
        loss: points of the metric lost on validation images; see `LayerSetMetric`.
        max_loss: points that may be lost.
        max_kept: largest number of layers to keep.
        max_evaluations: largest number of calls of `loss`.
        progress: called per evaluation.

    Raises:
        UserError: if `max_loss` is negative, or `max_evaluations` below 1.
    """
    if max_loss < 0 or max_evaluations < 1:
        raise UserError(
            f"max_loss is {max_loss} and max_evaluations {max_evaluations}; expected at least 0 points and "
            "at least 1 evaluation."
        )
    search = _Search(loss, max_loss, max_evaluations, progress)
    if search.is_enough(()):
        return search.result()
    ranked_layers = tuple(ranking())[:max_kept]
    low, high = 0, None
    for count in _doubling(len(ranked_layers)):
        if search.is_enough(ranked_layers[:count]):
            high = count
            break
        low = count
    if high is not None:
        while high - low > 1 and search.has_budget:
            middle = (low + high) // 2
            low, high = (low, middle) if search.is_enough(ranked_layers[:middle]) else (middle, high)
        for layer in reversed(ranked_layers[: high - 1]):
            search.is_enough([other for other in search.best if other != layer])
    return search.result()


def _doubling(maximum: int) -> list[int]:
    """Return 1, 2, 4, ... below `maximum`, and `maximum`; an empty list if it is 0."""
    powers = itertools.takewhile(lambda count: count < maximum, (2**power for power in itertools.count()))
    return [*powers, maximum] if maximum else []


class _Search:
    """Evaluates sets of layers up to a maximal number, and keeps the best.

    The best is the smallest set that is sufficient, or, without a sufficient set, the one of smallest loss.
    """

    def __init__(
        self, loss: LayerSetMetric, max_loss: float, max_evaluations: int, progress: ProgressCallback
    ) -> None:
        self._loss, self._max_loss, self._total, self._progress = loss, max_loss, max_evaluations, progress
        self._losses: dict[frozenset[int], float] = {}
        self.best: frozenset[int] = frozenset()

    @property
    def has_budget(self) -> bool:
        return len(self._losses) < self._total

    def is_enough(self, layers: Collection[int]) -> bool:
        """Return whether keeping `layers` is sufficient; False if no evaluations remain."""
        kept_layers = frozenset(layers)
        if kept_layers not in self._losses:
            if not self.has_budget:
                return False
            self._progress(len(self._losses), self._total, f"keeping {len(kept_layers)} layers")
            self._losses[kept_layers] = self._loss(kept_layers)
            self.best = min(self._losses, key=self._merit)
        return self._losses[kept_layers] <= self._max_loss

    def _merit(self, kept_layers: frozenset[int]) -> tuple[bool, float, float]:
        loss = self._losses[kept_layers]
        if loss <= self._max_loss:
            return False, len(kept_layers), loss
        return True, loss, len(kept_layers)

    def result(self) -> FloatingPointLayers:
        self._progress(self._total, self._total, "")
        loss = self._losses[self.best]
        return FloatingPointLayers(tuple(sorted(self.best)), loss, loss <= self._max_loss, len(self._losses))
