"""Files of tensors: written atomically, loaded without executing their content, and hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ofa.common.damage import weights_damage
from ofa.common.errors import UserError
from ofa.common.files import json_writer, write_atomic, write_together
from ofa.common.numpy_scalars import SCALARS

_OTHER_OBJECT = re.compile(r"Unsupported (?:global|class|operand)[^\n]*?(?:GLOBAL |class )?([\w.]+\.\w+)")


def save_tensors(path: Path, values: Mapping[str, Any]) -> None:
    """Save tensors and plain values atomically; equal values give equal bytes."""
    write_atomic(path, lambda temporary: _write(temporary, values))


def save_with_twin(path: Path, values: Mapping[str, Any], twin: Callable[[str], Mapping[str, Any]]) -> None:
    """Save tensors as `save_tensors` does, together with a JSON file of the same name that describes them.

    Args:
        path: file of the tensors.
        values: tensors and plain values.
        twin: takes the hash of the new file of tensors (see `file_hash`), and returns the JSON's values.

    Raises:
        UserError: if one of them cannot be written; neither is replaced then.
    """
    digests: list[str] = []

    def write(temporary: Path) -> None:
        _write(temporary, values)
        digests.append(file_hash(temporary))

    def write_twin(temporary: Path) -> None:
        json_writer(twin(digests[0]))(temporary)

    write_together({path: write, path.with_suffix(".json"): write_twin})


def _write(path: Path, values: Mapping[str, Any]) -> None:
    # Given a path, torch.save would put the name of the temporary file into the content.
    with path.open("wb") as file:
        torch.save(dict(values), file)


def load_tensors(path: Path, what: str) -> dict[str, Any]:
    """Load what `save_tensors` wrote, onto the CPU; only tensors and plain values are unpickled.

    Scalars of NumPy, which trainings of others keep beside the weights, count as plain values.

    Raises:
        UserError: if the file is missing, truncated, holds other objects or is not a mapping.
    """
    if not path.is_file():
        raise UserError(f"No {what} at {path}.")
    try:
        with torch.serialization.safe_globals(SCALARS):
            values = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read: {error}.") from error
    except Exception as error:  # On a damaged file the unpickler can raise any exception.
        raise UserError(f"The {what} {path} {_reason(path, error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"The {what} {path} holds a {type(values).__name__}; expected named entries.")
    return values


def _reason(path: Path, error: Exception) -> str:
    match = _OTHER_OBJECT.search(str(error))
    if match is None:
        damage = weights_damage(path.read_bytes(), error)
        return f"cannot be read: it {damage}. Use an intact copy or make it again."
    return (
        f"cannot be read: it holds {match[1]} beside tensors and plain values. Nothing of it was run; save a "
        "file of the weights alone: torch.save(network.state_dict(), path)."
    )


def content_digest(values: object) -> str:
    """Return the SHA-256 of all tensors, names and plain values of a nested structure."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, Mapping):
            for name, entry in value.items():
                digest.update(repr(name).encode())
                add(entry)
        elif isinstance(value, list | tuple):
            for entry in value:
                add(entry)
        else:
            digest.update(repr(value).encode())

    add(values)
    return digest.hexdigest()


def state_bytes(module: nn.Module) -> int:
    """Return the size of all parameters and buffers of a module in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of the file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
