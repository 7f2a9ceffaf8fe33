"""SGD with Nesterov momentum, its parameter groups and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ofa.common.plain_values import checked_object
from ofa.common.tensors import has_usual_numbers
from ofa.training.batch_norm import BATCH_NORMS
from ofa.training.checkpoints import misfits_named

_NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)


def build_optimizer(
    network: nn.Module,
    lr: float,
    momentum: float,
    weight_decay: float,
    *,
    new_parameters: Collection[str] = (),
    new_lr_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """Return fused SGD with weight decay on all trained parameters but norms and biases.

    Convert the network to its memory format first.

    Args:
        network: network; its parameters without `requires_grad` are left out.
        lr: learning rate.
        momentum: Nesterov momentum.
        weight_decay: L2 decay.
        new_parameters: names of the parameters with another learning rate.
        new_lr_factor: factor of their learning rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(weight_decay, 1.0): [], (0.0, 1.0): []}
    undecayed_names = _undecayed_names(network)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in undecayed_names else weight_decay
            factor = new_lr_factor if name in new_parameters else 1.0
            groups.setdefault((decay, factor), []).append(parameter)
    optimizer = torch.optim.SGD(
        [
            {"params": parameters, "weight_decay": decay, "lr_factor": factor}
            for (decay, factor), parameters in groups.items()
        ],
        lr=lr,
        momentum=momentum,
        nesterov=momentum > 0,
        fused=True,
    )
    _start_momentum(optimizer)
    return optimizer


def _undecayed_names(network: nn.Module) -> set[str]:
    """Return the names of the parameters without weight decay: those of norms, and biases."""
    return {
        f"{path}.{name}" if path else name
        for path, module in network.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if name == "bias" or isinstance(module, _NORMS)
    }


def _start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter a momentum buffer in its own memory format: the loaded values, or zeros.

    Fused SGD creates the buffers itself only if all parameters have a gradient in the first step, and leaves
    them uninitialised if that step is skipped. On CPUs it does not check the memory format.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            buffer = torch.zeros_like(parameter)
            loaded = optimizer.state[parameter].get("momentum_buffer")
            optimizer.state[parameter]["momentum_buffer"] = buffer if loaded is None else buffer.copy_(loaded)


def load_optimizer(optimizer: torch.optim.Optimizer, state: object) -> None:
    """Load the momentum of a `state_dict` from a checkpoint; `optimizer` keeps its settings.

    Raises:
        UserError: for momentum of other shapes, or that is no number to compute with.
    """
    with misfits_named():
        values = checked_object(checked_object(state, "optimizer")["state"], "state of the optimizer")
        _check_momentum(optimizer, values)
        optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
        _start_momentum(optimizer)


def _check_momentum(optimizer: torch.optim.Optimizer, state: Mapping[Any, Any]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state.items():
        momentum = values.get("momentum_buffer")
        if momentum is None:
            continue
        expected = parameters[index]
        if (momentum.shape, momentum.dtype) != (expected.shape, expected.dtype) or not has_usual_numbers(
            momentum
        ):
            raise ValueError(f"the momentum of parameter {index} is not one of this network")


def step_if(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Step the fused `optimizer` if `finite`, a boolean scalar on its device; runs asynchronously."""
    # Fused optimisers read this attribute, which torch.amp.GradScaler sets; 1 skips the step.
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()


def learning_rate(step: int, total_steps: int, warmup_steps: int, peak: float, final: float = 0.0) -> float:
    """Return the learning rate of `step`: linear warm-up to `peak`, then cosine to `final`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group: `lr` times the factor of the group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
