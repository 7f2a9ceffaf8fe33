"""The weights of a bundle: saving the tensors of a module by name, and loading them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ofa.architecture.lowering import lower
from ofa.common.damage import weights_damage
from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.common.files import sha256
from ofa.common.mismatches import checked_state
from ofa.common.reading import path_inside, read_bytes
from ofa.common.tensors import MAX_TENSOR_BYTES, read_safetensors
from ofa.compression.changes import apply_structure
from ofa.compression.sparse import check_sparse_layers, make_inputs_sparse
from ofa.compression.unused_units import with_shapes
from ofa.export.card import SubnetFacts
from ofa.export.record import ExportedFile
from ofa.graph.space import GraphSpace
from ofa.graph.subnet import make_subnet
from ofa.modules.static import StaticNetwork
from ofa.runtimes.base import Files

WEIGHTS_FILE = "weights.safetensors"


def weights_content(network: nn.Module) -> Files:
    """Return the file of weights; a tensor with several names is stored under each of them.

    Raises:
        UserError: naming the state entries that are not tensors.
    """
    state = network.state_dict()
    other_names = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if other_names:
        raise UserError(
            f"The state of the network has values that are not tensors: {', '.join(other_names)}. Keep them "
            "outside the state dict, for instance as arguments of the module."
        )
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    return {WEIGHTS_FILE: safetensors.torch.save(tensors)}


def load_subnet(folder: Path, weights: ExportedFile, subnet: SubnetFacts) -> nn.Module:
    """Return the sub-network with a bundle's weights, in eval mode.

    Raises:
        UserError: if the weights are missing, damaged or belong to another network; if a user's model cannot
            be made (see `NetworkSource`).
    """
    if isinstance(subnet.space, GraphSpace):
        return _load_graph_subnet(folder, weights, subnet, subnet.space)
    with torch.device("meta"):
        network: nn.Module = StaticNetwork(lower(subnet.space.unrestricted, subnet.config))
        network = _changed(network, subnet)
    state = _read(folder, weights, network.state_dict(), "sub-network")
    network.load_state_dict(state, assign=True)
    return network.eval()


def _load_graph_subnet(
    folder: Path, weights: ExportedFile, subnet: SubnetFacts, space: GraphSpace
) -> nn.Module:
    """Return a sub-network of a user's model; its own class made anew, or its graph."""
    assert subnet.network is not None
    network = _changed(make_subnet(subnet.network.network(), space, subnet.config, subnet.graph), subnet)
    network.load_state_dict(_read(folder, weights, network.state_dict(), "sub-network"))
    if subnet.graph is not None:
        subnet.network.check_runs(network.eval(), f"the bundle {folder}", subnet.config.resolution)
    return network.eval()


def _changed(network: nn.Module, subnet: SubnetFacts) -> nn.Module:
    """Return a sub-network with the layers that its compression gave it; their weights are undefined."""
    compression = subnet.compression
    if compression is None:
        return network
    changed = with_shapes(apply_structure(network, compression.changes), compression.shapes)
    check_sparse_layers(changed, compression.sparse_layers)
    make_inputs_sparse(changed, compression.pattern, compression.sparse_layers)
    return changed


def load_into(folder: Path, weights: ExportedFile, network: nn.Module) -> None:
    """Copy a bundle's weights into `network`, which stays on its device, and leave it in eval mode.

    Raises:
        UserError: if the weights are missing, damaged or belong to another architecture; if only the ties
            differ, the module has been changed and must not be used.
    """
    expected = network.state_dict()
    meta_names = [name for name, tensor in expected.items() if tensor.is_meta]
    if meta_names:
        raise UserError(
            f"The module has tensors without memory (on the meta device): {listed_names(meta_names)}. "
            'Give it memory first: module.to_empty(device="cpu").'
        )
    state = _read(folder, weights, expected, "module")
    network.load_state_dict(state)
    ties = [name for name, value in network.state_dict().items() if not torch.equal(value.cpu(), state[name])]
    if ties:
        raise UserError(
            f"The module shares memory between tensors that differ in the bundle: {listed_names(ties)}. Pass "
            "a module of the architecture that was exported."
        )
    network.eval()


def _read(
    folder: Path, weights: ExportedFile, expected: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """Return the tensors of a weights file that has exactly the `expected` tensors."""
    file = path_inside(folder, weights.file, "bundle")
    content = read_bytes(file, "weights", stage="export", max_bytes=MAX_TENSOR_BYTES)
    advice = "Use an intact copy, or export it again."
    try:
        state = read_safetensors(content)
    except SafetensorError as error:
        damage = weights_damage(content, error)
        raise UserError(f"The weights {file} {damage}. {advice}", stage="export") from error
    checked_state(state, expected, f"The file of weights for this {what}, {file},", "export")
    if sha256(content) != weights.sha256:
        raise UserError(
            f"The weights {file} differ from the exported ones (SHA-256). {advice}", stage="export"
        )
    return state
