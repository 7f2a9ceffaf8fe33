"""Maps the layers of a network to operations of an engine's graph.

Optimisers rename, fuse and reorder operations, so names do not identify layers. The order of the *operators*,
the convolutions and linear layers, is preserved: a network is a chain of layers, each of which reads the
previous one, so in every valid order of the graph all operators of a layer come before those of the next.

A module that is not such a chain is quantised by single operators, in the order of the engine's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ofa.architecture.layer import LayerSpec
from ofa.common.errors import UserError


@dataclass(frozen=True)
class GraphNode:
    """One operation of a graph.

    Attributes:
        name: unique in the graph.
        operator: whether it is a convolution or linear layer with constant weights.
        sources: positions of the operations whose outputs it reads; all of them come before it.
    """

    name: str
    operator: bool
    sources: tuple[int, ...]


@dataclass(frozen=True)
class QuantisationUnits:
    """The parts of a network that are quantised or kept in floating point as units.

    Attributes:
        title: type of a unit: "layer" or "operator".
        positions: positions of the units that have weights.
        operators: takes positions of units, returns those of their operators; see `operators_of`.
    """

    title: str
    positions: tuple[int, ...]
    operators: Callable[[Collection[int]], Collection[int]]


def layer_units(specs: Sequence[LayerSpec]) -> QuantisationUnits:
    """Return the layers of a network that is a chain of them."""
    return QuantisationUnits("layer", layers_with_operators(specs), partial(operators_of, specs))


def operator_units(num_operators: int) -> QuantisationUnits:
    """Return the operators of any network, each as one unit."""
    return QuantisationUnits("operator", tuple(range(num_operators)), frozenset)


def count_operators(program: ExportedProgram) -> int:
    """Return the number of convolutions and linear layers of a graph, including products with constants."""
    return sum(_is_operator(node, program) for node in program.graph.nodes)


def _is_operator(node: Node, program: ExportedProgram) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    aten, packet = torch.ops.aten, node.target.overloadpacket
    if packet in (aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution, aten.linear):
        return True
    signature = program.graph_signature
    constants = {*signature.inputs_to_parameters, *signature.inputs_to_buffers}
    weight_index = {aten.matmul: 1, aten.mm: 1, aten.addmm: 2}.get(packet)
    return weight_index is not None and str(node.args[weight_index]) in constants


def layers_with_operators(specs: Sequence[LayerSpec]) -> tuple[int, ...]:
    """Return the positions of the layers with weights, which can be quantised or kept in floating point."""
    return tuple(position for position, spec in enumerate(specs) if spec.operators)


def operators_of(specs: Sequence[LayerSpec], layers: Collection[int]) -> frozenset[int]:
    """Return the positions of the operators in `layers`, among all operators in the order they run.

    Args:
        specs: the layers of the network.
        layers: positions in `specs`.

    Raises:
        UserError: naming every unknown position, and every layer without weights.
    """
    problems = []
    for layer in sorted(layers):
        if not 0 <= layer < len(specs):
            problems.append(f"Unknown layer {layer}; the network has layers 0 to {len(specs) - 1}.")
        elif not specs[layer].operators:
            problems.append(f"Layer {layer} ({specs[layer].key}) has no weights; nothing to keep.")
    if problems:
        raise UserError("\n".join(problems))
    operator_positions: set[int] = set()
    start = 0
    for position, spec in enumerate(specs):
        end = start + len(spec.operators)
        if position in layers:
            operator_positions.update(range(start, end))
        start = end
    return frozenset(operator_positions)


def kept_names(nodes: Sequence[GraphNode], kept_operators: Collection[int]) -> list[str]:
    """Return the names of the operations that stay in floating point.

    These are `kept_operators` and the operations after them up to the next operator: activations, additions
    and the scaling of squeeze-excite. Such an operation belongs to the last operator that it depends on.

    Args:
        nodes: operations in a valid order of execution.
        kept_operators: positions among the operators.

    Raises:
        UserError: if the graph lacks one of these operators.
    """
    owners: list[int] = []
    count = 0
    for node in nodes:
        if node.operator:
            owners.append(count)
            count += 1
        else:
            owners.append(max((owners[source] for source in node.sources), default=-1))
    unknown_positions = sorted(position for position in kept_operators if not 0 <= position < count)
    if unknown_positions:
        raise UserError(
            f"Operators {', '.join(map(str, unknown_positions))} have to stay in floating point, but the "
            f"graph has {count} convolutions and linear layers (0 to {count - 1})."
        )
    return [node.name for node, owner in zip(nodes, owners, strict=True) if owner in kept_operators]
