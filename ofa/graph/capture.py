"""`capture`: the graph of aten operators that a user's network runs for an example."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from ofa.common.errors import UserError

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""One tensor, positional arguments, or keyword arguments."""


class CaptureError(UserError):
    """A network, or a part of it, whose graph cannot be captured; the text has the cause and its line."""


@dataclass(frozen=True)
class Capture:
    """A captured graph.

    Attributes:
        program: what `torch.export` made of the network in eval mode.
        args: positional arguments of the example.
        kwargs: keyword arguments of the example.
        parameters: name of the parameter or buffer of each placeholder that is one.
        has_free_batch: whether the graph runs with any batch size.
    """

    program: ExportedProgram
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    parameters: Mapping[str, str]
    has_free_batch: bool


def arguments_of(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments of an example."""
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    return tuple(example), {}


def tensors_in(value: Any) -> list[Tensor]:
    """Return all tensors in nested arguments or outputs."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def capture(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, free_batch: bool = False
) -> Capture:
    """Return the graph of `model` in eval mode; the model is unchanged.

    Args:
        model: the network.
        args: positional arguments of the example.
        kwargs: keyword arguments of the example.
        free_batch: whether axis 0 of all inputs stays free, where the network allows it; takes longer.

    Raises:
        CaptureError: naming the line of the user's code that cannot be captured.
    """
    network = copy.deepcopy(model).eval()
    for parameter in network.parameters():
        if parameter.dtype.is_floating_point:
            parameter.requires_grad_(True)  # Otherwise attention takes a fused path of its own.
    program, has_free_batch = None, False
    for shapes in (*([_batch_shapes(network, args, kwargs)] if free_batch else []), None):
        try:
            program = _export(network, args, kwargs, shapes)
            has_free_batch = shapes is not None and _has_symbol(program)
            break
        except Exception as error:  # What export raises is not limited to a type.
            if shapes is None:
                raise CaptureError(_cause(error)) from error
    assert program is not None
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return Capture(program, args, dict(kwargs), names, has_free_batch)


def _export(
    network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], shapes: Any
) -> ExportedProgram:
    with warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore")
        return torch.export.export(network, args, dict(kwargs), dynamic_shapes=shapes, strict=False)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep PyTorch from printing and logging whole graphs where it fails."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def _batch_shapes(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the specification in which axis 0 of each tensor is free."""

    def free(value: Any) -> Any:
        return {0: Dim.AUTO} if isinstance(value, Tensor) and value.dim() and len(value) > 1 else None

    positional = tuple(pytree.tree_map(free, value) for value in args)
    if not kwargs:
        return positional
    names = list(inspect.signature(network.forward).parameters)
    named = {name: pytree.tree_map(free, value) for name, value in kwargs.items()}
    return dict(zip(names, positional, strict=False)) | named


def _has_symbol(program: ExportedProgram) -> bool:
    return any(
        isinstance(size, torch.SymInt)
        for node in program.graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor)
        for size in node.meta["val"].shape
    )


def _cause(error: Exception) -> str:
    """Return the cause of a failed capture in a line, with the place in the user's code."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    place = _user_line(error)
    return f"{type(error).__name__}: {text[:200]}{f' ({place})' if place else ''}"


def _user_line(error: BaseException) -> str:
    """Return file and line of the innermost frame outside PyTorch; empty if there is none."""
    places = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append((inspect.getfile(code), str(traceback.tb_lineno)))
        traceback = traceback.tb_next
    outside = [
        p for p in places if "/torch/" not in p[0] and not p[0].startswith("<") and "/ofa/graph/" not in p[0]
    ]
    return f"{outside[-1][0].rsplit('/', 1)[-1]}:{outside[-1][1]}" if outside else ""
