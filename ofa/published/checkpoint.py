"""Published checkpoints as supernets, and as weights of static networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import slots
from ofa.common.errors import UserError
from ofa.common.mismatches import listed, mismatches, raise_mismatches
from ofa.published.fitting import fitting_text
from ofa.published.names import published_names, short_name, shorten_names
from ofa.published.state import read_state
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet


def import_supernet(space: StagedSpace, path: Path) -> Supernet:
    """Return a supernet with the weights of the published checkpoint `path`, in eval mode.

    Args:
        space: space that the checkpoint was trained for; its numbers of classes and of channels of the images
            become those of the checkpoint.
        path: the checkpoint.

    Raises:
        UserError: if the file is missing or damaged or contains code, or entries are missing, unexpected, of
            another shape or not finite; all of them are named, and the spaces that it fits.
    """
    state = read_state(path)
    supernet = Supernet(_with_ends_of(state, space))
    try:
        load_published(supernet, state, f"The checkpoint {path}")
    except UserError as error:
        raise UserError(f"{error}\n{fitting_text(state)}") from error
    return supernet.eval()


def _with_ends_of(state: Mapping[str, Tensor], space: StagedSpace) -> StagedSpace:
    """Return the space with the classes of a published state and the channels that its first layer reads."""
    by_short_name = {short_name(name): tensor for name, tensor in state.items()}
    classifier = by_short_name.get("classifier.linear.weight")
    first = by_short_name.get("first_conv.conv.weight", by_short_name.get("input_stem.0.conv.weight"))
    if classifier is not None and classifier.ndim == 2:
        space = replace(space, num_classes=len(classifier))
    return replace(space, in_channels=first.shape[1]) if first is not None and first.ndim == 4 else space


def load_published(supernet: Supernet, state: Mapping[str, Tensor], what: str) -> None:
    """Fill `supernet` with a published state dict of either generation of names, in its own precision.

    Args:
        supernet: supernet, changed only if all entries match.
        state: tensors by published name.
        what: name of the state in errors.

    Raises:
        UserError: naming every entry that is missing, unexpected or of another shape.
    """
    space = supernet.space
    hint = (
        f"Space {space.name!r} has family {space.family}, width_multiplier {space.width_multiplier:g} and "
        f"{space.num_classes} classes; import with the space that the checkpoint was trained for."
    )
    specs = [slot.variants(space)[0] for slot in slots(space)]
    load_weights(supernet, specs, state, what, hint)


@torch.no_grad()
def load_weights(
    network: nn.Module, specs: Sequence[LayerSpec], state: Mapping[str, Tensor], what: str, hint: str
) -> None:
    """Fill a supernet or static network of `specs` with a published state dict; see `load_published`.

    Errors use the names in the file; missing entries are named by their short form.
    """
    our_state = network.state_dict()
    our_names = published_names(specs, our_state)
    their_names = shorten_names(state, what)
    expected = {
        their_names.get(short, short): tuple(our_state[name].shape) for name, short in our_names.items()
    }
    their_state = {name: tensor for name, tensor in state.items() if name in set(their_names.values())}
    other_names = [name for name, tensor in their_state.items() if not tensor.is_floating_point()]
    errors = [*mismatches(expected, their_state), *listed("not floating-point", other_names)]
    raise_mismatches(what, errors, hint)
    for name, short in our_names.items():
        our_state[name].copy_(their_state[their_names[short]])
