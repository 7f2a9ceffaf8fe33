"""Published weight files: read without executing code in them, and checked entry by entry."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ofa.common.errors import UserError
from ofa.common.tensors import load_tensors

_SHOWN = 100


def read_state(path: Path, what: str = "published checkpoint") -> dict[str, Tensor]:
    """Return the named tensors of a file written by `torch.save`, on the CPU.

    The file holds them directly or under "state_dict". Only tensors and plain values are unpickled.

    Raises:
        UserError: if the file is missing or damaged, contains code, or has entries that are not finite
            tensors (all of them are named).
    """
    with warnings.catch_warnings():
        # The unpickler warns about the protocol of files that it then rejects.
        warnings.simplefilter("ignore")
        values = load_tensors(path, what)
    state_dict = values.get("state_dict")
    if isinstance(state_dict, Mapping):
        values = dict(state_dict)
    other_names = [str(name) for name, value in values.items() if not isinstance(value, Tensor)]
    state = {str(name): value.detach() for name, value in values.items() if isinstance(value, Tensor)}
    infinite_names = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    errors = [*_listed("not tensors", other_names), *_listed("not finite", infinite_names)]
    if not values:
        errors.append("no entries")
    raise_mismatches(f"The {what} {path}", errors)
    return state


def mismatches(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> list[str]:
    """Return one text each for missing, unexpected and wrongly shaped entries."""
    shapes = [
        f"{name} has shape {list(state[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    return [
        *_listed("missing", (name for name in expected if name not in state)),
        *_listed("unexpected", (name for name in state if name not in expected)),
        *_listed("of another shape", shapes),
    ]


def raise_mismatches(what: str, errors: Iterable[str], hint: str = "") -> None:
    """Raise one error with all `errors`, if there are any."""
    listed = list(errors)
    if listed:
        lines = "\n".join(f"  {error}" for error in listed)
        raise UserError(f"{what} does not have the expected entries:\n{lines}{hint and chr(10) + hint}")


def _listed(title: str, names: Iterable[str]) -> list[str]:
    """Return one text with all names and their number; an empty list without names."""
    listed = list(names)
    if not listed:
        return []
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return [f"{len(listed)} {title}: {', '.join(listed[:_SHOWN])}{more}"]
