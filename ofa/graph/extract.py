"""Extraction: a sub-network of a user's model as a network of its own class, or as a graph module."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ofa.graph.elastic_modules import set_sizes
from ofa.graph.execution import size_of
from ofa.graph.graph_values import num_axes
from ofa.graph.rewrite import RewrittenGraph
from ofa.graph.selection import Selection
from ofa.modules.pass_through import PassThrough

# By the number of axes of what they normalise.
_BATCH_NORMS: dict[int, type[nn.modules.batchnorm._BatchNorm]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}


def own_class(
    template: nn.Module, tensors: Mapping[str, Tensor], selection: Selection, elastic_weights: frozenset[str]
) -> nn.Module:
    """Return a network of the user's class with the tensors of a sub-network.

    Args:
        template: the user's network as it was given, its tensors on the meta device.
        tensors: all parameters and buffers of the sub-network by name.
        selection: the sub-network.
        elastic_weights: weights with an elastic kernel.
    """
    network = copy.deepcopy(template)
    copies: dict[int, Tensor] = {}
    for name in selection.skipped:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, PassThrough())
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        weight = getattr(module, "weight", None)
        full_shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
        for own in (module._parameters, module._buffers):
            for key, old in own.items():
                if old is not None:
                    own[key] = _copied(tensors[prefix + key], old, copies)
        if full_shape:
            set_sizes(module, full_shape, f"{prefix}weight" in elastic_weights)
    return network


def _copied(tensor: Tensor, old: Tensor, copies: dict[int, Tensor]) -> Any:
    """Return a copy of a tensor, one for all of its names, as a parameter where `old` is one."""
    if id(tensor) not in copies:
        value = tensor.detach().clone(memory_format=torch.contiguous_format)
        is_parameter = isinstance(old, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(value, old.requires_grad) if is_parameter else value
    return copies[id(tensor)]


def graph_module(
    rewritten: RewrittenGraph, template: nn.Module, tensors: Mapping[str, Tensor], selection: Selection
) -> fx.GraphModule:
    """Return a graph module with the tensors of a sub-network under the user's names.

    Args:
        rewritten: graph of the user's network.
        template: the user's network, which says what is a parameter.
        tensors: all parameters and buffers of the sub-network by name.
        selection: the sub-network.
    """
    root = nn.Module()
    for name, module in rewritten.modules.items():
        root.add_module(name, module)
    parameters, saved = dict(template.named_parameters(remove_duplicate=False)), set(template.state_dict())
    skipped = tuple(f"{name}." for name in selection.skipped)
    copies: dict[int, Tensor] = {}
    own = {
        name: _copied(tensor, parameters.get(name, tensor.detach()), copies)
        for name, tensor in tensors.items()
        if not (skipped and name.startswith(skipped))
    }
    constants = {
        f"constant_{index}": constant.detach().clone() for index, constant in enumerate(rewritten.constants)
    }
    graph = _fixed_graph(rewritten, selection)
    for path, norm in _with_batch_norms(graph, own).items():
        _set_module(root, path, norm)
    for name, tensor in (own | constants).items():
        _set_tensor(root, name, tensor, name in saved)
    network = fx.GraphModule(root, graph)
    # A graph module takes over only what its graph reads.
    for name, tensor in own.items():
        _set_tensor(network, name, tensor, name in saved)
    return network.train(template.training)


def _with_batch_norms(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Let batch norms of the graph be modules, in place, so that they can be recalibrated; return these."""
    norms: dict[str, nn.Module] = {}
    for node in list(graph.nodes):
        mean = node.kwargs.get("running_mean")
        if node.target is not torch.ops.aten.batch_norm.default or not isinstance(mean, fx.Node):
            continue
        training = node.kwargs["training"]
        path = str(mean.target).removesuffix(".running_mean")
        if not isinstance(training, fx.Node) or path == str(mean.target):
            continue
        kind = _BATCH_NORMS.get(num_axes(node) or 0)
        if kind is None:
            continue
        has_scale = f"{path}.weight" in tensors
        norms[path] = kind(
            len(tensors[f"{path}.running_mean"]), node.kwargs["eps"], node.kwargs["momentum"], has_scale,
            device="meta",
        )  # fmt: skip
        with graph.inserting_before(node):
            call = graph.call_module(path, (node.args[0],))
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    return norms


