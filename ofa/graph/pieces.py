"""`find_pieces`: the operators of a graph in the groups that inference engines fuse."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from ofa.graph.labels.call import operator_name
from ofa.graph.programs import GraphProgram, program_of
from ofa.graph.rewrite import RewrittenGraph
from ofa.graph.tracing import GraphTracer, Values, network_outputs, tensor_operators

_HEAVY = frozenset(
    {
        *("linear", "matmul", "bmm", "mm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention"),
        *("layer_norm", "group_norm", "instance_norm", "rms_norm", "softmax", "mean", "embedding"),
        *("pixel_shuffle", "pixel_unshuffle", "gru", "lstm"),
    }
)
_HEAVY_PARTS = ("conv", "pool", "upsample", "interpolate")
# Engines only change the description of a tensor.
_FREE = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand"),
        *("detach", "alias", "dropout", "feature_dropout", "contiguous", "getitem"),
    }
)


@dataclass(frozen=True)
class Piece:
    """Operators that are timed together: a heavy one with the light ones that follow it, or several such.

    Attributes:
        nodes: the operators, in order.
        block: the block that they are in, which may be left out; empty outside of blocks.
    """

    nodes: tuple[fx.Node, ...]
    block: str

    @property
    def is_free(self) -> bool:
        """Whether engines have nothing to compute for it."""
        return all(operator_name(node) in _FREE for node in self.nodes)

    def reads(self, other: Piece) -> bool:
        """Return whether it reads a result of another piece."""
        results = set(other.nodes)
        return any(source in results for node in self.nodes for source in node.all_input_nodes)

    def joined(self, other: Piece) -> Piece:
        """Return both pieces as one; `other` comes later."""
        return Piece((*self.nodes, *other.nodes), self.block)

    def program(self, tracer: GraphTracer, values: Values) -> GraphProgram:
        """Return the piece as a program in the sub-network of these values."""
        inside, ends = set(self.nodes), network_outputs(tracer.graph.graph)
        results = [
            node
            for node in self.nodes
            if node in ends or any(user not in inside and user in values for user in node.users)
        ]
        return program_of(self.nodes, values, results, (tracer.network_input, ends))


def find_pieces(graph: RewrittenGraph, values: Values) -> list[Piece]:
    """Return all operators in pieces: each operator reads results of its own piece and of earlier ones.

    A light operator joins the latest piece whose results it reads, unless one of them lies in a block that
    may be left out, and the other does not.

    Args:
        graph: the graph of a network.
        values: what its nodes are in a sub-network.
    """
    block_of = {node: name for name, block in graph.blocks.items() for node in block.nodes}
    nodes: list[list[fx.Node]] = []
    number: dict[fx.Node, int] = {}
    for node in tensor_operators(graph.graph, values):
        latest = max((number[source] for source in node.all_input_nodes if source in number), default=-1)
        block = block_of.get(node, "")
        is_alone = latest < 0 or _is_heavy(node) or block_of.get(nodes[latest][0], "") != block
        if is_alone and operator_name(node) != "getitem":  # Of several results, only single ones are tensors.
            latest = len(nodes)
            nodes.append([])
        nodes[latest].append(node)
        number[node] = latest
    return [Piece(tuple(members), block_of.get(members[0], "")) for members in nodes]


def _is_heavy(node: fx.Node) -> bool:
    name = operator_name(node)
    return name in _HEAVY or any(part in name for part in _HEAVY_PARTS)
