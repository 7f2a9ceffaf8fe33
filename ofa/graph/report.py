"""`ConversionReport`: what of a user's network varies, what stays and why, and what that gives."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ofa.architecture.cost import space_costs
from ofa.common.errors import UserError, unknown_name
from ofa.graph.module_report import ModuleReport, module_reports
from ofa.graph.parts import ElasticParts
from ofa.graph.space import GraphSpace

COSTS = {"macs": "M MACs", "parameters": "M parameters", "peak_activation_bytes": "MB of activations"}
"""Costs of a network, each with its unit in millions."""


def amount(cost: str, value: float) -> str:
    """Return the value of a cost with its unit, e.g. "12.3 M MACs"."""
    return f"{in_millions(value, 4)} {COSTS[cost]}"


def in_millions(value: float, digits: int = 3) -> str:
    """Return a number in millions, with so many digits or more."""
    millions = value / 1e6
    return f"{millions:,.0f}" if millions >= 1000 else f"{millions:.{digits}g}"


@dataclass(frozen=True)
class GeneReport:
    """One gene.

    Attributes:
        name: name of the gene.
        kind: what it changes: "resolution", "depth", "width", "rank" or "kernel_size".
        part: the part of the network that it acts on; empty for the resolution.
        choices: its values: pixels, blocks or units.
        unit: what a value counts, e.g. "channels" or "units of 64 channels".
    """

    name: str
    kind: str
    part: str
    choices: tuple[int, ...]
    unit: str


@dataclass(frozen=True)
class LimitReport:
    """Whether a network of the space keeps an upper bound.

    Attributes:
        cost: name of the cost, e.g. "macs".
        limit: the upper bound.
        smallest: the smallest reachable value.
    """

    cost: str
    limit: float
    smallest: float

    @property
    def is_reachable(self) -> bool:
        """Whether a network keeps the bound."""
        return self.smallest <= self.limit


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion made of a user's network, as plain values.

    Attributes:
        name: name of the space.
        model_class: class of the network.
        modules: what varies in each module with parameters, and why others stay.
        genes: all genes.
        fixed_parts: why kernels, chains of blocks and groups stay, by the name of the part.
        log10_networks: decimal logarithm of the number of sub-networks.
        macs_share: share of the largest network's multiply-accumulates in operators that some gene changes.
        costs: MACs, parameters and peak memory in bytes of the smallest, middle and largest network, for one
            image, by the name of the network and the cost.
        bound_parts: names of the parts that only the captured graph can vary, because the network's own
            forward has their sizes written into it.
        has_free_batch: whether the graph, where it is used, runs with any batch size.
        captured_modules: modules that were captured on their own; empty where the whole network was.
        failures: why modules could not be captured, by name; empty for the whole network.
        unknown_operators: operators without a rule and where they are used first; what they touch stays.
        limits: whether given limits can be reached.
    """

    name: str
    model_class: str
    modules: tuple[ModuleReport, ...]
    genes: tuple[GeneReport, ...]
    fixed_parts: Mapping[str, str]
    log10_networks: float
    macs_share: float
    costs: Mapping[str, Mapping[str, float]]
    bound_parts: tuple[str, ...] = ()
    has_free_batch: bool = True
    captured_modules: tuple[str, ...] = ()
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unknown_operators: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limits: tuple[LimitReport, ...] = ()

    def with_limits(self, limits: Mapping[str, float]) -> ConversionReport:
        """Return the report that answers whether limits can be reached.

        Args:
            limits: upper bounds by cost: "macs", "parameters" or "peak_activation_bytes" of one image.

        Raises:
            UserError: for an unknown cost.
        """
        for cost in limits:
            if cost not in COSTS:
                raise unknown_name("limit", cost, COSTS)
            if cost not in self.costs["smallest"]:
                raise UserError(f"The {cost} of {self.name} are unknown; leave this limit out.")
        smallest = self.costs["smallest"]
        answers = (LimitReport(cost, float(limit), smallest[cost]) for cost, limit in limits.items())
        return dataclasses.replace(self, limits=tuple(answers))

    def check_limits(self) -> None:
        """Raise for limits that no network of the space keeps.

        Raises:
            UserError: naming the smallest reachable values.
        """
        texts = [
            f"No sub-network has at most {amount(limit.cost, limit.limit)}; the smallest has "
            f"{amount(limit.cost, limit.smallest)}: allow smaller widths or fewer blocks."
            for limit in self.limits
            if not limit.is_reachable
        ]
        if texts:
            raise UserError("\n".join(texts))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = dataclasses.asdict(self)
        for entry, module in zip(values["modules"], self.modules, strict=True):
            entry["is_elastic"] = module.is_elastic
        for entry, limit in zip(values["limits"], self.limits, strict=True):
            entry["is_reachable"] = limit.is_reachable
        return values


