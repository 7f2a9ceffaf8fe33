"""Weight files of others: read without executing code in them, unwrapped, and checked entry by entry."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ofa.common.damage import weights_damage
from ofa.common.errors import UserError
from ofa.common.mismatches import listed, raise_mismatches
from ofa.common.reading import read_bytes
from ofa.common.tensors import MAX_TENSOR_BYTES, has_usual_numbers, is_plain, load_tensors, read_safetensors

ENVELOPES = ("state_dict", "model", "model_state", "ema", "net", "supernet", "state")
"""Names under which checkpoints of trainings keep the weights, in the order of preference."""

_PREFIXES = ("module.", "model.", "net.", "supernet.")
_COMPILED = "_orig_mod."
_AVERAGE_COUNT = "n_averaged"
_MAX_DEPTH = 3
_MAX_PREFIXES = 8


def read_state(path: Path, what: str = "published checkpoint") -> dict[str, Tensor]:
    """Return the named tensors of a file written by `torch.save` (or `.safetensors`), on the CPU.

    The file holds them directly or under one of the names `ENVELOPES`. What `DataParallel`, averaging of
    weights and `torch.compile` add to the names is left out. Only tensors and plain values are unpickled.

    Raises:
        UserError: if the file is missing or damaged, contains code, or has entries that are not finite
            tensors (all of them are named).
    """
    with warnings.catch_warnings():
        # The unpickler warns about the protocol of files that it then rejects.
        warnings.simplefilter("ignore")
        load = _load_safetensors if path.suffix == ".safetensors" else load_tensors
        values = plain_names(unwrapped(load(path, what)))
    state = {name: value.detach() for name, value in values.items() if is_plain(value)}
    other_names = [name for name in values if name not in state]
    infinite_names = [name for name, tensor in state.items() if not has_usual_numbers(tensor)]
    errors = [*listed("not plain tensors", other_names), *listed("not finite", infinite_names)]
    if not values:
        errors.append("no entries")
    raise_mismatches(f"The {what} {path}", errors)
    return state


def _load_safetensors(path: Path, what: str) -> dict[str, Any]:
    content = read_bytes(path, what, max_bytes=MAX_TENSOR_BYTES)
    try:
        return dict(read_safetensors(content))
    except SafetensorError as error:
        raise UserError(f"The {what} {path} {weights_damage(content, error)} ({error}).") from error


def unwrapped(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the mapping that holds the weights: `values`, or what they have under one of `ENVELOPES`."""
    for _ in range(_MAX_DEPTH):
        inner = [values[name] for name in ENVELOPES if isinstance(values.get(name), Mapping)]
        if not inner:
            break
        values = inner[0]
    return values


def plain_names(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the entries under the names that the network itself gives them."""
    named = {str(name).replace(_COMPILED, ""): value for name, value in values.items()}
    others = [name for name in named if name != _AVERAGE_COUNT]
    for _ in range(_MAX_PREFIXES if others else 0):
        prefix = next((prefix for prefix in _PREFIXES if others[0].startswith(prefix)), None)
        if prefix is None or not all(name.startswith(prefix) for name in others):
            break
        named = {name.removeprefix(prefix): named[name] for name in others}
        others = list(named)
    return named
