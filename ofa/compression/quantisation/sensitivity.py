"""Which layers stay in floating point so that a quantised network loses little accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent

LayerSetMetric = Callable[[frozenset[int]], float]
"""Takes the layers that stay in floating point, returns what is lost when all others are quantised."""

MAX_EVALUATIONS = 24


@dataclass(frozen=True)
class FloatingPointLayers:
    """What a choice of layers came to.

    Attributes:
        layers: positions of the layers that stay in floating point, ascending.
        loss: points of top-1 accuracy lost with them.
        reached: whether the loss is inside what was allowed.
        evaluations: how many quantised networks were evaluated.
    """

    layers: tuple[int, ...]
    loss: float
    reached: bool
    evaluations: int


def rank_layers(
    layers: Sequence[int], output_error: LayerSetMetric, progress: ProgressCallback = silent
) -> tuple[int, ...]:
    """Return the layers by their sensitivity, the most sensitive first.

    It is the error of the output when that layer is quantised and all others are not, measured on calibration
    images; no labels are needed.

    Args:
        layers: positions of all layers that can be quantised.
        output_error: see `LayerSetMetric`.
        progress: called per layer.
    """
    sensitivity: dict[int, float] = {}
    for done, layer in enumerate(layers):
        progress(done, len(layers), f"sensitivity of layer {layer}")
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

    First none, then the 1, 2, 4, ... most sensitive are kept until that is enough. The smallest number that
    is enough is found between the last two by bisection; then each kept layer, the least sensitive first, is
    quantised after all if the loss allows it.

    Args:
        ranking: returns layers by sensitivity, the most sensitive first; called only if some must be kept.
        loss: points of top-1 accuracy lost on validation images; see `LayerSetMetric`.
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
    if search.enough(()):
        return search.result()
    ranked = tuple(ranking())[:max_kept]
    failed, passed = 0, None
    for count in _doubling(len(ranked)):
        if search.enough(ranked[:count]):
            passed = count
            break
        failed = count
    if passed is not None:
        while passed - failed > 1 and search.left:
            middle = (failed + passed) // 2
            failed, passed = (failed, middle) if search.enough(ranked[:middle]) else (middle, passed)
        for layer in reversed(ranked[: passed - 1]):
            search.enough([kept for kept in search.best if kept != layer])
    return search.result()


def _doubling(last: int) -> list[int]:
    """Return 1, 2, 4, ... below `last`, and `last`; nothing if it is 0."""
    powers = itertools.takewhile(lambda count: count < last, (2**power for power in itertools.count()))
    return [*powers, last] if last else []


class _Search:
    """Evaluates choices, as many as allowed, and remembers the best.

    The best is one of fewest layers that is enough, or, as long as none is, one of smallest loss.
    """

    def __init__(
        self, loss: LayerSetMetric, max_loss: float, max_evaluations: int, progress: ProgressCallback
    ) -> None:
        self._loss, self._max_loss, self._total, self._progress = loss, max_loss, max_evaluations, progress
        self._done: dict[frozenset[int], float] = {}
        self.best: frozenset[int] = frozenset()

    @property
    def left(self) -> bool:
        return len(self._done) < self._total

    def enough(self, layers: Collection[int]) -> bool:
        """Return whether keeping `layers` is enough; False where no evaluation is left."""
        kept = frozenset(layers)
        if kept not in self._done:
            if not self.left:
                return False
            self._progress(len(self._done), self._total, f"keeping {len(kept)} layers")
            self._done[kept] = self._loss(kept)
            self.best = min(self._done, key=self._merit)
        return self._done[kept] <= self._max_loss

    def _merit(self, kept: frozenset[int]) -> tuple[bool, float, float]:
        loss = self._done[kept]
        if loss <= self._max_loss:
            return False, len(kept), loss
        return True, loss, len(kept)

    def result(self) -> FloatingPointLayers:
        self._progress(self._total, self._total, "")
        loss = self._done[self.best]
        return FloatingPointLayers(tuple(sorted(self.best)), loss, loss <= self._max_loss, len(self._done))