def conversion_report(
    model: nn.Module,
    space: GraphSpace,
    regions: Sequence[tuple[str, ElasticParts]],
    failures: Mapping[str, str],
    min_channels: int,
) -> ConversionReport:
    """Return the report of a conversion.

    Args:
        model: the user's network.
        space: the space that was made of it.
        regions: names of the captured modules, and what may vary in them, or stays, by names within them.
        failures: why other modules could not be captured, by name; empty for the whole network.
        min_channels: groups of fewer channels stay.
    """
    space = space.unrestricted
    structure = space.structure
    networks = {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}
    genomes = np.stack([space.genome(config) for config in networks.values()])
    columns = {name: estimator(genomes).tolist() for name, estimator in space_costs(space).items()}
    modules = tuple(module_reports(model, structure, space.genes, regions, failures, min_channels))
    names = {module.name for module in modules}
    reasons = {_within(path, part): why for path, parts in regions for part, why in parts.reasons.items()}
    operators = [parts.grouping.labelled.unknown_operators for _, parts in regions]
    return ConversionReport(
        name=space.name,
        model_class=type(model).__name__,
        modules=modules,
        genes=_gene_reports(space),
        # Where a module answers for itself, its group is not repeated.
        fixed_parts={name: reason for name, reason in reasons.items() if name not in names},
        log10_networks=math.log10(space.size),
        macs_share=elastic_macs_share(space),
        costs={
            network: {name: values[row] for name, values in columns.items()}
            for row, network in enumerate(networks)
        },
        bound_parts=structure.bound_groups,
        has_free_batch=not structure.bound_groups or regions[0][1].capture.has_free_batch,
        captured_modules=tuple(path for path, _ in regions if path),
        failures=dict(failures),
        unknown_operators={name: place for found in operators for name, place in found.items()},
    )


def _within(path: str, part: str) -> str:
    """Return the name in the whole network of a part of module `path`: a group, kernel or chain."""
    kind, separator, name = part.rpartition(" of ")
    return f"{kind}{separator}{path}.{name}" if path else part


def elastic_macs_share(space: GraphSpace) -> float:
    """Return the share of the largest network's multiply-accumulates in operators that some gene changes."""
    structure = space.structure
    genes = set(space.gene_index)
    elastic_groups = {index for index, group in enumerate(structure.groups) if group.gene in genes}
    elastic_kernels = {k.weight for k in structure.kernels if f"kernel_size:{k.name}" in genes}
    optional_blocks = {
        block
        for chain in structure.chains
        if (column := space.gene_index.get(f"depth:{chain.name}")) is not None
        for block in chain.blocks[int(space.genes[column].choices[0]) :]
    }
    products = structure.costs.macs
    genome = space.genome(space.unrestricted.largest)[None]
    values = space.population(genome).values(products)[0]
    is_elastic = [
        product.kernel in elastic_kernels
        or product.block in optional_blocks
        or any(group in elastic_groups for form in product.forms for group, _ in form.terms)
        for product in products
    ]
    total = float(values.sum())
    return float(values[np.array(is_elastic, bool)].sum()) / total if total else 0.0


def _gene_reports(space: GraphSpace) -> tuple[GeneReport, ...]:
    units = {group.gene: group.unit_size for group in space.structure.groups}
    names = {"resolution": "pixels", "depth": "blocks", "kernel_size": "pixels"}

    def unit(name: str, kind: str) -> str:
        size = units.get(name, 1)
        return names.get(kind) or ("channels" if size == 1 else f"units of {size} channels")

    return tuple(
        GeneReport(
            gene.name,
            gene.kind,
            "" if gene.kind == "resolution" else gene.part,
            tuple(map(int, gene.choices)),
            unit(gene.name, gene.kind),
        )
        for gene in space.genes
    )
