"""`make_elastic`: a user's network as a supernet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.graph.capture import Example, arguments_of
from ofa.graph.checks import FunctionChecks
from ofa.graph.cost_forms import cost_forms
from ofa.graph.genes import ChoiceRule, Choices, genes_of
from ofa.graph.inputs import batch_of, check_inputs, resized, side_of
from ofa.graph.module_report import joined_lines, module_reports
from ofa.graph.parts import ElasticParts, find_parts, names_within, restricted
from ofa.graph.pointwise import pointwise_groups
from ofa.graph.regions import Region, find_regions, joined, moved, moved_group
from ofa.graph.report import conversion_report
from ofa.graph.rewrite import RewrittenGraph
from ofa.graph.space import GraphSpace
from ofa.graph.split_layers import checked_split, find_splits
from ofa.graph.structure import GraphStructure, SplitLayer
from ofa.graph.supernet import GraphSupernet
from ofa.graph.variants import Variants, bound_parts
from ofa.graph.whole_graph import captures_at, whole_graph


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
    min_channels: int = 16,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    rules: Sequence[ChoiceRule] = (),
    min_pointwise_width: float = 0.0,
    ranks: Sequence[float] = (),
    name: str = "",
) -> GraphSupernet:
    """Return a supernet of a user's network; the network itself is unchanged.

    The graph, captured by `torch.export`, says which channels belong together. Every conversion is checked:
    another order of the units of all groups must not change the function, and the supernet must compute what
    the graph computes for narrow networks. What fails stays fixed.

    Args:
        model: the network, in eval mode.
        example: inputs that it runs with, at least two images: a tensor, positional arguments (a tuple), or
            keyword arguments (a dict). Axis 0 is the batch.
        widths: shares of the channels, or heads, that may be kept.
        kernel_sizes: sides of square kernels in pixels; larger kernels than 3 may shrink to them.
        depths: shares of the blocks of a chain of residual blocks that may be kept, its first ones.
        resolutions: sides of the input in pixels; none for that of the example.
        divisor: numbers of channels are multiples of it.
        min_channels: groups of fewer channels stay whole.
        exclude: shell-style patterns of modules that stay as they are, with inputs and outputs.
        include: patterns of the only modules that may vary; none for all.
        rules: choices for parts by their name.
        min_pointwise_width: smallest share of the units of `pointwise_groups` that may be kept.
        ranks: shares of the full rank of convolutions, which then stand as a vertical and a horizontal one
            (see `ofa.modules.split`); without 1, the largest sub-network is not the network itself.
        name: name of the space; none for the class of the network.

    Raises:
        UserError: for a network in training mode, or inputs, patterns or tied weights that do not fit.
        CaptureError: if the network cannot be captured; the text names the line.
        NothingElasticError: if nothing may vary.
    """
    check_inputs(model, *arguments_of(example))
    sides = tuple(sorted(set(resolutions))) or (side_of(*arguments_of(example)),)
    common = (divisor, min_channels, tuple(rules), min_pointwise_width, tuple(ranks))
    choices = Choices(sides, tuple(widths), tuple(kernel_sizes), tuple(depths), *common)
    name = name or type(model).__name__
    splits = find_splits(model, choices, exclude, include)
    model = checked_split(model, splits, *arguments_of(example))
    conversion = convert(model, example, choices, exclude=exclude, include=include, name=name, splits=splits)
    supernet = GraphSupernet(model, conversion.space, conversion.graph)
    supernet.start_space = supernet.space.only_largest
    found = [(region.path, region.parts) for region in conversion.regions]
    supernet.report = conversion_report(model, conversion.space, found, conversion.failures, min_channels)
    return supernet


@dataclass(frozen=True)
class ConvertedRegion:
    """A module that was captured on its own.

    Attributes:
        path: its name; empty for the whole network.
        parts: what may vary in it, by names within the module, and why other parts may not.
    """

    path: str
    parts: ElasticParts


@dataclass(frozen=True)
class Conversion:
    """What a conversion found.

    Attributes:
        space: the space of the network.
        graph: the graph of the network; None where only parts of it were captured.
        regions: the modules that were captured.
        failures: why other modules could not be captured, by name; empty for the whole network.
    """

    space: GraphSpace
    graph: RewrittenGraph | None
    regions: tuple[ConvertedRegion, ...]
    failures: Mapping[str, str]


def convert(
    model: nn.Module,
    example: Example,
    choices: Choices,
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    name: str,
    splits: Sequence[SplitLayer] = (),
) -> Conversion:
    """Return what may vary in a network, checked, as `make_elastic` does, which checks its inputs before."""
    args, kwargs = arguments_of(example)
    regions, failures = find_regions(model, args, kwargs)
    found = restricted([(r.path, _parts_of(r, splits)) for r in regions], model, exclude, include)
    checked = [_checked(parts, model.get_submodule(path)) for path, parts in found]
    graph = None
    if failures:
        if len(choices.resolutions) > 1:
            raise UserError(
                f"{type(model).__name__} is converted in parts, which have one resolution, because the whole "
                f"cannot be captured: {failures['']}"
            )
        checked = _checked_together(checked, [path for path, _ in found], model, args, kwargs)
    else:
        parts, bound = checked[0]
        if bound and len(choices.resolutions) > 1:
            raise UserError(
                f"Only the graph of {type(model).__name__} computes fewer channels of {bound[0]}, and it "
                "runs at one resolution; convert the network for one resolution, or exclude such modules."
            )
        graph_parts, graph = whole_graph(parts, model, must_run=bool(bound))
        checked = [(graph_parts if bound else parts, bound)]
    structures: list[GraphStructure] = []
    batch = batch_of(args, kwargs)
    for region, (parts, bound) in zip(regions, checked, strict=True):
        module = model.get_submodule(region.path)
        if failures:
            calls = [cost_forms(parts, module, [call], batch) for call in region.captures]
            costs = replace(calls[0], macs=tuple(product for call in calls for product in call.macs))
        else:
            costs = cost_forms(parts, module, captures_at(parts.capture, model, choices.resolutions), batch)
        structure = GraphStructure(
            parts.groups, parts.kernels, parts.named_chains, tuple(bound), parts.copied_tensors, costs
        )
        structures.append(moved(structure, region.path, sum(len(s.groups) for s in structures)))
    inputs = (args, kwargs) if failures else resized((args, kwargs), choices.resolutions[0])
    rest = _rest(structures, regions, model, *inputs)
    structure = replace(joined(structures, *rest), splits=tuple(splits))
    genes = genes_of(structure, choices, pointwise_groups(model, structure))
    by_path = [(region.path, parts) for region, (parts, _) in zip(regions, checked, strict=True)]
    if len(genes) < 2 and len(choices.resolutions) < 2:
        reports = module_reports(model, structure, genes, by_path, failures, choices.min_channels)
        texts = [f"{name}: {answer.removeprefix('fixed: ')}" for name, answer in joined_lines(reports)]
        raise NothingElasticError(
            "Nothing of this network may vary:\n  " + listed_names(texts, 20, separator="\n  ")
        )
    space = GraphSpace(name, genes, structure)
    converted = tuple(ConvertedRegion(path, parts) for path, parts in by_path)
    return Conversion(space, graph, converted, failures)


def _parts_of(region: Region, splits: Sequence[SplitLayer]) -> ElasticParts:
    """Return the parts of a captured module, which know the channels of split convolutions."""
    return find_parts(region.captures[0]).of_splits(names_within(region.path, [s.name for s in splits]))


def _checked(parts: ElasticParts, module: nn.Module) -> tuple[ElasticParts, list[str]]:
    """Return the parts that pass the checks, and the names of those that only the graph computes."""
    if not parts.names:
        return parts, []
    args, kwargs = parts.capture.args, parts.capture.kwargs
    checks = FunctionChecks(module, args, kwargs)
    if not Variants(parts, checks).graph_is_right():  # Types may be written into the graph.
        checks = FunctionChecks(module, args, kwargs, in_double=False)
    wrong = checks.wrong_groups(parts.groups)
    parts = parts.without(wrong, "has channels whose order is part of the function")
    return bound_parts(parts, checks)


def _checked_together(
    checked: Sequence[tuple[ElasticParts, list[str]]],
    paths: Sequence[str],
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> list[tuple[ElasticParts, list[str]]]:
    """Return what may vary in modules of a network that cannot be captured as a whole.

    Its own forward has to compute everything, and nothing outside a module may use its tensors.
    """
    results = [
        (path, parts.without(bound, "varies only in the graph of its module, and the network has none"))
        for path, (parts, bound) in zip(paths, checked, strict=True)
    ]
    moved_groups = {
        moved_group(group, path).name: (path, group.name) for path, parts in results for group in parts.groups
    }
    groups = [moved_group(group, path) for path, parts in results for group in parts.groups]
    wrong = [moved_groups[name] for name in FunctionChecks(model, args, kwargs).wrong_groups(groups)]
    reason = "has tensors that are used outside of its module"
    return [
        (parts.without([name for where, name in wrong if where == path], reason), [])
        for path, parts in results
    ]


def _rest(
    structures: Sequence[GraphStructure],
    regions: Sequence[Region],
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[float, float]:
    """Return MACs of one image and parameters that stay: outside the regions, or of unknown operators."""
    # Fused attention is not counted.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(*args, **kwargs)
    batch = batch_of(args, dict(kwargs))
    inside = _full_macs(structures)
    within = {id(p) for region in regions for p in model.get_submodule(region.path).parameters()}
    num_parameters = sum(p.numel() for p in model.parameters() if id(p) not in within)
    return max(0.0, counter.get_total_flops() / 2 / batch - inside), float(num_parameters)


def _full_macs(structures: Sequence[GraphStructure]) -> float:
    """Return the MACs of regions whose parts are all whole."""
    counts = [group.num_units for structure in structures for group in structure.groups]
    sides = {kernel.weight: kernel.side for structure in structures for kernel in structure.kernels}
    products = [product for structure in structures for product in structure.costs.macs]
    return sum(
        product.factors[0]
        * math.prod(form.size(counts) for form in product.forms)
        * sides.get(product.kernel, 1) ** 2
        for product in products
    )
