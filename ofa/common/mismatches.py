"""Named tensors against the entries that are expected: every misfit in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.common.tensors import has_usual_numbers, is_plain

MAX_NAMES = 100
"""Names that an error lists: of a file of others all are wanted, to see how it differs."""

_MAX_OWN_NAMES = 5


def mismatches(
    expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], max_names: int = MAX_NAMES
) -> list[str]:
    """Return one text each for missing, unexpected and wrongly shaped entries; see `listed`."""
    shapes = [
        f"{name} has shape {list(state[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    return [
        *listed("missing", [name for name in expected if name not in state], max_names),
        *listed("unexpected", [name for name in state if name not in expected], max_names),
        *listed("of another shape", shapes, max_names),
    ]


def raise_mismatches(what: str, errors: Iterable[str], hint: str = "", stage: str = "") -> None:
    """Raise one error with all `errors`, if there are any."""
    all_errors = list(errors)
    if all_errors:
        lines = "\n".join(f"  {error}" for error in all_errors)
        raise UserError(
            f"{what} does not have the expected entries:\n{lines}{hint and chr(10) + hint}", stage=stage
        )


def listed(title: str, names: Iterable[str], max_names: int = MAX_NAMES) -> list[str]:
    """Return one text with all names, shortened, and their number; an empty list without names."""
    all_names = list(names)
    if not all_names:
        return []
    return [f"{len(all_names)} {title}: {listed_names(all_names, max_names)}"]


def checked_state(
    values: object, expected: Mapping[str, Tensor], what: str, stage: str = ""
) -> dict[str, Tensor]:
    """Return the state dict of a file of this project, which has exactly the tensors that are `expected`.

    Args:
        values: what the file holds, its tensors plain ones; see `ofa.common.tensors.load_tensors`.
        expected: state dict of the network, of which names, shapes and types count.
        what: name of the file in the error, e.g. "The supernet runs/a/supernet.pt".
        stage: sub-command that makes such a file; see `UserError`.

    Raises:
        UserError: naming everything that is missing, unexpected, of another shape or type, or has numbers
            that no network computes with.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{what} holds no weights by name.", stage=stage)
    state = {str(name): value for name, value in values.items() if is_plain(value)}
    errors = mismatches(
        {name: tuple(tensor.shape) for name, tensor in expected.items()}, state, _MAX_OWN_NAMES
    )
    names_by_fault = {
        "not plain tensors": [str(name) for name in values if str(name) not in state],
        "of another type": [
            f"{name} is {state[name].dtype}, expected {tensor.dtype}"
            for name, tensor in expected.items()
            if name in state and state[name].dtype != tensor.dtype
        ],
        # A mask of minus infinity in a user's module has to be one.
        "with numbers out of range": [
            name
            for name, tensor in state.items()
            if not has_usual_numbers(tensor) and _is_usual(expected.get(name))
        ],
    }
    for fault, names in names_by_fault.items():
        errors += listed(fault, names, _MAX_OWN_NAMES)
    raise_mismatches(what, errors, stage=stage)
    return state


def _is_usual(tensor: Tensor | None) -> bool:
    return tensor is None or tensor.is_meta or has_usual_numbers(tensor)


def load_state(network: nn.Module, values: object, what: str, stage: str = "") -> None:
    """Fill a network with the state dict of a file; see `checked_state`.

    Raises:
        UserError: as `checked_state`; the network is then unchanged.
    """
    network.load_state_dict(checked_state(values, network.state_dict(), what, stage))
