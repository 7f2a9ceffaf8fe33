"""`CompressionPlan`: which convolutions change into what, for the least harm within a limit of a cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofa.common.display import aligned_lines
from ofa.common.errors import UserError
from ofa.compression.candidates import Candidate
from ofa.compression.changes import LayerChange
from ofa.compression.knapsack import choose_least_harm

UNITS: Mapping[str, tuple[float, str]] = {"latency_ms": (1.0, "ms"), "macs": (1e6, "M MACs")}
"""Divisor and unit of the costs that a plan can have a limit of."""


@dataclass(frozen=True)
class LayerOptions:
    """What a convolution can become: options of a cost and a harm, the unchanged one first.

    Attributes:
        candidate: the convolution.
        changes: the options; None for the unchanged convolution.
        costs: cost of each.
        harms: harm of each; 0 for the unchanged one.
    """

    candidate: Candidate
    changes: tuple[LayerChange | None, ...]
    costs: tuple[float, ...]
    harms: tuple[float, ...]


@dataclass(frozen=True)
class CompressionPlan:
    """A choice for every convolution that can be changed.

    Attributes:
        options: what each could become.
        positions: the option that each has.
        cost: name of the cost; a key of `UNITS`.
        total: cost of the whole network unchanged.
    """

    options: tuple[LayerOptions, ...]
    positions: tuple[int, ...]
    cost: str
    total: float

    @property
    def changes(self) -> tuple[LayerChange, ...]:
        """The changes, in the order of the network."""
        chosen = (layer.changes[position] for layer, position in self._chosen())
        return tuple(change for change in chosen if change is not None)

    @property
    def predicted(self) -> float:
        """Cost of the whole network with the changes."""
        return self.total + sum(layer.costs[position] - layer.costs[0] for layer, position in self._chosen())

    @property
    def smallest(self) -> float:
        """Smallest cost of the whole network that any choice has, as predicted."""
        return self.total + sum(min(layer.costs) - layer.costs[0] for layer in self.options)

    @property
    def total_harm(self) -> float:
        """Sum of the harms."""
        return sum(layer.harms[position] for layer, position in self._chosen())

    @property
    def lines(self) -> list[str]:
        """A table for the user: each layer, its new form, its cost before and after, its harm."""
        divisor, unit = UNITS[self.cost]
        rows = [("layer", "becomes", f"{unit} before", "after", "harm")]
        for layer, position in self._chosen():
            change = layer.changes[position]
            before, after = (f"{layer.costs[index] / divisor:.3g}" for index in (0, position))
            harm = "" if change is None else f"{layer.harms[position]:.2g}"
            form = "unchanged" if change is None else change.key
            rows.append((layer.candidate.layer, form, before, after, harm))
        return aligned_lines(rows, num_left=2)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "cost": self.cost,
            "before": self.total,
            "predicted": self.predicted,
            "harm": self.total_harm,
            "layers": [
                {
                    "layer": layer.candidate.layer,
                    "shape": layer.candidate.shape,
                    "chosen": _option(layer, position),
                    "options": [_option(layer, index) for index in range(len(layer.changes))],
                }
                for layer, position in self._chosen()
            ],
        }

    def _chosen(self) -> list[tuple[LayerOptions, int]]:
        return list(zip(self.options, self.positions, strict=True))


def _option(layer: LayerOptions, index: int) -> dict[str, Any]:
    change = layer.changes[index]
    return {
        "form": None if change is None else change.form,
        "ranks": [] if change is None else list(change.ranks),
        "cost": layer.costs[index],
        "harm": layer.harms[index],
    }


def useful_changes(candidate: Candidate, costs: Sequence[float]) -> tuple[LayerChange, ...]:
    """Return the changes of a candidate that cost less than the unchanged convolution.

    Args:
        candidate: the convolution.
        costs: cost of the unchanged convolution, and of each of its changes.
    """
    pairs = zip(candidate.changes, costs[1:], strict=True)
    return tuple(change for change, cost in pairs if cost < costs[0])


def layer_options(
    candidate: Candidate, costs: Sequence[float], harms: Mapping[LayerChange, float]
) -> LayerOptions:
    """Return what a candidate can become: itself, or a change that costs less.

    Args:
        candidate: the convolution.
        costs: cost of the unchanged convolution, and of each of its changes.
        harms: harm of these changes; of others it is not needed.
    """
    changes = useful_changes(candidate, costs)
    by_change = dict(zip(candidate.changes, costs[1:], strict=True))
    return LayerOptions(
        candidate,
        (None, *changes),
        (costs[0], *(by_change[change] for change in changes)),
        (0.0, *(harms[change] for change in changes)),
    )


def make_plan(options: Sequence[LayerOptions], *, cost: str, total: float, limit: float) -> CompressionPlan:
    """Return the plan with the least sum of harms whose predicted cost keeps the limit.

    Args:
        options: what each convolution can become.
        cost: name of the cost; a key of `UNITS`.
        total: cost of the whole network unchanged.
        limit: largest cost of the whole network.

    Raises:
        UserError: if the limit cannot be kept, naming the smallest cost that can be reached.
    """
    fixed = total - sum(layer.costs[0] for layer in options)
    positions = choose_least_harm(
        [layer.costs for layer in options], [layer.harms for layer in options], limit - fixed
    )
    if positions is None:
        divisor, unit = UNITS[cost]
        smallest = fixed + sum(min(layer.costs) for layer in options)
        raise UserError(
            f"A limit of {limit / divisor:.4g} {unit} cannot be reached: with the smallest form of each of "
            f"{len(options)} convolutions the network takes {smallest / divisor:.4g} {unit}, unchanged "
            f"{total / divisor:.4g} {unit}."
        )
    return CompressionPlan(tuple(options), positions, cost, total)
