"""The files of a pruned network: its weights, a JSON file that describes it, and a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ofa.common.expectation import measured_value
from ofa.common.files import json_writer, sha256, write_atomic, write_together
from ofa.data.settings import DataInfo
from ofa.export.card import subnet_card
from ofa.export.weights import WEIGHTS_FILE, weights_content
from ofa.export.write import ExportReport, export_bundle
from ofa.graph.subnet import subnet_graph
from ofa.graph.supernet import GraphSupernet
from ofa.runs.directory import RunDirectory
from ofa.runs.pruned import PrunedNetwork

PRUNED_SCHEMA = 1


def save_network(network: nn.Module, path: Path) -> None:
    """Write the tensors of a network as safetensors, atomically."""
    content = weights_content(network)[WEIGHTS_FILE]
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def save_pruned(path: Path, pruned: PrunedNetwork, supernet: GraphSupernet, facts: Mapping[str, Any]) -> Path:
    """Write the weights of a pruned network, and a JSON file beside them.

    Args:
        path: path without an ending; its name is that of the bundle.
        pruned: the network.
        supernet: the supernet that it is a part of.
        facts: further entries of the JSON file.

    Returns:
        The path of the weights.

    Raises:
        UserError: if a file cannot be written.
    """
    name, content = path.name, weights_content(pruned.network)[WEIGHTS_FILE]
    path = path.with_name(f"{name}.safetensors")
    values = {
        "schema_version": PRUNED_SCHEMA,
        **facts,
        **pruned.to_dict(supernet.space),
        "is_own_class": supernet.keeps_class(pruned.config),
        "sha256": sha256(content),
        "how_to_load": [
            "from ofa.export.bundle import load_bundle",
            f'network = load_bundle("bundles/{name}").network',
        ],
    }
    weights = {path: lambda temporary: temporary.write_bytes(content)}
    write_together({**weights, path.with_suffix(".json"): json_writer(values)})
    return path


def export_pruned(
    directory: RunDirectory,
    name: str,
    pruned: PrunedNetwork,
    supernet: GraphSupernet,
    info: DataInfo,
    formats: Sequence[str],
    provenance: Mapping[str, Any],
) -> ExportReport:
    """Write the bundle of a pruned network.

    Args:
        directory: folder of the run.
        name: name of the bundle.
        pruned: the network.
        supernet: the supernet that it is a part of.
        info: facts of the images.
        formats: files to write beside the weights; see `ofa.export.formats`.
        provenance: plain JSON values: how it was made.

    Raises:
        UserError: if a format is unknown or its packages are missing, or a file cannot be written.
    """
    card = subnet_card(
        supernet.space,
        pruned.config,
        info,
        network=supernet.source,
        graph=subnet_graph(supernet, pruned.config),
        expected_metric=measured_value(
            pruned.metric, pruned.after, "validation", pruned.num_images[0], info.name
        ),
        provenance={"run": directory.name, **provenance},
    )
    with directory.writing_bundle(name):
        return export_bundle(pruned.network.cpu(), card, directory.new_bundle(name), formats)
