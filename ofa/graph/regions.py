"""`find_regions`: the largest modules of a network whose graphs can be captured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ofa.graph.capture import Capture, CaptureError, capture, tensors_in
from ofa.graph.costs import CostForms, Product
from ofa.graph.forms import Form
from ofa.graph.structure import GraphStructure, Group

# Of a module that runs several times, such as the head of a detector, so many calls are captured.
_MAX_CALLS = 16
_Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Region:
    """A module whose graph was captured.

    Attributes:
        path: its name; empty for the whole network.
        captures: its graph for each of its calls; all run the same operators.
    """

    path: str
    captures: tuple[Capture, ...]


def find_regions(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Region], dict[str, str]]:
    """Return the largest modules that can be captured, and why those around them cannot, by name.

    Args:
        model: the network.
        args: positional arguments of the example.
        kwargs: keyword arguments of the example.

    Raises:
        CaptureError: if no module with parameters can be captured.
    """
    try:
        return [Region("", (capture(model, args, kwargs),))], {}
    except CaptureError as error:
        failures = {"": str(error)}
    calls = _recorded_calls(model, args, kwargs)
    regions: list[Region] = []
    queue = list(model.named_children())
    while queue:
        path, module = queue.pop(0)
        if not any(True for _ in module.parameters()):
            continue
        region = _captured(path, module, calls.get(path, []), failures)
        if region is not None:
            regions.append(region)
        else:
            queue += [(f"{path}.{name}", child) for name, child in module.named_children()]
    if not regions:
        raise CaptureError(f"No part of the network can be captured: {failures['']}")
    return regions, failures


def _captured(
    path: str, module: nn.Module, calls: Sequence[_Call], failures: dict[str, str]
) -> Region | None:
    if not calls or not any(tensors_in(call) for call in calls):
        return None
    try:
        captures = tuple(capture(module, *call) for call in calls[:_MAX_CALLS])
    except CaptureError as error:
        failures[path] = str(error)
        return None
    targets = {tuple(str(node.target) for node in c.program.graph.nodes) for c in captures}
    return Region(path, captures if len(targets) == 1 else captures[:1])


def _recorded_calls(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, list[_Call]]:
    """Return the arguments of all calls of all modules, by name."""
    calls: dict[str, list[_Call]] = {}
    handles = []
    for path, module in model.named_modules():

        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: str = path) -> None:
            calls.setdefault(path, []).append((args, kwargs))

        handles.append(module.register_forward_pre_hook(record, with_kwargs=True))
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def joined(
    structures: Sequence[GraphStructure], fixed_macs: float, fixed_parameters: float
) -> GraphStructure:
    """Return the structure of a network from those of its regions.

    The memory of activations is known only if the whole network is one region.

    Args:
        structures: structures of the regions, moved by `moved`.
        fixed_macs: MACs of one image that no sub-network saves.
        fixed_parameters: parameters outside the regions.
    """
    num_resolutions = len(structures[0].costs.macs[0].factors) if structures[0].costs.macs else 1
    fixed = (Product((value,) * num_resolutions) for value in (fixed_macs, fixed_parameters))
    macs = [product for part in structures for product in part.costs.macs]
    parameters = [product for part in structures for product in part.costs.parameters]
    return GraphStructure(
        groups=tuple(group for part in structures for group in part.groups),
        kernels=tuple(kernel for part in structures for kernel in part.kernels),
        chains=tuple(chain for part in structures for chain in part.chains),
        bound_groups=tuple(name for part in structures for name in part.bound_groups),
        copied_tensors=tuple(name for part in structures for name in part.copied_tensors),
        costs=CostForms(
            (*macs, next(fixed)),
            (*parameters, next(fixed)),
            tuple(storage for part in structures for storage in part.costs.storages),
            structures[0].costs.step_blocks,
        ),
    )


def moved_group(group: Group, path: str) -> Group:
    """Return a group of module `path` with the names that it has in the whole network."""
    prefix = f"{path}." if path else ""
    touched = tuple(replace(part, tensor=f"{prefix}{part.tensor}") for part in group.touched)
    layer = f"{prefix}{group.layer}" if group.layer else ""
    return replace(group, name=f"{prefix}{group.name}", touched=touched, layer=layer)


def moved(structure: GraphStructure, path: str, offset: int) -> GraphStructure:
    """Return the structure of module `path` with names of the whole network and groups from `offset` on."""
    prefix = f"{path}." if path else ""

    def name_of(name: str) -> str:
        return f"{prefix}{name}" if name else ""

    def product(value: Product) -> Product:
        forms = tuple(
            Form(form.constant, tuple((group + offset, factor) for group, factor in form.terms))
            for form in value.forms
        )
        return Product(value.factors, forms, name_of(value.kernel), name_of(value.block))

    costs = structure.costs
    return GraphStructure(
        tuple(moved_group(group, path) for group in structure.groups),
        tuple(replace(k, name=name_of(k.name), weight=name_of(k.weight)) for k in structure.kernels),
        tuple(
            replace(c, name=name_of(c.name), blocks=tuple(map(name_of, c.blocks))) for c in structure.chains
        ),
        tuple(map(name_of, structure.bound_groups)),
        tuple(map(name_of, structure.copied_tensors)),
        replace(
            costs,
            macs=tuple(map(product, costs.macs)),
            parameters=tuple(map(product, costs.parameters)),
            storages=costs.storages if not path else (),
        ),
    )
