"""State dicts of supernets under the names of this project, and the declared spaces that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ofa.architecture.lowering import slots
from ofa.common.errors import UserError
from ofa.common.shipped import preset_names
from ofa.published.names import published_names, shorten_names
from ofa.space.load import load_space
from ofa.supernet.supernet import Supernet
from ofa.supernet.transfer import transfer_weights

PUBLISHED_WIDTHS = (1.0, 1.2, 1.3)
"""Width multipliers that published supernets have."""


def own_state(
    supernet: Supernet, state: Mapping[str, Tensor], what: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a state dict of either kind of names under those of the supernet, and the names that it had.

    Args:
        supernet: supernet of the space that the state should belong to.
        state: tensors by published name, or by name of this project.
        what: name of the state in errors.

    Raises:
        UserError: if two published names mean the same tensor.
    """
    if any(name.startswith("layers.") for name in state):
        return dict(state), {}
    specs = [slot.variants(supernet.space)[0] for slot in slots(supernet.space)]
    own_names = {short: name for name, short in published_names(specs, supernet.state_dict()).items()}
    their_names = shorten_names(state, what)
    renamed = {own_names.get(short, name): state[name] for short, name in their_names.items()}
    return renamed, {name: their_names.get(short, short) for short, name in own_names.items()}


def fitting_text(state: Mapping[str, Tensor]) -> str:
    """Return the sentence that says which declared spaces the weights of a supernet fit."""
    texts = fitting_spaces(state)
    return f"It fits {' or '.join(texts)}." if texts else "It fits none of the declared spaces."


def fitting_spaces(state: Mapping[str, Tensor]) -> list[str]:
    """Return the declared spaces that a state dict fits whatever its classes, with their width multiplier."""
    texts = []
    for name in preset_names("space"):
        space = load_space(name)
        for width in dict.fromkeys((space.width_multiplier, *PUBLISHED_WIDTHS)):
            with torch.device("meta"):
                supernet = Supernet(replace(space, width_multiplier=width))
            try:
                transfer_weights(supernet, own_state(supernet, state, name)[0])
            except UserError:
                continue
            texts.append(f"space {name!r} with width_multiplier {width:g}")
    return texts
