"""The part of a supernet that a phase trains, and its optimiser."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.batch_norm import BATCH_NORMS
from ofa.training.optimizer import build_optimizer
from ofa.training.phases import Phase
from ofa.training.settings import TrainSettings


def trained_names(supernet: AbstractSupernet[nn.Module], phase: Phase) -> set[str]:
    """Return the names of the parameters that a phase trains.

    Raises:
        UserError: if there is none.
    """
    names = {name for name, _ in supernet.named_parameters()}
    if phase.trains == "classifier":
        names &= set(supernet.classifier_parameters)
    if phase.frozen_batch_norm:
        names -= {
            f"{path}.{name}"
            for path, module in supernet.named_modules()
            if isinstance(module, BATCH_NORMS)
            for name, _ in module.named_parameters(recurse=False)
        }
    if not names:
        raise UserError(
            f"The phase {phase.name!r} trains {phase.trains}, but the supernet names no parameters of that "
            "kind (classifier_parameters); set trains to all."
        )
    return names


def phase_optimizer(
    supernet: AbstractSupernet[nn.Module],
    phase: Phase,
    settings: TrainSettings,
    new_parameters: Collection[str],
) -> torch.optim.Optimizer:
    """Return the optimiser of a phase, and switch gradients off for all parameters that it does not train."""
    names = trained_names(supernet, phase)
    for name, parameter in supernet.named_parameters():
        parameter.requires_grad_(name in names)
    return build_optimizer(
        supernet,
        0.0,
        settings.momentum,
        settings.weight_decay,
        new_parameters=new_parameters,
        new_lr_factor=phase.new_lr_factor,
    )
