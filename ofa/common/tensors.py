"""Files of tensors: written atomically, loaded without executing their content, checked, and hashed."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ofa.common.damage import weights_damage
from ofa.common.display import short_text
from ofa.common.errors import UserError
from ofa.common.files import json_writer, write_atomic, write_together
from ofa.common.numpy_scalars import SCALARS
from ofa.common.plain_values import MAX_DEPTH
from ofa.common.reading import is_file

MAX_TENSOR_BYTES = 2**36
"""Largest file of tensors, 69 GB: no supernet with its optimiser comes near."""

MAX_VALUES = 1_000_000
"""Most tensors and plain values in a file; a checkpoint of a large supernet has some thousands."""

MAX_MAGNITUDE = 1e18
"""Largest magnitude of a number in a tensor: the square of a larger one is no 32-bit number any more."""

_MAX_NAMES = 5
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


def load_tensors(path: Path, what: str, *, stage: str = "") -> dict[str, Any]:
    """Load what `save_tensors` wrote, onto the CPU; only tensors and plain values are unpickled.

    Scalars of NumPy, which trainings of others keep beside the weights, count as plain values.

    Args:
        path: the file.
        what: name of such a file in error texts, e.g. "checkpoint".
        stage: sub-command that makes such a file; see `UserError`.

    Raises:
        UserError: if the file is missing, too large, truncated, holds other objects, is not a mapping, or
            its tensors are not plain ones; see `named_values`.
    """
    if not is_file(path):
        raise UserError(f"No {what} at {path}.", stage=stage)
    try:
        _check_size(path)
        with torch.serialization.safe_globals(SCALARS):
            values = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(values, dict):
            raise UserError(f"holds a {type(values).__name__}; expected named entries.")
        tensors = {name: value for name, value in named_values(values) if isinstance(value, Tensor)}
        if other_names := [name for name, tensor in tensors.items() if not is_plain(tensor)]:
            names = ", ".join(other_names[:_MAX_NAMES])
            raise UserError(f"holds {len(other_names)} not plain tensors: {names}.")
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read: {error}.", stage=stage) from error
    except UserError as error:
        raise UserError(f"The {what} {path} {error}", stage=stage) from error
    except Exception as error:  # On a damaged file the unpickler can raise any exception.
        raise UserError(f"The {what} {path} {_reason(path, error)}", stage=stage) from error
    return values


def _check_size(path: Path) -> None:
    """Raise for a file that is too large, or would be when it is unpacked."""
    num_bytes = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            num_unpacked = sum(entry.file_size for entry in file.infolist())
        if num_unpacked > num_bytes:
            raise UserError(
                f"would unpack {num_unpacked / 1e6:,.0f} MB from {num_bytes / 1e6:,.1f} MB; expected a file "
                "that torch.save wrote, which is not compressed."
            )
    if num_bytes > MAX_TENSOR_BYTES:
        raise UserError(f"has {num_bytes / 1e9:,.0f} GB; expected at most {MAX_TENSOR_BYTES / 1e9:,.0f} GB.")


def _reason(path: Path, error: Exception) -> str:
    match = _OTHER_OBJECT.search(str(error))
    if match is None:
        damage = weights_damage(path.read_bytes(), error)
        return f"cannot be read: it {damage}. Use an intact copy or make it again."
    return (
        f"cannot be read: it holds {match[1]} beside tensors and plain values. Nothing of it was run; save a "
        "file of the weights alone: torch.save(network.state_dict(), path)."
    )


def read_safetensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, each in its own memory.

    The file is read into one buffer, with addresses that are not multiples of a cache line; a network on it
    took 5 to 9 % longer.

    Raises:
        safetensors.SafetensorError: if the content is not such a file.
    """
    try:
        return {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
    except (AssertionError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        # For example a type of numbers that PyTorch does not have.
        raise SafetensorError(f"{type(error).__name__}: {error}") from error


def named_values(values: object) -> Iterator[tuple[str, object]]:
    """Yield the tensors and plain values of a nested structure, with dotted names.

    Raises:
        UserError: for a structure nested too deep, as one that contains itself is, or with too many values.
    """
    stack: list[tuple[str, object, int]] = [("", values, 0)]
    num_values = 0
    while stack:
        name, value, depth = stack.pop()
        num_values += 1
        if depth > MAX_DEPTH or num_values > MAX_VALUES:
            raise UserError(f"holds more than {MAX_VALUES:,} values, or lists in lists without end.")
        if isinstance(value, Mapping):
            stack += reversed([(_joined(name, key), entry, depth + 1) for key, entry in value.items()])
        elif isinstance(value, list | tuple | set | frozenset):
            stack += reversed([(_joined(name, index), entry, depth + 1) for index, entry in enumerate(value)])
        else:
            yield name, value


def _joined(name: str, key: object) -> str:
    return f"{name}.{short_text(key)}" if name else short_text(key)


def is_plain(value: object) -> bool:
    """Return whether `value` is a tensor of numbers, each with its own place in memory."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_meta or value.is_nested)
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def has_usual_numbers(tensor: Tensor) -> bool:
    """Return whether no number of a plain tensor is infinite, NaN or beyond `MAX_MAGNITUDE`."""
    low, high = _extremes(tensor)
    return low >= -MAX_MAGNITUDE and high <= MAX_MAGNITUDE


def has_nan(values: object) -> bool:
    """Return whether a nested structure has a number NaN, in a tensor or plain."""
    numbers = (value for _, value in named_values(values))
    return any(
        math.isnan(_extremes(value)[0] if isinstance(value, Tensor) else value)
        for value in numbers
        if isinstance(value, Tensor | float)
    )


def _extremes(tensor: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest number; both are NaN if one is, and 0 for integers."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() == 0:
        return 0.0, 0.0
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    elif tensor.element_size() == 1:
        tensor = tensor.float()  # PyTorch compares no 8-bit numbers
    low, high = torch.aminmax(tensor.detach())
    return float(low), float(high)


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
    tensors = (value for value in module.state_dict().values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of the file's SHA-256.

    Raises:
        UserError: if the file cannot be read.
    """
    return file_sha256(path)[:16]


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file's SHA-256; see `file_hash`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
