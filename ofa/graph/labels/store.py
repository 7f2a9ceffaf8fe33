"""`LabelStore`: integer labels of axes, ties between them and the reasons why some must stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Labels = NDArray[np.int64]
Axis = Labels | None
"""Labels of one axis, one per index; None for an axis without channels: batch, space, tokens."""
Axes = list[Axis]
"""The axes of one tensor."""


@dataclass
class LabelStore:
    """Labels that operators tie together, and pins: labels that must stay, each with its reason."""

    count: int = 0
    ties: list[tuple[Labels, Labels]] = field(default_factory=list)
    pins: list[tuple[Labels, str]] = field(default_factory=list)

    def fresh(self, size: int) -> Labels:
        """Return `size` new labels."""
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def constant(self, size: int, reason: str) -> Labels:
        """Return `size` new labels that stay."""
        labels = self.fresh(size)
        self.pin(labels, reason)
        return labels

    def pin(self, axis: Axis, reason: str) -> None:
        """Let the labels of an axis stay, because of `reason`."""
        if axis is not None and axis.size:
            self.pins.append((axis.ravel(), reason))

    def tie(self, first: Axis, second: Axis, reason: str) -> Axis:
        """Tie two axes of equal size index by index and return the one with fewer distinct labels.

        An axis without labels cannot change: the other one stays, because of `reason`; the result has none.
        """
        if first is None or second is None:
            self.pin(second if first is None else first, reason)
            return None
        if len(first) != len(second):
            raise ValueError(f"axes of {len(first)} and {len(second)}")
        self.ties.append((first, second))
        return min(first, second, key=lambda labels: len(np.unique(labels)))

    def tie_along(self, labels: Labels, axis: int) -> Labels:
        """Tie all labels along one axis of an array of labels and return those at its index 0."""
        first = np.take(labels, [0], axis)
        self.ties.append((np.broadcast_to(first, labels.shape).ravel(), labels.ravel()))
        return first.squeeze(axis)

    def components(self) -> Components:
        """Return the connected components of the ties."""
        firsts = np.concatenate([first for first, _ in self.ties] or [np.zeros(0, np.int64)])
        seconds = np.concatenate([second for _, second in self.ties] or [np.zeros(0, np.int64)])
        ones = np.ones(len(firsts), np.int8)
        matrix = coo_matrix((ones, (firsts, seconds)), (self.count, self.count))
        num_components, of_label = connected_components(matrix, directed=False)
        return Components(int(num_components), of_label.astype(np.int64), tuple(self.pins))


@dataclass(frozen=True)
class Components:
    """Connected components of labels, the later units.

    Attributes:
        count: number of components.
        of_label: component of each label, shape (num_labels,).
        pins: labels that stay, with reasons.
    """

    count: int
    of_label: Labels
    pins: tuple[tuple[Labels, str], ...]

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Distinct reasons, in the order of the pins."""
        return tuple(dict.fromkeys(reason for _, reason in self.pins))

    @cached_property
    def reason_of(self) -> NDArray[np.int64]:
        """Per component the index of the first reason why it stays; -1 if there is none."""
        indices = {reason: index for index, reason in enumerate(self.reasons)}
        result = np.full(self.count, -1, np.int64)
        for labels, reason in reversed(self.pins):
            result[self.of_label[labels]] = indices[reason]
        return result
