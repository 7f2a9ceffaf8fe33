"""`module_reports`: which genes change each module of a user's network, and why others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ofa.graph.groups import consumed_axes, find_groups, produced_axes
from ofa.graph.labels.store import Labels
from ofa.graph.name_patterns import joined_names
from ofa.graph.parts import ElasticParts
from ofa.graph.state import other_names
from ofa.graph.structure import GraphStructure, Group
from ofa.space.genes import Gene

# The roles of axes, in the order in which they answer for a module that stays.
_ROLES = ("outputs", "channels", "inputs")
# The order in the text.
_ORDER = ("outputs", "channels", "inputs", "kernel", "depth")


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


def module_reports(
    model: nn.Module,
    structure: GraphStructure,
    genes: Sequence[Gene],
    regions: Sequence[tuple[str, ElasticParts]],
    failures: Mapping[str, str],
    min_channels: int,
) -> list[ModuleReport]:
    """Return one report per module with parameters, in the order of the network.

    Args:
        model: the user's network.
        structure: what may vary.
        genes: genes of the space.
        regions: names of the captured modules, and what may vary in them, or stays, by names within them.
        failures: why other modules could not be captured, by name; empty for the whole network.
        min_channels: groups of fewer channels stay.
    """
    names = {gene.name for gene in genes}
    answers = {path: _RegionAnswers(path, parts, names, min_channels) for path, parts in regions}
    optional = _optional_blocks(structure, genes)
    same = other_names(model)
    return [_report(entry, _Context(answers, failures, same, optional, names)) for entry in _entries(model)]


def joined_lines(reports: Sequence[ModuleReport]) -> list[tuple[str, str]]:
    """Return pairs of a pattern of names and their answer; equal answers of similar names are one."""
    lines = joined_names([(report.name, report.answer) for report in reports])
    return [(f"{name} ({count})" if count > 1 else name, answer) for name, count, answer in lines]


@dataclass(frozen=True)
class _Entry:
    """A module that is no container, or a parameter of one, with its parameters."""

    name: str
    kind: str
    parameters: Mapping[str, Tensor]


def _entries(model: nn.Module) -> Iterator[_Entry]:
    for module_name, module in model.named_modules():
        prefix = f"{module_name}." if module_name else ""
        own = {f"{prefix}{n}": p for n, p in module.named_parameters(recurse=False)}
        if not own:
            continue
        if any(True for _ in module.children()) or not module_name:
            yield from (_Entry(name, "parameter", {name: parameter}) for name, parameter in own.items())
        else:
            yield _Entry(module_name, type(module).__name__, own)


def _optional_blocks(structure: GraphStructure, genes: Sequence[Gene]) -> dict[str, str]:
    """Return the depth gene of each block that may be left out."""
    smallest = {gene.name: int(gene.choices[0]) for gene in genes}
    return {
        block: f"depth:{chain.name}"
        for chain in structure.chains
        for block in chain.blocks[smallest.get(f"depth:{chain.name}", len(chain.blocks)) :]
    }


@dataclass(frozen=True)
class _Context:
    """What the reports of all modules have in common."""

    answers: Mapping[str, _RegionAnswers]
    failures: Mapping[str, str]
    other_names: Mapping[str, Sequence[str]]
    optional_blocks: Mapping[str, str]
    gene_names: Collection[str]

    def region_of(self, name: str) -> _RegionAnswers | None:
        paths = [path for path in self.answers if not path or name == path or name.startswith(f"{path}.")]
        return self.answers[paths[0]] if paths else None

    def axes_of(self, tensor: str) -> Iterator[tuple[str, _RegionAnswers, Labels]]:
        """Yield role, region and labels of the axes of a parameter that have any."""
        for name in (tensor, *self.other_names.get(tensor, ())):
            region = self.region_of(name)
            if region is not None and region.has(name):
                yield from ((role, region, axis) for role, axis in region.axes_of(name))
                return

    def reason_without_axes(self, name: str) -> str:
        """Return why a module stays of which no axis has a reason."""
        parents = [name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)]
        for parent in (*parents, ""):
            if parent in self.failures:
                return f"is in {parent or 'a network'}, which cannot be captured: {self.failures[parent]}"
        return "has no axis of channels"


def _report(entry: _Entry, context: _Context) -> ModuleReport:
    genes: dict[str, set[str]] = {}
    reasons: dict[str, list[str]] = {}
    for tensor in entry.parameters:
        for role, region, axis in context.axes_of(tensor):
            changing, staying = region.answer(axis)
            genes.setdefault(role, set()).update(changing)
            reasons.setdefault(role, []).extend(staying)
    if {"outputs", "inputs"} & set(genes):  # The other axis is that of a bias.
        genes.pop("channels", None)
        reasons.pop("channels", None)
    genes["kernel"] = {f"kernel_size:{entry.name}"} & set(context.gene_names)
    blocks = context.optional_blocks.items()
    genes["depth"] = {gene for block, gene in blocks if entry.name.startswith(f"{block}.")}
    fixed = {role: reasons[role][0] for role in _ROLES if reasons.get(role) and not genes.get(role)}
    if not fixed and not any(genes.values()):
        fixed = {"outputs": context.reason_without_axes(entry.name)}
    num_parameters = sum(parameter.numel() for parameter in entry.parameters.values())
    changed = {role: tuple(sorted(genes[role])) for role in _ORDER if genes.get(role)}
    return ModuleReport(entry.name, entry.kind, num_parameters, changed, fixed)


class _RegionAnswers:
    """Answers of a captured module, by names of the whole network."""

    def __init__(
        self, path: str, parts: ElasticParts, gene_names: Collection[str], min_channels: int
    ) -> None:
        self._prefix = f"{path}." if path else ""
        self._parts, self._gene_names, self._min_channels = parts, gene_names, min_channels
        labelled = parts.grouping.labelled
        self._axes, self._components = labelled.parameters, labelled.components
        self._all_groups = find_groups(labelled) if parts.reasons else parts.grouping
        self._roles = dict.fromkeys(consumed_axes(labelled), "inputs")
        self._roles |= dict.fromkeys(produced_axes(labelled), "outputs")

    def has(self, tensor: str) -> bool:
        return tensor.removeprefix(self._prefix) in self._axes

    def axes_of(self, tensor: str) -> Iterator[tuple[str, Labels]]:
        name = tensor.removeprefix(self._prefix)
        for number, axis in enumerate(self._axes[name]):
            if axis is not None:
                yield self._roles.get((name, number), "channels"), axis

    def answer(self, axis: Labels) -> tuple[set[str], list[str]]:
        """Return the genes that change an axis, and why other indices stay, the commonest first."""
        changing: set[str] = set()
        staying: Counter[str] = Counter()
        groups, indices = self._parts.groups, self._parts.grouping.group_indices
        for unit, count in Counter(self._components.of_label[axis].tolist()).items():
            group = groups[indices[unit]] if indices[unit] >= 0 else None
            gene = f"{group.kind}:{self._prefix}{group.part}" if group is not None else ""
            if gene in self._gene_names:
                changing.add(gene)
            else:
                staying[self._reason(unit, group)] += count
        return changing, [reason for reason, _ in staying.most_common()]

    def _reason(self, unit: int, group: Group | None) -> str:
        if group is not None:
            narrow = f"has fewer than {self._min_channels} channels"
            is_narrow = group.num_units * group.unit_size < self._min_channels
            return narrow if is_narrow else "has no smaller width among its choices"
        if (index := int(self._components.reason_of[unit])) >= 0:
            return self._components.reasons[index]
        former = int(self._all_groups.group_indices[unit])
        name = self._all_groups.groups[former].name if former >= 0 else ""
        return self._parts.reasons.get(name, "is a single unit")
