"""A supernet of a user's network as two files, and back; nothing is traced again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.mismatches import checked_state
from ofa.common.plain_values import checked_object
from ofa.common.reading import read_json
from ofa.common.tensors import file_hash, load_tensors, save_with_twin
from ofa.graph.graph_values import check_digest, graph_from_values, graph_to_values, with_digest
from ofa.graph.space import GraphSpace
from ofa.graph.split_layers import split_structure
from ofa.graph.state import state_of
from ofa.graph.supernet import GraphSupernet

GRAPH_SUPERNET_SCHEMA = 1


def graph_content(supernet: GraphSupernet) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a file of a supernet holds: its tensors, and its graph as plain JSON values.

    A graph that the supernet does not run is left out where it cannot be saved.

    Raises:
        UserError: if the graph cannot be saved, and the supernet runs it.
    """
    graph = _graph_values(supernet)
    constants = () if supernet.graph is None or graph is None else supernet.graph.constants
    tensors = {
        "state": supernet.state_dict(),
        "constants": {str(index): tensor for index, tensor in enumerate(constants)},
    }
    return tensors, {"graph": graph}


def graph_supernet(
    model: nn.Module, space: GraphSpace, graph: object, tensors: Mapping[str, Any], path: Path
) -> GraphSupernet:
    """Return the supernet of a file, in eval mode; see `graph_content`.

    Args:
        model: a network of the class that was converted, with any weights; it is unchanged.
        space: its space.
        graph: graph as plain JSON values; None for none.
        tensors: entries of the file of weights.
        path: file of weights, for errors.

    Raises:
        UserError: if the values are damaged, or `model` has other parameters.
    """
    constants = checked_object(tensors.get("constants"), f"constants of {path}")
    rewritten = None
    if graph is not None:
        values = checked_object(graph, f"graph of {path}")
        check_digest(values)
        rewritten = graph_from_values(values, [constants[str(index)] for index in range(len(constants))])
    if rewritten is None and space.structure.bound_groups:
        raise UserError(f"{path} has no graph, which computes the sub-networks of this space.")
    model = split_structure(model, space.structure.splits)
    check_shapes(space, model, path)
    supernet = GraphSupernet(model, space, rewritten)
    supernet.load_state_dict(
        checked_state(tensors.get("state"), supernet.state_dict(), f"The supernet {path}")
    )
    return supernet.eval()


def save_graph_supernet(path: Path, supernet: GraphSupernet) -> None:
    """Write the weights of a supernet and, in a JSON file beside them, its space and its graph.

    A graph that the supernet does not run is left out where it cannot be saved.

    Args:
        path: file of the weights.
        supernet: the supernet.

    Raises:
        UserError: if a file cannot be written, or the graph cannot be saved.
    """
    tensors, graph = graph_content(supernet)

    def twin(digest: str) -> dict[str, Any]:
        return {
            "schema_version": GRAPH_SUPERNET_SCHEMA,
            "class": type(supernet.template).__qualname__,
            "space": supernet.space.to_dict(),
            "fingerprint": supernet.space.fingerprint,
            **graph,
            "sha256": digest,
            "torch": torch.__version__,
        }

    save_with_twin(path, tensors, twin)


def _graph_values(supernet: GraphSupernet) -> dict[str, Any] | None:
    """Return the graph as plain values; None if there is none, or it cannot be saved and is not run."""
    try:
        return None if supernet.graph is None else with_digest(graph_to_values(supernet.graph))
    except UserError:
        if supernet.runs_graph:
            raise
        return None


def load_graph_supernet(path: Path, model: nn.Module) -> GraphSupernet:
    """Return the supernet that was saved, in eval mode.

    Args:
        path: file of the weights.
        model: a network of the class that was converted, with any weights; it is unchanged.

    Raises:
        UserError: if a file is missing or damaged, or `model` has other parameters.
    """
    twin_path = path.with_suffix(".json")
    twin = read_json(twin_path, "supernet of a user's model")
    if twin.get("schema_version") != GRAPH_SUPERNET_SCHEMA:
        raise UserError(f"{twin_path} has schema_version {twin.get('schema_version')!r}; expected 1.")
    if file_hash(path) != twin.get("sha256"):
        raise UserError(f"{path} is not the file that {twin_path.name} describes (SHA-256 differs).")
    space = build(GraphSpace, checked_object(twin.get("space"), f"space of {twin_path}"), str(twin_path))
    tensors = load_tensors(path, "supernet of a user's model")
    return graph_supernet(model, space, twin.get("graph"), tensors, path)


def check_shapes(space: GraphSpace, model: nn.Module, where: Path | str) -> None:
    """Raise the error for a space whose units are not in the tensors of `model`.

    Args:
        space: the space.
        model: the network.
        where: what holds the space, for the error.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state_of(model).items()}
    for group in space.structure.groups:
        for part in group.touched:
            shape = shapes.get(part.tensor, ())
            size = shape[part.axis] if 0 <= part.axis < len(shape) else 0
            are_inside = all(0 <= start < start + length <= size for start, length in part.runs)
            num_indices = sum(length for _, length in part.runs)
            if not are_inside or group.num_units < 1 or num_indices % group.num_units or not num_indices:
                raise UserError(
                    f"{where} has units in axis {part.axis} of {part.tensor}, which {type(model).__name__} "
                    "lacks; expected a network of the class and sizes that were converted."
                )
