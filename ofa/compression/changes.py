"""`LayerChange`: a convolution in another form, as data; and networks with such changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from ofa.common.errors import UserError, unknown_name
from ofa.compression.form import Form
from ofa.compression.penni import BasisForm, Escalate, Penni
from ofa.compression.settings import FORM_NAMES
from ofa.compression.split import Split
from ofa.compression.tucker import Tucker
from ofa.modules.split import with_factors

BASIS_FORMS: Mapping[str, BasisForm] = {form.name: form for form in (Penni(), Escalate())}
"""The forms by basis kernels by name."""

FORMS: Mapping[str, Form] = {form.name: form for form in (Split(), Tucker(), *BASIS_FORMS.values())}
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
        UserError: if a layer is unknown or cannot have the form.
    """
    return _changed(network, changes, _factors)


def apply_structure(network: nn.Module, changes: Sequence[LayerChange]) -> nn.Module:
    """Return a copy of a network with the layers of the changes, whose weights are undefined.

    Raises:
        UserError: if a layer is unknown or cannot have the form.
    """
    return _changed(network, changes, _layers)


def apply_filled(
    network: nn.Module, changes: Sequence[LayerChange], weights: Mapping[str, Sequence[Tensor]]
) -> nn.Module:
    """Return a copy of a network with changed convolutions, whose weights are given.

    Args:
        network: network.
        changes: changes.
        weights: weights of the layers of each change, by the name of the convolution.

    Raises:
        UserError: if a layer is unknown or cannot have the form.
    """

    def filled(form: Form, convolution: nn.Conv2d, change: LayerChange) -> nn.Module:
        return with_factors(form.layers(convolution, change.ranks), weights[change.layer], convolution.bias)

    return _changed(network, changes, filled)


@contextmanager
def changed_in_place(network: nn.Module, change: LayerChange) -> Iterator[None]:
    """Give a network a changed convolution for a while, without a copy of the rest.

    Raises:
        UserError: if the layer is unknown or cannot have the form.
    """
    convolution = _convolution(network, change.layer)
    _set(network, change.layer, _replacement(convolution, change, _factors))
    try:
        yield
    finally:
        _set(network, change.layer, convolution)


_Make = Callable[[Form, nn.Conv2d, LayerChange], nn.Module]


def _factors(form: Form, convolution: nn.Conv2d, change: LayerChange) -> nn.Module:
    return form.factors(convolution, change.ranks)


def _layers(form: Form, convolution: nn.Conv2d, change: LayerChange) -> nn.Module:
    return form.layers(convolution, change.ranks)


def _changed(network: nn.Module, changes: Sequence[LayerChange], make: _Make) -> nn.Module:
    changed = copy.deepcopy(network)
    for change in changes:
        convolution = _convolution(changed, change.layer)
        _set(changed, change.layer, _replacement(convolution, change, make))
    return changed


def _replacement(convolution: nn.Conv2d, change: LayerChange, make: _Make) -> nn.Module:
    form = FORMS[change.form]
    if problem := form.obstacle(convolution) or form.problem(convolution, change.ranks):
        raise UserError(f"{change.layer} cannot become {change.key}: {problem}.")
    replacement = make(form, convolution, change)
    for parameter in replacement.parameters():
        parameter.requires_grad_(convolution.weight.requires_grad)
    return replacement.train(convolution.training)


def _set(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


def _convolution(network: nn.Module, name: str) -> nn.Conv2d:
    try:
        layer = network.get_submodule(name)
    except AttributeError as error:
        raise UserError(f"The network has no layer {name!r}.") from error
    if not isinstance(layer, nn.Conv2d):
        raise UserError(f"The layer {name!r} is {type(layer).__name__}; expected a Conv2d.")
    return layer
