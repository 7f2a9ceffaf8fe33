"""`find_groups`: the units of a captured graph and the groups of units that a sub-network may leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from ofa.graph.forms import Form
from ofa.graph.labels.analysis import LabelledGraph
from ofa.graph.labels.call import Call, axis_index, operator_name
from ofa.graph.labels.store import Axis, Labels, LabelStore
from ofa.graph.structure import Group, Key, group_of

# How many operators may lie between a parameter and the layer that it is the weight of.
_MAX_STEPS = 24
# Fewer indices than this make an axis narrow.
_NARROW = 16
# The order of units that no layer makes.
_LAST = 1 << 30


@dataclass(frozen=True)
class Grouping:
    """The groups of a labelled graph.

    Attributes:
        labelled: the labelled graph.
        groups: groups in the order of their first use.
        group_indices: group of each component; -1 for what stays.
    """

    labelled: LabelledGraph
    groups: tuple[Group, ...]
    group_indices: NDArray[np.int64]

    def form(self, axis: Axis, size: int) -> Form:
        """Return the size of an axis with these labels as a form; `size` where it has none."""
        if axis is None:
            return Form(size)
        groups = self.group_indices[self.labelled.components.of_label[axis]]
        counts = Counter(groups[groups >= 0].tolist())
        terms = []
        for group, count in sorted(counts.items()):
            factor, rest = divmod(count, self.groups[group].num_units)
            assert rest == 0, "units of a group touch an axis in different ways"
            terms.append((group, factor))
        return Form(int((groups < 0).sum()), tuple(terms))

    def without(self, names: Collection[str]) -> Grouping:
        """Return the grouping in which the groups of these names stay whole."""
        kept = [index for index, group in enumerate(self.groups) if group.name not in names]
        new_index = np.full(len(self.groups) + 1, -1)
        new_index[kept] = np.arange(len(kept))
        return Grouping(self.labelled, tuple(self.groups[i] for i in kept), new_index[self.group_indices])


def find_groups(labelled: LabelledGraph) -> Grouping:
    """Return all groups of at least two units.

    Units belong to one group if they have equally many indices in each axis of each tensor of the graph.
    """
    components = labelled.components
    signatures = _signatures(labelled)
    is_unit = np.zeros(components.count, bool)
    for axes in labelled.parameters.values():
        for axis in axes:
            if axis is not None:
                is_unit[components.of_label[axis]] = True
    units = np.flatnonzero(is_unit & (components.reason_of < 0))
    _, inverse, counts = np.unique(signatures[units], return_inverse=True, return_counts=True)
    class_of = np.full(components.count, -1)
    class_of[units] = np.where(counts[inverse] > 1, inverse, -1)
    places = _places(labelled, class_of)
    names = _names(labelled, places)
    order = sorted(places, key=lambda index: names[index][0])
    group_indices = np.full(components.count, -1)
    groups = []
    seen: Counter[str] = Counter()
    read_axes = set(consumed_axes(labelled))
    weights = {(name, number) for name, _ in produced_axes(labelled) for number in (0, 1)}
    for index, old in enumerate(order):
        group_indices[class_of == old] = index
        _, name, key = names[old]
        seen[name] += 1
        unique_name = name if seen[name] == 1 else f"{name}:{seen[name]}"
        indices_of = _ordered(places[old], key)
        groups.append(group_of(unique_name, _unit_size(indices_of, weights), indices_of, read_axes))
    return Grouping(labelled, tuple(groups), group_indices)


def _unit_size(axes: Mapping[Key, Labels], weights: Collection[Key]) -> int:
    """Return the fewest indices that a unit has in the weight of a layer.

    An axis that is narrow as a whole, as that of a layer that makes one number for each head, counts only
    where there is no other.
    """
    layers = [indices for key, indices in axes.items() if key in weights] or list(axes.values())
    wide = [indices for indices in layers if indices.size >= _NARROW] or layers
    return min(int(indices.shape[1]) for indices in wide)


def _signatures(labelled: LabelledGraph) -> NDArray[np.uint64]:
    """Return a hash of each component: how often it has each axis of each tensor."""
    components = labelled.components
    rng = np.random.default_rng(0)
    signatures = np.zeros(components.count, np.uint64)
    for labels in _memberships(labelled):
        value = rng.integers(1, 1 << 63, dtype=np.uint64)
        np.add.at(signatures, components.of_label[labels], value)
    return signatures


def _memberships(labelled: LabelledGraph) -> Iterator[Labels]:
    for axes in labelled.parameters.values():
        yield from (axis for axis in axes if axis is not None)
    for node, axes in labelled.labels.items():
        yield from _flat(axes)
        if node.op == "call_function" and operator_name(node) in ("slice", "narrow"):
            yield from _parts_left_out(Call(node, labelled.labels, LabelStore()))


def _flat(axes: object) -> Iterator[Labels]:
    if isinstance(axes, np.ndarray):
        yield axes
    elif isinstance(axes, list):
        for axis in axes:
            yield from _flat(axis)


def _parts_left_out(call: Call) -> Iterator[Labels]:
    """Yield what lies before and after a slice."""
    axes = call.axes()
    dim = axis_index(call.number("dim"), len(axes))
    before, after = axes[dim], call.labels[call.node][dim]
    if before is not None and after is not None and len(before) != len(after):
        start = slice(call.arguments["start"], None).indices(len(before))[0]
        yield before[:start]
        yield before[start + len(after) :]


def _places(labelled: LabelledGraph, class_of: NDArray[np.int64]) -> dict[int, dict[Key, Labels]]:
    """Return, per class of units, the component of each index of its axes; -1 for other indices."""
    places: dict[int, dict[Key, Labels]] = {}
    for name, axes in labelled.parameters.items():
        for number, axis in enumerate(axes):
            if axis is None:
                continue
            units = labelled.components.of_label[axis]
            classes = class_of[units]
            for index in np.unique(classes[classes >= 0]).tolist():
                places.setdefault(index, {})[name, number] = np.where(classes == index, units, -1)
    return places


def _ordered(places: Mapping[Key, Labels], key: Key) -> dict[Key, Labels]:
    """Return the indices of each unit in each axis, units in the order of axis `key`."""
    main = places[key]
    units, first_positions = np.unique(main[main >= 0], return_index=True)
    units = units[np.argsort(first_positions)]
    rank = {int(unit): position for position, unit in enumerate(units)}
    axes = {}
    for axis_key, components in places.items():
        indices = np.flatnonzero(components >= 0)
        ranks = np.array([rank[int(unit)] for unit in components[indices]])
        axes[axis_key] = indices[np.argsort(ranks, kind="stable")].reshape(len(units), -1)
    return axes


def _names(
    labelled: LabelledGraph, places: Mapping[int, Mapping[Key, Labels]]
) -> dict[int, tuple[tuple[int, int], str, Key]]:
    """Return, per class of units, when and where it is made first: order and first index, name and axis."""
    classes_of_key: dict[Key, list[int]] = {}
    for index, axes in places.items():
        for key in axes:
            classes_of_key.setdefault(key, []).append(index)
    result: dict[int, tuple[tuple[int, int], str, Key]] = {}

    def name(index: int, order: int, key: Key) -> None:
        first_index = int(np.argmax(places[index][key] >= 0))
        result.setdefault(index, ((order, first_index), _layer_name(key[0]), key))

    for order, key in enumerate(produced_axes(labelled)):
        for index in classes_of_key.get(key, ()):
            name(index, order, key)
    for index, axes in places.items():
        name(index, _LAST, next(iter(axes)))
    return result


def _layer_name(parameter: str) -> str:
    """Return the name of the layer whose weight a parameter is, or the parameter's own."""
    return parameter.split(".parametrizations.weight.")[0].removesuffix(".weight")


