"""The weights of a bundle: saving the tensors of a module by name, and loading them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ofa.architecture.lowering import lower
from ofa.common.damage import weights_damage
from ofa.common.errors import UserError
from ofa.common.files import sha256
from ofa.export.card import SubnetFacts
from ofa.export.record import ExportedFile
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


def load_subnet(folder: Path, weights: ExportedFile, subnet: SubnetFacts) -> StaticNetwork:
    """Return the sub-network with a bundle's weights, in eval mode.

    Raises:
        UserError: if the weights are missing, damaged or belong to another network.
    """
    with torch.device("meta"):
        network = StaticNetwork(lower(subnet.space.unrestricted, subnet.config))
    state = _read(folder, weights, network.state_dict(), "sub-network")
    network.load_state_dict(state, assign=True)
    return network.eval()


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
            f"The module has tensors without memory (on the meta device): {_shown(meta_names)}. "
            'Give it memory first: module.to_empty(device="cpu").'
        )
    state = _read(folder, weights, expected, "module")
    network.load_state_dict(state)
    ties = [name for name, value in network.state_dict().items() if not torch.equal(value.cpu(), state[name])]
    if ties:
        raise UserError(
            f"The module shares memory between tensors that differ in the bundle: {_shown(ties)}. Pass a "
            "module of the architecture that was exported."
        )
    network.eval()


def _read(
    folder: Path, weights: ExportedFile, expected: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """Return the tensors of a weights file that has exactly the `expected` tensors."""
    file = folder / weights.file
    if not file.is_file():
        raise UserError(f"No weights at {file}.", stage="export")
    content = file.read_bytes()
    advice = "Use an intact copy, or export it again."
    try:
        state = read_weights(content)
    except safetensors.SafetensorError as error:
        damage = weights_damage(content, error)
        raise UserError(f"The weights {file} {damage}. {advice}", stage="export") from error
    errors = _mismatches(expected, state)
    if errors:
        raise UserError(
            f"The weights {file} are not those of this {what}: {_shown(errors, '; ')}. {advice}",
            stage="export",
        )
    if sha256(content) != weights.sha256:
        raise UserError(
            f"The weights {file} differ from the exported ones (SHA-256). {advice}", stage="export"
        )
    return state


def read_weights(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a weights file, each in its own memory.

    The file is read into one buffer, with addresses that are not multiples of a cache line; a network on it
    took 5 to 9 % longer.

    Raises:
        safetensors.SafetensorError: if the content is not such a file.
    """
    return {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}


def _mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    errors = [f"{name} is missing" for name in expected if name not in state]
    errors += [f"{name} is unexpected" for name in state if name not in expected]
    for name in expected.keys() & state.keys():
        tensor, reference = state[name], expected[name]
        if tensor.shape != reference.shape:
            errors.append(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(reference.shape)}")
        elif tensor.dtype != reference.dtype:
            errors.append(f"{name} is {tensor.dtype}, expected {reference.dtype}")
    return sorted(errors)


def _shown(texts: list[str], separator: str = ", ") -> str:
    """Return the first five texts and the number of further ones."""
    more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    return separator.join(texts[:5]) + more
