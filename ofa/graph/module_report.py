"""`module_reports`: which genes change each module of a user's network, and why others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ofa.graph.genes import MIN_CHANNELS
from ofa.graph.groups import consumed_axes, find_groups, produced_axes
from ofa.graph.labels.store import Labels
from ofa.graph.name_patterns import joined_names
from ofa.graph.parts import ElasticParts
from ofa.graph.state import other_names
from ofa.graph.structure import Group
from ofa.space.genes import Gene

# The roles of axes, in the order in which they answer for a module that stays.
_ROLES = ("outputs", "channels", "inputs")


@dataclass(frozen=True)
class ModuleReport:
    """One module with parameters of its own, or one parameter that is not in a layer.

    Attributes:
        name: name of the module or parameter.
        kind: class of the module, or "parameter".
        parameters: number of parameters.
        genes: names of the genes that change it, by what they change: "outputs", "inputs" or "channels",
            "kernel", "depth".
        reasons: why outputs, inputs or channels stay where no gene changes them, by the same names.
    """

    name: str
    kind: str
    parameters: int
    genes: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str]

    @property
    def is_elastic(self) -> bool:
        """Whether a gene changes it."""
        return bool(self.genes)

    @property
    def answer(self) -> str:
        """What varies, or why nothing does, in a line."""
        if not self.genes:
            if len(set(self.reasons.values())) == 1:
                return f"fixed: {next(iter(self.reasons.values()))}"
            return "fixed: " + "; ".join(f"{role}: {text}" for role, text in self.reasons.items())
        main = next((role for role in _ROLES if role in self.genes or role in self.reasons), "")
        reason = self.reasons.get(main, "")
        text = f"elastic: {', '.join(self.genes)}"
        return f"{text}; {main} stay: {reason}" if reason else text


def module_reports(model: nn.Module, parts: ElasticParts, genes: Sequence[Gene]) -> list[ModuleReport]:
    """Return one report per module with parameters, in the order of the network.

    Args:
        model: the user's network.
        parts: what may vary, and why others may not.
        genes: genes of the space.
    """
    return _ModuleReports(model, parts, genes).result()


def joined_lines(reports: Sequence[ModuleReport]) -> list[tuple[str, str]]:
    """Return pairs of a pattern of names and their answer; equal answers of similar names are one."""
    lines = joined_names([(report.name, report.answer) for report in reports])
    return [(f"{name} ({count})" if count > 1 else name, answer) for name, count, answer in lines]


class _ModuleReports:
    def __init__(self, model: nn.Module, parts: ElasticParts, genes: Sequence[Gene]) -> None:
        self.model, self.parts = model, parts
        self.gene_names = {gene.name for gene in genes}
        self.smallest = {gene.name: gene.choices[0] for gene in genes}
        labelled = parts.grouping.labelled
        self.axes, self.components = labelled.parameters, labelled.components
        self.all_groups = find_groups(labelled) if parts.reasons else parts.grouping
        self.roles = dict.fromkeys(consumed_axes(labelled), "inputs")
        self.roles |= dict.fromkeys(produced_axes(labelled), "outputs")
        self.same = other_names(model)
        self.unused = {
            parts.capture.parameters[node.name]
            for node in labelled.graph.nodes
            if node.op == "placeholder" and node.name in parts.capture.parameters and not node.users
        }

    def result(self) -> list[ModuleReport]:
        return [self._report(*entry) for entry in self._entries()]

    def _entries(self) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
        """Yield name, kind and parameters; a module that holds others is one entry per parameter."""
        for module_name, module in self.model.named_modules():
            prefix = f"{module_name}." if module_name else ""
            own = {f"{prefix}{n}": p for n, p in module.named_parameters(recurse=False)}
            if not own:
                continue
            if any(True for _ in module.children()) or not module_name:
                yield from ((name, "parameter", {name: parameter}) for name, parameter in own.items())
            else:
                yield module_name, type(module).__name__, own

    def _report(self, name: str, kind: str, parameters: Mapping[str, Tensor]) -> ModuleReport:
        genes: dict[str, set[str]] = {}
        reasons: dict[str, list[str]] = {}
        for tensor in parameters:
            for role, axis in self._axes_of(tensor):
                changing, staying = self._answer(axis)
                genes.setdefault(role, set()).update(changing)
                reasons.setdefault(role, []).extend(staying)
        if {"outputs", "inputs"} & set(genes):  # The other axis is that of a bias.
            genes.pop("channels", None)
            reasons.pop("channels", None)
        genes["kernel"] = {f"kernel_size:{name}"} & self.gene_names
        genes["depth"] = self._depths(name)
        changed = {role: tuple(sorted(names)) for role, names in genes.items() if names}
        # In the text, outputs come before inputs.
        order = ("outputs", "channels", "inputs", "kernel", "depth")
        fixed = {role: reasons[role][0] for role in _ROLES if reasons.get(role) and role not in changed}
        if not changed:
            fixed = fixed or {"outputs": self._missing(name, parameters)}
        return ModuleReport(
            name,
            kind,
            sum(parameter.numel() for parameter in parameters.values()),
            {role: changed[role] for role in order if role in changed},
            fixed,
        )

    def _axes_of(self, tensor: str) -> Iterator[tuple[str, Labels]]:
        """Yield role and labels of the axes of a parameter that have any."""
        names = (tensor, *self.same.get(tensor, ()))
        known = next((name for name in names if name in self.axes), None)
        if known is None or known in self.unused:
            return
        for number, axis in enumerate(self.axes[known]):
            if axis is not None:
                yield self.roles.get((known, number), "channels"), axis

    def _answer(self, axis: Labels) -> tuple[set[str], list[str]]:
        """Return the genes that change an axis, and why other indices stay, the commonest first."""
        grouping, changing, staying = self.parts.grouping, set(), Counter[str]()
        for unit, count in Counter(self.components.of_label[axis].tolist()).items():
            index = int(grouping.group_indices[unit])
            gene = f"width:{grouping.groups[index].name}" if index >= 0 else ""
            if gene in self.gene_names:
                changing.add(gene)
            else:
                staying[self._reason(unit, grouping.groups[index] if index >= 0 else None)] += count
        return changing, [reason for reason, _ in staying.most_common()]

    def _reason(self, unit: int, group: Group | None) -> str:
        if group is not None:
            is_narrow = group.num_units * group.unit_size < MIN_CHANNELS
            narrow = f"has fewer than {MIN_CHANNELS} channels"
            return narrow if is_narrow else "has no smaller width among its choices"
        if (index := int(self.components.reason_of[unit])) >= 0:
            return self.components.reasons[index]
        former = int(self.all_groups.group_indices[unit])
        name = self.all_groups.groups[former].name if former >= 0 else ""
        return self.parts.reasons.get(name, "is a single unit")

    def _depths(self, name: str) -> set[str]:
        for chain in self.parts.named_chains:
            gene = f"depth:{chain.name}"
            if gene in self.gene_names:
                optional = chain.blocks[int(self.smallest[gene]) :]
                if any(name.startswith(f"{block}.") for block in optional):
                    return {gene}
        return set()

    def _missing(self, name: str, parameters: Collection[str]) -> str:
        """Return why a module stays that has no axis with a reason."""
        if any(parameter in self.unused for parameter in parameters):
            return "is not used by the forward in eval mode"
        parents = [name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)]
        reasons = (self.parts.reasons[parent] for parent in parents if parent in self.parts.reasons)
        return next(reasons, "has no axis of channels")
