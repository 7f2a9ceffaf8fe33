"""Published weight files: read without running anything in them, and checked entry by entry."""

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

    The file holds them itself or under "state_dict". Nothing but tensors and plain values is unpickled.

    Raises:
        UserError: if the file is missing or damaged, holds code, or holds anything but finite tensors (all
            such entries are named).
    """
    with warnings.catch_warnings():
        # The unpickler comments on the protocol of files that it then refuses.
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
    raise_misfits(f"The {what} {path}", errors)
    return state


def misfits(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> list[str]:
    """Return a text each for missing, unexpected and wrongly shaped entries; none if all is well."""
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


def raise_misfits(what: str, errors: Iterable[str], hint: str = "") -> None:
    """Raise one error with all `errors`; nothing if there is none."""
    listed = list(errors)
    if listed:
        lines = "\n".join(f"  {error}" for error in listed)
        raise UserError(f"{what} does not hold what is expected:\n{lines}{hint and chr(10) + hint}")


def _listed(title: str, names: Iterable[str]) -> list[str]:
    """Return one text with all names and their number, or nothing where there are no names."""
    listed = list(names)
    if not listed:
        return []
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return [f"{len(listed)} {title}: {', '.join(listed[:_SHOWN])}{more}"]