def produced_axes(labelled: LabelledGraph) -> Iterator[Key]:
    """Yield the output axis of the weight of each layer and table, in the order they run."""
    for node, name in _layers(labelled, ("conv", "linear", "bilinear", "embedding")):
        operator = operator_name(node)
        is_transposed = "transpose" in operator and Call(node, {}, LabelStore()).arguments["groups"] == 1
        yield name, 1 if is_transposed or operator == "embedding" else 0


def _layers(labelled: LabelledGraph, operators: tuple[str, ...]) -> Iterator[tuple[Node, str]]:
    """Yield the layers of some kinds with the names of their weights."""
    names = {id(axes): name for name, axes in labelled.parameters.items()}
    for node in labelled.labels:
        if node.op == "call_function" and operator_name(node).startswith(operators):
            weight = _source_of_weight(Call(node, labelled.labels, LabelStore()).input("weight"))
            name = names.get(id(labelled.labels[weight]))
            if name is not None:
                yield node, name


def _source_of_weight(weight: Node) -> Node:
    """Return the parameter that a weight is, or is computed from by operators of one main operand."""
    for _ in range(_MAX_STEPS):
        if weight.op == "placeholder" or not weight.all_input_nodes:
            break
        weight = weight.all_input_nodes[0]
    return weight


def consumed_axes(labelled: LabelledGraph) -> Iterator[Key]:
    """Yield the axis of the weight of each convolution and linear layer along which it reads channels."""
    for node, name in _layers(labelled, ("conv", "linear")):
        yield name, 0 if "transpose" in operator_name(node) else 1


def operator_calls(labelled: LabelledGraph) -> Iterator[tuple[Node, Call]]:
    """Yield all operators with their arguments by name."""
    for node in labelled.labels:
        if node.op == "call_function" and hasattr(node.target, "_schema"):
            yield node, Call(node, labelled.labels, LabelStore())
