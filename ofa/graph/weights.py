"""`load_weights`: the weights of a user's network from a file of others, which is never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.common.mismatches import load_state
from ofa.common.reading import is_file
from ofa.common.tensors import MAX_TENSOR_BYTES, load_tensors, read_safetensors
from ofa.graph.state import other_names

# Names under which checkpoints keep the weights, and that wrappers of a network put before all names.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Fill a network with the state dict of a .safetensors file, or of a file of `torch.save`.

    A wrapping entry such as "state_dict", and prefixes of all names such as "module.", are taken off;
    numbers become those of the network's type. Counters of batch norm may be missing, and all but one name
    of a tensor that has several.

    Args:
        network: the network.
        path: the file.
        name: name of the network for errors.

    Raises:
        UserError: for a file that cannot be read, or does not fit: with the names of the first mismatches.
    """
    expected = network.state_dict()
    state = _without_prefixes(_tensors_in(_read(path)), expected)
    counters = {key: value for key, value in expected.items() if key.endswith(".num_batches_tracked")}
    for key, others in other_names(network).items():
        if key not in state and (known := [other for other in others if other in state]):
            state[key] = state[known[0]]
    state = {key: _as_type_of(value, expected.get(key)) for key, value in (counters | state).items()}
    load_state(network, state, f"The weights {path} for {name}")


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix != ".safetensors":
        return load_tensors(path, "file of weights")
    if not is_file(path):
        raise UserError(f"No file of weights at {path}.")
    try:
        if path.stat().st_size > MAX_TENSOR_BYTES:
            raise UserError(f"{path} has more than {MAX_TENSOR_BYTES / 1e9:,.0f} GB.")
        return read_safetensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise UserError(f"The file of weights {path} cannot be read: {error}.") from error


def _tensors_in(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors by name of a checkpoint; its other entries are left out."""
    for _ in _WRAPPERS:
        inner = next((values[key] for key in _WRAPPERS if isinstance(values.get(key), Mapping)), None)
        if inner is None:
            break
        values = inner
    return {str(key): value for key, value in values.items() if isinstance(value, Tensor)}


def _without_prefixes(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            is_foreign = not any(key.startswith(prefix) for key in expected)
            if state and is_foreign and all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _as_type_of(tensor: Tensor, expected: Tensor | None) -> Tensor:
    if expected is None or not (tensor.is_floating_point() and expected.is_floating_point()):
        return tensor
    return tensor.to(expected.dtype)
