"""What a network returns: one tensor, or, for a task of the user's own, a tuple of tensors.

Everything between a network and its task hands on what the network returns. The functions here are all that
is done with it on the way; each does to every tensor of a tuple what it does to one tensor.
"""

from __future__ import annotations

from torch import Tensor


def float_outputs(outputs: Tensor) -> Tensor:
    """Return outputs in float32, as losses take them."""
    if isinstance(outputs, tuple):
        return tuple(map(float_outputs, outputs))
    return outputs.float() if outputs.is_floating_point() else outputs


def detached_outputs(outputs: Tensor) -> Tensor:
    """Return outputs without their gradients."""
    return tuple(map(detached_outputs, outputs)) if isinstance(outputs, tuple) else outputs.detach()


def requires_grad(outputs: Tensor) -> bool:
    """Return whether gradients flow into outputs."""
    return any(map(requires_grad, outputs)) if isinstance(outputs, tuple) else outputs.requires_grad


def parts_of(outputs: object) -> tuple[Tensor, ...]:
    """Return the tensors of outputs; none for what is neither a tensor nor a tuple of tensors."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    is_tuple = isinstance(outputs, tuple) and all(isinstance(part, Tensor) for part in outputs)
    return outputs if is_tuple and isinstance(outputs, tuple) else ()
