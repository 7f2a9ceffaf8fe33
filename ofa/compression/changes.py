"""`LayerChange`: a convolution in another form, as data; and networks with such changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ofa.common.errors import UserError, unknown_name
from ofa.compression.form import Form
from ofa.compression.settings import FORM_NAMES
from ofa.compression.split import Split
from ofa.compression.tucker import Tucker

FORMS: Mapping[str, Form] = {form.name: form for form in (Split(), Tucker())}
"""The forms of convolutions by name."""

assert tuple(FORMS) == FORM_NAMES


@dataclass(frozen=True)
class LayerChange:
    """A convolution that is replaced by another form of it.

    Attributes:
        layer: qualified name of the convolution in the network.
        form: a key of `FORMS`.
        ranks: sizes of the form; see the form.
    """

    layer: str
    form: str
    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that the form is known."""
        if self.form not in FORMS:
            raise unknown_name("form", self.form, FORMS)

    @property
    def key(self) -> str:
        """Name of the form and its sizes, e.g. "split 32"."""
        return " ".join((self.form, *map(str, self.ranks)))


def apply_changes(network: nn.Module, changes: Sequence[LayerChange]) -> nn.Module:
    """Return a copy of a network with changed convolutions, whose weights are factors of the former.

    Raises:
        UserError: if a layer is unknown, cannot have the form.
    """
    return _changed(network, changes, lambda form, convolution, ranks: form.factors(convolution, ranks))


def apply_structure(network: nn.Module, changes: Sequence[LayerChange]) -> nn.Module:
    """Return a copy of a network with the layers of the changes, whose weights are undefined.

    Raises:
        UserError: if a layer is unknown or cannot have the form.
    """
    return _changed(network, changes, lambda form, convolution, ranks: form.layers(convolution, ranks))


_Replace = Callable[[Form, nn.Conv2d, tuple[int, ...]], nn.Module]


def _changed(network: nn.Module, changes: Sequence[LayerChange], replace: _Replace) -> nn.Module:
    changed = copy.deepcopy(network)
    for change in changes:
        form, convolution = FORMS[change.form], _convolution(changed, change.layer)
        if problem := form.obstacle(convolution) or form.problem(convolution, change.ranks):
            raise UserError(f"{change.layer} cannot become {change.key}: {problem}.")
        replacement = replace(form, convolution, change.ranks)
        for parameter in replacement.parameters():
            parameter.requires_grad_(convolution.weight.requires_grad)
        parent, _, name = change.layer.rpartition(".")
        setattr(changed.get_submodule(parent), name, replacement.train(convolution.training))
    return changed


def _convolution(network: nn.Module, name: str) -> nn.Conv2d:
    try:
        layer = network.get_submodule(name)
    except AttributeError as error:
        raise UserError(f"The network has no layer {name!r}.") from error
    if not isinstance(layer, nn.Conv2d):
        raise UserError(f"The layer {name!r} is {type(layer).__name__}; expected a Conv2d.")
    return layer
