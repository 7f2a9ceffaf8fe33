"""`ElasticParts`: groups, kernels and blocks of a captured graph that may vary, and why others may not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.fx import Node

from ofa.common.errors import UserError
from ofa.graph.blocks import Block, find_chains
from ofa.graph.capture import Capture
from ofa.graph.groups import Grouping, find_groups, operator_calls
from ofa.graph.labels.analysis import label_graph
from ofa.graph.labels.call import operator_name
from ofa.graph.state import other_names
from ofa.graph.structure import Chain, ElasticKernel, Group

_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


@dataclass(frozen=True)
class ElasticParts:
    """What may vary in a captured graph.

    Attributes:
        capture: the captured graph.
        grouping: its groups of units.
        kernels: convolutions with an elastic kernel.
        chains: chains of residual blocks.
        reasons: why other parts stay, by the name of the part.
    """

    capture: Capture
    grouping: Grouping
    kernels: tuple[ElasticKernel, ...]
    chains: tuple[tuple[Block, ...], ...]
    reasons: Mapping[str, str]

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of units."""
        return self.grouping.groups

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks that may be left out."""
        return tuple(block for chain in self.chains for block in chain)

    @property
    def named_chains(self) -> tuple[Chain, ...]:
        """Chains as plain values, each named after the module that holds it, or its first block."""
        parents = Counter(_parent(chain) for chain in self.chains)
        return tuple(
            Chain(
                _parent(chain) if parents[_parent(chain)] == 1 and _parent(chain) else chain[0].name,
                tuple(block.name for block in chain),
            )
            for chain in self.chains
        )

    def without(self, names: Collection[str], reason: str) -> ElasticParts:
        """Return the parts in which those of these names stay, because of `reason`."""
        chains = zip(self.chains, self.named_chains, strict=True)
        return replace(
            self,
            grouping=self.grouping.without(names),
            kernels=tuple(kernel for kernel in self.kernels if _kernel_key(kernel) not in names),
            chains=tuple(blocks for blocks, chain in chains if _chain_key(chain) not in names),
            reasons={**self.reasons, **dict.fromkeys(names, reason)},
        )

    def of_splits(self, names: Collection[str]) -> ElasticParts:
        """Return the parts in which the channels inside and behind split convolutions know these names."""
        kinds = {f"{name}.0": ("rank", name) for name in names} | {
            f"{name}.1": ("width", name) for name in names
        }
        groups = []
        for group in self.groups:
            kind, layer = kinds.get(group.name, (group.kind, group.layer))
            groups.append(replace(group, kind=kind, layer=layer))
        return replace(self, grouping=replace(self.grouping, groups=tuple(groups)))

    @property
    def copied_tensors(self) -> tuple[str, ...]:
        """Parameters of units that other operators than layers and norms read."""
        touched = {name for group in self.groups for name, _ in group.axes}
        nodes = [node for node in self.capture.program.graph.nodes if node.op == "placeholder"]
        names = {node: self.capture.parameters.get(node.name, "") for node in nodes}
        return tuple(
            name
            for node, name in names.items()
            if name in touched and not all(_is_layer(user, node) for user in node.users)
        )

    @property
    def names(self) -> list[str]:
        """Names of all parts, distinct; those of kernels and chains begin with what they are."""
        return [
            *(group.name for group in self.groups),
            *map(_kernel_key, self.kernels),
            *map(_chain_key, self.named_chains),
        ]


def _is_layer(user: Node, parameter: Node) -> bool:
    """Return whether a layer reads a parameter, rather than an operator whose first operand it is."""
    return user.args[:1] != (parameter,) and operator_name(user).startswith(("conv", "linear", *_NORMS))


def _kernel_key(kernel: ElasticKernel) -> str:
    return f"kernel of {kernel.name}"


def _chain_key(chain: Chain) -> str:
    return f"blocks of {chain.name}"


def _parent(chain: Sequence[Block]) -> str:
    parents = {block.name.rpartition(".")[0] for block in chain}
    return parents.pop() if len(parents) == 1 else ""


def find_parts(captured: Capture) -> ElasticParts:
    """Return all parts of a captured graph that may vary."""
    labelled = label_graph(captured.program.graph, captured.parameters)
    grouping = find_groups(labelled)
    return ElasticParts(
        captured,
        grouping,
        tuple(_kernels(captured, grouping)),
        tuple(find_chains(captured.program.graph)),
        {},
    )


def _kernels(captured: Capture, grouping: Grouping) -> Iterable[ElasticKernel]:
    """Yield convolutions with a square odd kernel larger than 3, padded by half of its side."""
    uses: Counter[str] = Counter()
    found: dict[str, int] = {}
    for node, call in operator_calls(grouping.labelled):
        for source in node.all_input_nodes:
            uses[captured.parameters.get(source.name, "")] += 1
        if node.target is not torch.ops.aten.conv2d.default:
            continue
        weight = captured.parameters.get(call.input("weight").name)
        *_, height, width = call.sizes("weight")
        is_square = height == width and height % 2 == 1 and height > 3
        is_same = set(call.numbers("padding")) == {height // 2} and set(call.numbers("dilation")) == {1}
        if weight is not None and weight.endswith(".weight") and is_square and is_same:
            found[weight] = height
    for weight, side in found.items():
        if uses[weight] == 1:
            yield ElasticKernel(weight.removesuffix(".weight"), weight, side)


def matching_modules(model: nn.Module, patterns: Sequence[str], setting: str) -> set[str]:
    """Return the names of modules and parameters that match a pattern, or lie in a module that does.

    Raises:
        UserError: for a pattern that matches nothing.
    """
    names = {name for name, _ in model.named_modules() if name}
    names |= {name for name, _ in model.named_parameters(remove_duplicate=False)}
    result: set[str] = set()
    for pattern in patterns:
        matches = {n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")}
        if not matches:
            examples = ", ".join(sorted(names)[:5])
            raise UserError(
                f"{setting} has the pattern {pattern!r}, which matches no module; modules are {examples}, …"
            )
        result |= matches
    return result


def restricted(
    parts_of: Sequence[tuple[str, ElasticParts]],
    model: nn.Module,
    exclude: Sequence[str],
    include: Sequence[str],
) -> list[tuple[str, ElasticParts]]:
    """Return the parts that do not touch excluded modules and, if there are patterns, that are included.

    Args:
        parts_of: names of the captured modules, with their parts.
        model: the whole network.
        exclude: patterns of modules that stay.
        include: patterns of the only modules that may vary; none for all.

    Raises:
        UserError: for a pattern that matches nothing, if an excluded module shares a parameter with one that
            is not, or if nothing is left.
    """
    excluded = matching_modules(model, exclude, "exclude")
    included = matching_modules(model, include, "include")
    _check_ties(model, excluded)
    result = []
    for path, parts in parts_of:
        inside = names_within(path, excluded)
        touched = {group.name for group in parts.groups if any(name in inside for name, _ in group.axes)}
        touched |= {_kernel_key(kernel) for kernel in parts.kernels if kernel.weight in inside}
        touched |= {_chain_key(chain) for chain in parts.named_chains if inside & set(chain.blocks)}
        parts = parts.without(touched, f"touches a module that is excluded by {', '.join(exclude)}")
        if include:
            others = _not_within(parts, names_within(path, included))
            parts = parts.without(others, f"is not among the included modules: {', '.join(include)}")
        result.append((path, parts))
    if (exclude or include) and not any(parts.names for _, parts in result):
        raise UserError("exclude and include leave nothing that may vary; leave out fewer modules.")
    return result


def names_within(path: str, names: Collection[str]) -> set[str]:
    """Return names as they are within module `path`."""
    prefix = f"{path}." if path else ""
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def _not_within(parts: ElasticParts, names: Collection[str]) -> set[str]:
    """Return the parts that none of these modules makes."""
    modules = {group.name: group.name.split(":")[0] for group in parts.groups}
    modules |= {_kernel_key(kernel): kernel.name for kernel in parts.kernels}
    modules |= {_chain_key(chain): chain.blocks[0] for chain in parts.named_chains}
    return {key for key, name in modules.items() if name not in names}


def _check_ties(model: nn.Module, excluded: Collection[str]) -> None:
    for name, others in other_names(model).items():
        outside = [other for other in others if other not in excluded]
        if name in excluded and outside:
            raise UserError(
                f"{name} and {outside[0]} are one tensor, and only the first is excluded; "
                "exclude both, or none."
            )
