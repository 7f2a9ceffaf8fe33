"""Named tensors against the entries that are expected: every misfit in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from ofa.common.errors import UserError

_SHOWN = 100


def mismatches(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> list[str]:
    """Return one text each for missing, unexpected and wrongly shaped entries."""
    shapes = [
        f"{name} has shape {list(state[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    return [
        *listed("missing", (name for name in expected if name not in state)),
        *listed("unexpected", (name for name in state if name not in expected)),
        *listed("of another shape", shapes),
    ]


def raise_mismatches(what: str, errors: Iterable[str], hint: str = "") -> None:
    """Raise one error with all `errors`, if there are any."""
    all_errors = list(errors)
    if all_errors:
        lines = "\n".join(f"  {error}" for error in all_errors)
        raise UserError(f"{what} does not have the expected entries:\n{lines}{hint and chr(10) + hint}")


def listed(title: str, names: Iterable[str]) -> list[str]:
    """Return one text with all names and their number; an empty list without names."""
    all_names = list(names)
    if not all_names:
        return []
    more = f" and {len(all_names) - _SHOWN} more" if len(all_names) > _SHOWN else ""
    return [f"{len(all_names)} {title}: {', '.join(all_names[:_SHOWN])}{more}"]