def _set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Add a module under a name with dots."""
    parent, _, key = path.rpartition(".")
    _parent_of(root, path).add_module(key or parent, module)


def _parent_of(root: nn.Module, name: str) -> nn.Module:
    """Return the module that holds a name with dots, made where there is none."""
    module = root
    for parent in name.split(".")[:-1]:
        if not hasattr(module, parent):
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    return module


def _set_tensor(root: nn.Module, name: str, tensor: Tensor, is_saved: bool) -> None:
    """Register a tensor under a name with dots."""
    module, key = _parent_of(root, name), name.rpartition(".")[2]
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(key, tensor)
    else:
        module.register_buffer(key, tensor, persistent=is_saved)


def _fixed_graph(rewritten: RewrittenGraph, selection: Selection) -> fx.Graph:
    """Return the graph of a sub-network with its sizes, and its tensors as attributes."""
    graph = fx.Graph()
    blocks = [rewritten.blocks[name] for name in selection.skipped]
    left_out = {node for block in blocks for node in block.nodes}
    inputs_of = {block.result: block.source for block in blocks}
    values: dict[fx.Node, Any] = {}

    def value_of(node: fx.Node) -> Any:
        while node in inputs_of:
            node = inputs_of[node]
        return values[node]

    placeholders = [node for node in rewritten.graph.nodes if node.op == "placeholder"]
    names = [*rewritten.tensors, *(f"constant_{index}" for index in range(len(rewritten.constants)))]
    inputs, (sizes, training) = placeholders[len(names) : -2], placeholders[-2:]
    leaves = _input_leaves(graph, rewritten.in_spec, [node.name for node in inputs])
    values |= dict(zip(inputs, leaves, strict=True))
    for name, node in zip(names, placeholders, strict=False):
        if any(user not in left_out for user in node.users):
            values[node] = graph.get_attr(name)
    if training.users:
        values[training] = graph.get_attr("training")
    for node in rewritten.graph.nodes:
        if node.op == "placeholder" or node in left_out:
            continue
        if sizes in node.all_input_nodes:
            index = node.args[1]
            assert isinstance(index, int)
            values[node] = size_of(rewritten.quantities[index], selection)
        elif node.op == "output":
            outputs = [value_of(item) if isinstance(item, fx.Node) else item for item in node.args[0]]
            graph.output(pytree.tree_unflatten(outputs, rewritten.out_spec))
        else:
            values[node] = graph.node_copy(node, value_of)
    return graph


def _input_leaves(graph: fx.Graph, spec: pytree.TreeSpec, names: list[str]) -> list[fx.Node]:
    """Return the nodes of all leaves of the inputs; each argument of the user's forward is a placeholder."""
    args_spec, kwargs_spec = spec.children()
    leaves: list[fx.Node] = []
    arguments = [*((None, child) for child in args_spec.children())]
    arguments += zip(kwargs_spec.context or (), kwargs_spec.children(), strict=True)
    nodes: list[tuple[fx.Node, pytree.TreeSpec]] = []
    position = 0
    for key, child in arguments:
        name = names[position] if child.is_leaf() else f"argument_{len(nodes)}"
        nodes.append((graph.placeholder(str(key or name)), child))
        position += child.num_leaves
    for node, child in nodes:
        leaves += _items(graph, node, child)
    return leaves


def _items(graph: fx.Graph, node: fx.Node, spec: pytree.TreeSpec) -> list[fx.Node]:
    if spec.is_leaf():
        return [node]
    children = spec.children()
    keys = spec.context if issubclass(spec.type, dict) else range(len(children))
    leaves: list[fx.Node] = []
    for key, child in zip(keys, children, strict=True):
        leaves += _items(graph, graph.call_function(operator.getitem, (node, key)), child)
    return leaves
