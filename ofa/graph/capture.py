"""`capture`: the graph of aten operators that a user's network runs for an example."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from ofa.common.errors import UserError

# Files that are not the user's.
_FOLDERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))

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
        parameters: name, the first of several, of the parameter or buffer of each placeholder that is one.
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
    if has_free_batch:
        _take_sizes_of_inputs(program.graph)
    signature = program.graph_signature
    first_names = _first_names(network)
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    parameters = {placeholder: first_names.get(name, name) for placeholder, name in names.items()}
    return Capture(program, args, dict(kwargs), parameters, has_free_batch)


def _first_names(network: nn.Module) -> dict[str, str]:
    """Return the first name of each parameter and buffer; tied ones have several."""
    names: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ):
        names[name] = first.setdefault(id(tensor), name)
    return names


def _export(
    network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], shapes: Any
) -> ExportedProgram:
    with _quiet(), torch.enable_grad():
        return torch.export.export(network, args, dict(kwargs), dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what `torch.export` says about a graph that fails: its error says it, too."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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


def _take_sizes_of_inputs(graph: Graph) -> None:
    """Let free sizes be those of an input, in place, and compute all that follows from them first.

    Otherwise a module that may be left out would be the one that computes them for the others.
    """
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    inputs: dict[str, Node] = {}
    for node in placeholders:
        value = node.meta.get("val")
        for dim, size in enumerate(value.shape if isinstance(value, Tensor) else ()):
            if isinstance(size, torch.SymInt) and str(size) not in inputs:
                with graph.inserting_after(placeholders[-1]):
                    inputs[str(size)] = graph.call_function(torch.ops.aten.sym_size.int, (node, dim))
                inputs[str(size)].meta["val"] = size
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.sym_size.int and node not in inputs.values():
            source = inputs.get(str(node.meta["val"]))
            if source is not None:
                node.replace_all_uses_with(source)
                graph.erase_node(node)
    first = set(inputs.values())
    last = next((node for node in reversed(graph.nodes) if node in first), None)
    for node in list(graph.nodes):
        is_size = isinstance(node.meta.get("val"), torch.SymInt) and node.op == "call_function"
        if is_size and node not in first and last is not None and first.issuperset(node.all_input_nodes):
            last.append(node)
            node.meta.pop("nn_module_stack", None)
            first.add(node)
            last = node


def _has_symbol(program: ExportedProgram) -> bool:
    return any(
        isinstance(size, torch.SymInt)
        for node in program.graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor)
        for size in node.meta["val"].shape
    )


def _cause(error: Exception) -> str:
    """Return the cause of a failed capture in a line, with the place in the user's code."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {text[:200]}"
    if isinstance(error, GuardOnDataDependentSymNode):
        text = "the code branches on values of tensors, or takes sizes from them"
    place = _user_line(error)
    return f"{text}{f' ({place})' if place else ''}"


def _user_line(error: BaseException) -> str:
    """Return file and line of the innermost frame outside PyTorch; empty if there is none."""
    places = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append((inspect.getfile(code), str(traceback.tb_lineno)))
        traceback = traceback.tb_next
    outside = [place for place in places if not place[0].startswith((*_FOLDERS, "<"))]
    return f"{Path(outside[-1][0]).name}:{outside[-1][1]}" if outside else ""
