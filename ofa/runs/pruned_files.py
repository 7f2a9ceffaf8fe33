"""The files of a pruned network: its weights, and a JSON file that says what it is and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ofa.common.files import json_writer, sha256, write_atomic, write_together
from ofa.export.weights import WEIGHTS_FILE, weights_content
from ofa.graph.supernet import GraphSupernet
from ofa.graph.supernet_file import save_graph_supernet
from ofa.runs.pruned import PrunedNetwork

PRUNED_SCHEMA = 1
_SUPERNET_FILE = "pruned_supernet.pt"


def save_network(network: nn.Module, path: Path) -> None:
    """Write the tensors of a network as safetensors, atomically."""
    content = weights_content(network)[WEIGHTS_FILE]
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def save_pruned(
    folder: Path, pruned: PrunedNetwork, supernet: GraphSupernet, facts: Mapping[str, Any]
) -> Path:
    """Write `pruned.safetensors`, `pruned.json` and the supernet that the network is extracted from.

    Args:
        folder: folder of the files.
        pruned: the network.
        supernet: its supernet, which holds its tensors.
        facts: further entries of the JSON file.

    Returns:
        The path of the weights.

    Raises:
        UserError: if a file cannot be written.
    """
    save_graph_supernet(folder / _SUPERNET_FILE, supernet)
    path, content = folder / "pruned.safetensors", weights_content(pruned.network)[WEIGHTS_FILE]
    values = {
        "schema_version": PRUNED_SCHEMA,
        **facts,
        **pruned.to_dict(supernet.space),
        "is_own_class": supernet.keeps_class(pruned.config),
        "sha256": sha256(content),
        "how_to_load": [
            "from ofa.graph import load_graph_supernet",
            f"supernet = load_graph_supernet(Path('{_SUPERNET_FILE}'), MODEL)",
            "network = supernet.extract(supernet.space.read(values['config']))",
            "# MODEL: the network that was pruned, with any weights; values: this file.",
        ],
    }
    write_together(
        {path: lambda temporary: temporary.write_bytes(content), folder / "pruned.json": json_writer(values)}
    )
    return path
