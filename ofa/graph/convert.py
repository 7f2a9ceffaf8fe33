"""`make_elastic`: a user's network as a supernet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.graph.capture import Capture, CaptureError, Example, arguments_of, capture, tensors_in
from ofa.graph.checks import FunctionChecks
from ofa.graph.cost_forms import cost_forms
from ofa.graph.genes import ChoiceRule, Choices, genes_of
from ofa.graph.module_report import joined_lines, module_reports
from ofa.graph.parts import ElasticParts, find_parts, restricted
from ofa.graph.report import conversion_report
from ofa.graph.rewrite import RewrittenGraph, rewrite
from ofa.graph.space import GraphSpace
from ofa.graph.structure import GraphStructure
from ofa.graph.supernet import GraphSupernet
from ofa.graph.variants import bound_parts
from ofa.space.genes import Gene


class NothingElasticError(UserError):
    """A network of which nothing may vary; the text says why."""


def make_elastic(
    model: nn.Module,
    example: Example,
    *,
    widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    kernel_sizes: Sequence[int] = (3, 5, 7),
    depths: Sequence[float] = (0.5, 0.75, 1.0),
    resolutions: Sequence[int] = (),
    divisor: int = 8,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    rules: Sequence[ChoiceRule] = (),
    name: str = "",
) -> GraphSupernet:
    """Return a supernet of a user's network; the network itself is unchanged.

    The graph of the network, captured by `torch.export`, says which channels belong together. Every
    conversion is checked: changing the order of the units of all groups must not change the function, and
    what the supernet computes for narrow networks must be what the graph computes. What fails stays fixed.

    Args:
        model: the network, in eval mode.
        example: inputs that it runs with, at least two images: a tensor, positional arguments (a tuple), or
            keyword arguments (a dict). Axis 0 is the batch.
        widths: shares of the channels, or heads, that may be kept.
        kernel_sizes: sides of square kernels in pixels; larger kernels than 3 may shrink to them.
        depths: shares of the blocks of a chain of residual blocks that may be kept, its first ones.
        resolutions: sides of the input in pixels; none for that of the example.
        divisor: numbers of channels are multiples of it.
        exclude: shell-style patterns of modules that stay as they are, with inputs and outputs.
        include: patterns of the only modules that may vary; none for all.
        rules: choices for parts by their name.
        name: name of the space; none for the class of the network.

    Raises:
        UserError: for a network in training mode, inputs of another device or type, a pattern that matches
            nothing, tied weights of which one is excluded, or if everything is excluded.
        CaptureError: if the network cannot be captured; the text names the line.
        NothingElasticError: if nothing may vary.
    """
    args, kwargs = arguments_of(example)
    check_inputs(model, args, kwargs)
    resolution = _side(args, kwargs)
    choices = Choices(
        tuple(sorted({*resolutions} or {resolution})),
        tuple(widths), tuple(kernel_sizes), tuple(depths), divisor, tuple(rules),
    )  # fmt: skip
    parts = restricted(find_parts(capture(model, args, kwargs)), model, exclude, include)
    checks = FunctionChecks(model, args, kwargs)
    wrong = checks.wrong_groups(parts.groups)
    parts = parts.without(wrong, "the order of its channels is part of the function")
    parts, bound = bound_parts(parts, checks)
    rewritten = None
    if bound:
        parts = _with_free_batch(parts, model)
        rewritten = rewrite_parts(parts)
    structure = GraphStructure(parts.groups, parts.kernels, parts.named_chains, tuple(bound))
    genes = genes_of(structure, choices)
    if len(genes) < 2:
        raise NothingElasticError(_why_nothing(model, parts, genes))
    captures = _captures(parts, model, choices.resolutions, resolution)
    structure = replace(structure, costs=cost_forms(parts, model, captures))
    space = GraphSpace(name or type(model).__name__, genes, structure)
    supernet = GraphSupernet(model, space, rewritten)
    supernet.report = conversion_report(model, parts, space)
    return supernet


def rewrite_parts(parts: ElasticParts) -> RewrittenGraph:
    """Return the graph of the parts with their sizes as inputs."""
    kernels = {kernel.weight: kernel.side for kernel in parts.kernels}
    return rewrite(parts.capture, parts.grouping, kernels, parts.blocks)


def check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a network in training mode and inputs that it cannot read.

    Raises:
        UserError: saying what was found and what is expected.
    """
    if model.training:
        raise UserError(
            "The network is in training mode; the conversion compares outputs, which batch norm and dropout "
            "change there: call model.eval() before. The supernet can be trained afterwards."
        )
    tensors = tensors_in((args, kwargs))
    if not tensors:
        raise UserError("The example holds no tensor; expected the inputs of the network.")
    parameter = next(iter(model.parameters()), None)
    if parameter is None:
        raise UserError("The network has no parameters; nothing of it may vary.")
    for tensor in tensors:
        if tensor.device != parameter.device:
            raise UserError(
                f"The example is on {tensor.device} and the network on {parameter.device}; "
                "expected both on one device."
            )
        if tensor.is_floating_point() and tensor.dtype != parameter.dtype:
            raise UserError(
                f"The example is of type {tensor.dtype} and the network of {parameter.dtype}; "
                "expected both of one type."
            )
        if not tensor.dim() or not len(tensor):
            raise UserError("An input of the example has no batch axis, or an empty one.")


def _side(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return the resolution of an example: the last axis of its first image, or of its first input."""
    tensors = tensors_in((args, kwargs))
    images: list[Tensor] = [tensor for tensor in tensors if tensor.dim() == 4] or tensors
    return int(images[0].shape[-1])


def _captures(
    parts: ElasticParts, model: nn.Module, resolutions: Sequence[int], example_side: int
) -> list[Capture]:
    """Return the graph at each resolution.

    Raises:
        UserError: if the network does not run at one of them, or with other operators.
    """
    result = []
    for side in resolutions:
        if side == example_side:
            result.append(parts.capture)
            continue
        inputs = pytree.tree_map(partial(_resized, side=side), (parts.capture.args, parts.capture.kwargs))
        try:
            captured = capture(model, *inputs)
        except CaptureError as error:
            raise UserError(f"The network does not run at resolution {side}: {error}") from error
        targets = [[node.target for node in c.program.graph.nodes] for c in (captured, parts.capture)]
        if parts.capture.has_free_batch or targets[0] != targets[1]:
            raise UserError(
                f"The network runs other operators at resolution {side} than at {example_side}; "
                "convert it for one resolution."
            )
        result.append(captured)
    return result


def _resized(leaf: Any, side: int) -> Any:
    if isinstance(leaf, Tensor) and leaf.dim() == 4:
        return F.interpolate(leaf, (side, side), mode="bilinear", antialias=True)
    return leaf


def _with_free_batch(parts: ElasticParts, model: nn.Module) -> ElasticParts:
    """Return the same parts of a graph that runs with any batch size, where the network allows it."""
    captured = capture(model, parts.capture.args, dict(parts.capture.kwargs), free_batch=True)
    free = find_parts(captured)
    for reason in dict.fromkeys(parts.reasons.values()):
        free = free.without([key for key, text in parts.reasons.items() if text == reason], reason)
    return free if free.names == parts.names else parts


def _why_nothing(model: nn.Module, parts: ElasticParts, genes: Sequence[Gene]) -> str:
    """Return why nothing may vary."""
    lines = joined_lines(module_reports(model, parts, genes))
    texts = [f"{name}: {answer.removeprefix('fixed: ')}" for name, answer in lines]
    return "Nothing of this network may vary:\n  " + listed_names(texts, 20, separator="\n  ")
