"""`find_chains`: residual blocks that may be left out, and the chains that they form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Graph, Node

from ofa.graph.labels.call import operator_name, sizes_of


@dataclass(frozen=True)
class Block:
    """A module whose output may be replaced by its input: it adds its input to what it computes.

    Attributes:
        name: name of the module.
        source: the node that it reads.
        result: its output.
        nodes: all of its operators.
    """

    name: str
    source: Node
    result: Node
    nodes: tuple[Node, ...]


def find_chains(graph: Graph) -> list[tuple[Block, ...]]:
    """Return chains of consecutive blocks, each of which reads the output of the one before."""
    blocks = _innermost(list(_blocks(graph)))
    by_source = {block.source: block for block in blocks}
    followers = {by_source[block.result].name for block in blocks if block.result in by_source}
    chains = []
    for block in blocks:
        if block.name in followers:
            continue
        chain = [block]
        while chain[-1].result in by_source:
            chain.append(by_source[chain[-1].result])
        chains.append(tuple(chain))
    return chains


def module_paths(node: Node) -> list[str]:
    """Return the names of the modules in which a node stands, from the outermost on."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]


def _blocks(graph: Graph) -> Iterator[Block]:
    nodes_of: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            for path in module_paths(node):
                nodes_of.setdefault(path, []).append(node)
    for path, nodes in nodes_of.items():
        ends = _ends(nodes)
        if ends is not None and _adds_input(nodes, ends[0]):
            yield Block(path, *ends, tuple(nodes))


def _ends(nodes: Sequence[Node]) -> tuple[Node, Node] | None:
    """Return the only tensor that goes in and the only one that comes out, if they have equal shapes."""
    inside = set(nodes)
    sources = {s for node in nodes for s in node.all_input_nodes if s not in inside and _is_computed(s)}
    results = {node for node in nodes if any(user not in inside for user in node.users)}
    if len(sources) != 1 or len(results) != 1:
        return None
    (source,), (result,) = sources, results
    return (source, result) if sizes_of(source) == sizes_of(result) else None


def _is_computed(node: Node) -> bool:
    """Return whether a node is a tensor that the graph computes, rather than a parameter or a size."""
    if not isinstance(node.meta.get("val"), Tensor):
        return False
    return node.op == "call_function" and operator_name(node) != "sym_size"


def _adds_input(nodes: Sequence[Node], source: Node) -> bool:
    return any(operator_name(node) == "add" and source in node.all_input_nodes for node in nodes)


def _innermost(blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks that hold no other block, in the order they run."""
    names = [block.name for block in blocks]
    return [b for b in blocks if not any(name.startswith(f"{b.name}.") for name in names)]
