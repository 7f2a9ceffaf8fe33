"""`GeneSpace`: a space declared by its genes alone, and `GeneConfig`: their values."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from typing_extensions import override

from ofa.common.errors import UserError
from ofa.space.genes import Condition, Gene
from ofa.space.space import SearchSpace


@dataclass(frozen=True)
class GeneConfig:
    """One sub-network: the values of its active genes, in the order of the genes.

    Attributes:
        values: pairs (gene name, value), including "resolution".
    """

    values: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        """Convert all values to float, so that 4 and 4.0 are one network."""
        object.__setattr__(self, "values", tuple((name, float(value)) for name, value in self.values))

    @property
    def resolution(self) -> int:
        """Side of the input in pixels."""
        return int(dict(self.values)["resolution"])

    @property
    def facts(self) -> Mapping[str, int]:
        """Numbers for tables: the active genes."""
        return {"genes": len(self.values)}

    @property
    def lines(self) -> tuple[str, ...]:
        """The network in words: a line per gene."""
        return tuple(f"{name} {value:g}" for name, value in self.values)

    @property
    def legend(self) -> str:
        """What the numbers in `lines` are: these say it themselves."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `GeneSpace.read` is the inverse."""
        return dict(self.values)

    @cached_property
    def id(self) -> str:
        """Short name of the network, stable across processes and versions."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def __str__(self) -> str:
        """Return a readable one-line form."""
        return " ".join(f"{name}={value:g}" for name, value in self.values)


def _in_floats(gene: Gene) -> Gene:
    condition = gene.active_if
    if condition is not None:
        condition = Condition(condition.gene, tuple(map(float, condition.values)))
    return dataclasses.replace(gene, choices=tuple(map(float, gene.choices)), active_if=condition)


@dataclass(frozen=True)
class GeneSpace(SearchSpace[GeneConfig]):
    """A space of given genes, of which one is "resolution", the side of the input in pixels.

    Attributes:
        declared: genes, in the order of a genome's columns.
    """

    declared: tuple[Gene, ...]

    __hash__ = SearchSpace.__hash__

    def __post_init__(self) -> None:
        """Check names and choices, and convert choices to float: equal spaces have equal fingerprints."""
        object.__setattr__(self, "declared", tuple(map(_in_floats, self.declared)))
        names = [gene.name for gene in self.declared]
        if len(set(names)) < len(names) or "resolution" not in names:
            raise UserError(f"The genes are {', '.join(names)}; expected distinct names with resolution.")
        for gene in self.declared:
            if not gene.choices or list(gene.choices) != sorted(set(gene.choices)):
                choices = ", ".join(f"{choice:g}" for choice in gene.choices) or "none"
                raise UserError(
                    f"The choices of gene {gene.name} are {choices}; expected distinct numbers, ascending."
                )
        _ = self.governors  # which checks the conditions

    @property
    @override
    def genes(self) -> tuple[Gene, ...]:
        return self.declared

    @override
    def config_of(self, values: Mapping[str, float]) -> GeneConfig:
        conditions = {gene.name: gene.active_if for gene in self.genes}
        return GeneConfig(
            tuple(
                (name, values[name])
                for name, condition in conditions.items()
                if condition is None or values[condition.gene] in condition.values
            )
        )

    @override
    def values_of(self, config: GeneConfig) -> Mapping[str, float]:
        unknown = sorted(name for name, _ in config.values if name not in self.gene_index)
        expected = {name for name, _ in self.config_of({**self._first_values, **dict(config.values)}).values}
        if unknown or {name for name, _ in config.values} != expected:
            raise UserError(
                f"The sub-network has values of {', '.join(name for name, _ in config.values)}; in space "
                f"{self.name!r} it has those of {', '.join(sorted(expected))}."
            )
        return dict(config.values)

    @cached_property
    def _first_values(self) -> dict[str, float]:
        return {gene.name: gene.choices[0] for gene in self.genes}

    @override
    def read(self, values: Mapping[str, Any]) -> GeneConfig:
        wrong_names = [name for name, value in values.items() if not isinstance(value, int | float)]
        if wrong_names or "resolution" not in values:
            raise UserError(
                f"A sub-network is {dict(values)!r}; expected a number for each gene, resolution among them."
            )
        pairs = sorted(values.items(), key=lambda pair: self.gene_index.get(pair[0], len(self.genes)))
        return GeneConfig(tuple(pairs))
