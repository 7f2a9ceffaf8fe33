"""Weight files of others: read without executing code in them, unwrapped, and checked entry by entry."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ofa.common.damage import weights_damage
from ofa.common.errors import UserError
from ofa.common.mismatches import listed, raise_mismatches
from ofa.common.tensors import load_tensors

ENVELOPES = ("state_dict", "model", "model_state", "ema", "net", "supernet", "state")
"""Names under which checkpoints of trainings keep the weights, in the order of preference."""

_PREFIXES = ("module.", "model.", "net.", "supernet.")
_COMPILED = "_orig_mod."
_AVERAGE_COUNT = "n_averaged"
_MAX_DEPTH = 3


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
    state = {name: value.detach() for name, value in values.items() if _is_plain_tensor(value)}
    other_names = [name for name in values if name not in state]
    infinite_names = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    errors = [*listed("not plain tensors", other_names), *listed("not finite", infinite_names)]
    if not values:
        errors.append("no entries")
    raise_mismatches(f"The {what} {path}", errors)
    return state


def _is_plain_tensor(value: object) -> bool:
    """Return whether `value` is a tensor with a value in memory for each of its entries."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_meta or value.is_nested)
    )


def _load_safetensors(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"No {what} at {path}.")
    try:
        return dict(safetensors.torch.load_file(path))
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read: {error}.") from error
    except safetensors.SafetensorError as error:
        damage = weights_damage(path.read_bytes(), error)
        raise UserError(f"The {what} {path} {damage} ({error}).") from error


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
    while others:
        prefix = next((prefix for prefix in _PREFIXES if others[0].startswith(prefix)), None)
        if prefix is None or not all(name.startswith(prefix) for name in others):
            break
        named = {name.removeprefix(prefix): named[name] for name in others}
        others = list(named)
    return named
