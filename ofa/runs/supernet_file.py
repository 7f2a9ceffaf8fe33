"""The weights of a trained supernet: written atomically, checked on load, with a JSON twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ofa.architecture.cost import network_cost
from ofa.architecture.lowering import lower
from ofa.common.errors import UserError
from ofa.common.mismatches import checked_state
from ofa.common.tensors import file_hash, load_tensors, save_with_twin
from ofa.graph.space import GraphSpace, ImageSpace
from ofa.graph.supernet import GraphSupernet
from ofa.graph.supernet_file import graph_content, graph_supernet
from ofa.runs.supernet_info import SUPERNET_SCHEMA, SupernetInfo, read_supernet_info
from ofa.space.space import check_fingerprint
from ofa.supernet.supernet import Supernet

AnySupernet: TypeAlias = Supernet | GraphSupernet


def save_supernet(path: Path, supernet: AnySupernet, provenance: Mapping[str, Any]) -> None:
    """Write `path` (weights) and its JSON twin (space, fingerprint, hash of the weights, provenance).

    Raises:
        UserError: if a file cannot be written, or the graph of a user's model cannot be saved.
    """
    space = supernet.space
    tensors: dict[str, Any] = {"state": supernet.state_dict()}
    more: dict[str, Any] = {}
    if isinstance(supernet, GraphSupernet):
        assert supernet.source is not None
        tensors, graph = graph_content(supernet)
        more = {"network": dataclasses.asdict(supernet.source), **graph}

    def twin(digest: str) -> dict[str, Any]:
        return {
            "schema_version": SUPERNET_SCHEMA,
            "space": space.to_dict(),
            "fingerprint": space.fingerprint,
            "sha256": digest,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "provenance": {**provenance, "torch": torch.__version__},
            **more,
        }

    save_with_twin(path, {**tensors, "fingerprint": space.fingerprint}, twin)


def load_supernet(
    path: Path, space: ImageSpace | None = None, dropout: float | None = None
) -> tuple[AnySupernet, SupernetInfo]:
    """Load a trained supernet, in eval mode, and what stands beside it; nothing is traced again.

    Args:
        path: weights written by `save_supernet`.
        space: the space it must have; None accepts the one beside the weights.
        dropout: dropout probability before the classifier in further training; None: as trained before. That
            of a user's model is its own.

    Raises:
        UserError: if a file is missing or damaged, or belongs to another space; or if the function that
            makes a user's model fails, or may not be called (see `NetworkSource`).
    """
    info = read_supernet_info(path)
    check_fingerprint(info.fingerprint, space or info.space, f"supernet {path}")
    values = load_tensors(path, "supernet", stage="train")
    check_fingerprint(values.get("fingerprint"), info.space, f"supernet {path}")
    if file_hash(path) != info.sha256:
        raise UserError(
            f"{path} is not the file that {path.with_suffix('.json').name} describes (SHA-256 differs). "
            "Use the pair that was saved together, or finish the training again.",
            stage="train",
        )
    if isinstance(info.space, GraphSpace):
        assert info.network is not None
        graph = graph_supernet(info.network.network(), info.space, info.graph, values, path)
        graph.source = info.network
        if graph.runs_graph:
            for config in (info.space.smallest, info.space.largest):
                selected = partial(graph, config=config)
                info.network.check_runs(selected, f"the supernet {path}", config.resolution)
        return graph, info
    # Otherwise a space that was changed could ask for any amount of memory.
    if 4 * network_cost(lower(info.space, info.space.largest)).parameters > path.stat().st_size:
        raise UserError(f"The supernet {path} is too small for the weights of its space.", stage="train")
    supernet = Supernet(info.space, info.dropout if dropout is None else dropout)
    state = checked_state(values.get("state"), supernet.state_dict(), f"The supernet {path}", "train")
    supernet.load_state_dict(state, assign=True)
    return supernet.eval(), info
