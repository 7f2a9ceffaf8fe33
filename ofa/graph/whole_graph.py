"""`whole_graph`: the graph of a network that was captured as a whole, for any batch where possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ofa.common.errors import UserError
from ofa.graph.capture import Capture, CaptureError, capture
from ofa.graph.inputs import batch_of, resized, side_of
from ofa.graph.parts import ElasticParts, find_parts
from ofa.graph.rewrite import RewrittenGraph, has_batch_in_sizes, rewrite


def whole_graph(
    parts: ElasticParts, model: nn.Module, *, must_run: bool
) -> tuple[ElasticParts, RewrittenGraph]:
    """Return the parts of the graph of the whole network, captured for any batch, and this graph.

    A graph that need not run is not captured again if its sizes do not depend on the batch.
    """
    batch = batch_of(parts.capture.args, parts.capture.kwargs)
    if must_run or has_batch_in_sizes(parts.capture, batch):
        parts = _with_free_batch(parts, model)
        return parts, rewrite_parts(parts)
    return parts, replace(rewrite_parts(parts), has_free_batch=True)


def _with_free_batch(parts: ElasticParts, model: nn.Module) -> ElasticParts:
    """Return the same parts of a graph that runs with any batch size, where the network allows it."""
    captured = capture(model, parts.capture.args, dict(parts.capture.kwargs), free_batch=True)
    free = find_parts(captured).of_splits({group.layer for group in parts.groups if group.layer})
    for reason in dict.fromkeys(parts.reasons.values()):
        free = free.without([key for key, text in parts.reasons.items() if text == reason], reason)
    is_same = free.groups == parts.groups and free.named_chains == parts.named_chains
    return free if is_same and free.names == parts.names else parts


def rewrite_parts(parts: ElasticParts) -> RewrittenGraph:
    """Return the graph of the parts with their sizes as inputs."""
    kernels = {kernel.weight: kernel.side for kernel in parts.kernels}
    return rewrite(parts.capture, parts.grouping, kernels, parts.blocks)


def captures_at(captured: Capture, model: nn.Module, resolutions: Sequence[int]) -> list[Capture]:
    """Return the graph at each resolution.

    Raises:
        UserError: if the network does not run at one of them, or with other operators.
    """
    example_side, result = side_of(captured.args, dict(captured.kwargs)), []
    for side in resolutions:
        if side == example_side:
            result.append(captured)
            continue
        try:
            other = capture(model, *resized((captured.args, dict(captured.kwargs)), side))
        except CaptureError as error:
            raise UserError(f"The network does not run at resolution {side}: {error}") from error
        targets = [[node.target for node in c.program.graph.nodes] for c in (other, captured)]
        if targets[0] != targets[1]:
            raise UserError(
                f"The network runs other operators at resolution {side} than at {example_side}; "
                "convert it for one resolution."
            )
        result.append(other)
    return result
