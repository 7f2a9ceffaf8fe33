"""A sub-network of a user's model apart from its supernet: made again from its config, with any weights."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.graph.graph_values import check_digest, graph_from_values, graph_to_values, with_digest
from ofa.graph.space import GraphSpace
from ofa.graph.split_layers import split_structure
from ofa.graph.supernet import GraphSupernet
from ofa.graph.supernet_file import check_shapes
from ofa.space.plain import GeneConfig


def subnet_graph(supernet: GraphSupernet, config: GeneConfig) -> dict[str, Any] | None:
    """Return the graph of the whole network as plain JSON values, its constant tensors included.

    None for a sub-network of the user's own class, which needs none.

    Raises:
        UserError: if the graph cannot be saved.
    """
    if supernet.keeps_class(config):
        return None
    assert supernet.graph is not None
    constants = [_constant_values(tensor) for tensor in supernet.graph.constants]
    return with_digest({**graph_to_values(supernet.graph), "constants": constants})


def make_subnet(
    model: nn.Module, space: GraphSpace, config: GeneConfig, graph: Mapping[str, Any] | None
) -> nn.Module:
    """Return a sub-network of a user's model, in eval mode, with the weights of `model` cut to its sizes.

    Args:
        model: the whole network; it is unchanged.
        space: its space.
        config: a network of the space.
        graph: what `subnet_graph` returned.

    Raises:
        UserError: if the values are damaged, or do not fit each other.
    """
    if graph is None and not space.keeps_class(config):
        raise UserError(f"The graph of {space.name}, which computes this sub-network, is missing.")
    rewritten = None
    if graph is not None:
        check_digest(graph)
        constants = graph.get("constants")
        if not isinstance(constants, list):
            raise UserError(f"The graph of {space.name} lacks its constants.")
        rewritten = graph_from_values(graph, [_constant(values) for values in constants])
    model = split_structure(model, space.structure.splits)
    check_shapes(space, model, f"The space {space.name}")
    return GraphSupernet(model, space, rewritten).eval().extract(config)


def _constant_values(tensor: Tensor) -> dict[str, Any]:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "base64": base64.b64encode(content).decode(),
    }


def _constant(values: object) -> Tensor:
    try:
        assert isinstance(values, Mapping)
        dtype = getattr(torch, values["dtype"])
        content = bytearray(base64.b64decode(values["base64"], validate=True))
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{values['dtype']} is no type of numbers")
        flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return flat.reshape(values["shape"])
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"A constant of the graph cannot be read: {error}") from error
