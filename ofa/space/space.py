"""`SearchSpace`: genes, their allowed choices, and the sub-networks that they encode."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Generic, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeVar

from ofa.common.display import short_text
from ofa.common.errors import UserError
from ofa.space.config import Config
from ofa.space.genes import GeneOperators, Genomes
from ofa.space.onehot import OneHot

C = TypeVar("C", bound=Config, default=Any)


@dataclass(frozen=True)
class SearchSpace(GeneOperators, Generic[C]):
    """The sub-networks of one supernet, as genes.

    `restriction` holds the allowed choice indices per gene. In a `compound` space, conditional genes
    follow their governors. A restricted space keeps the genes, genomes and fingerprint of the unrestricted
    one and only contains fewer networks, so predictors and tables of the unrestricted space remain valid.

    A subclass declares the genes, and converts their values to a config and back.

    Attributes:
        name: name of the space.
        restriction: allowed choice indices per gene; None for all.
        compound: whether conditional genes are set from the genes that switch them on.
    """

    name: str
    restriction: tuple[tuple[int, ...], ...] | None = field(default=None, kw_only=True)
    compound: bool = field(default=False, kw_only=True)

    def __hash__(self) -> int:
        """Return the cached hash of the compared values."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.fingerprint, self.restriction, self.compound))

    # -- declaration ------------------------------------------------------------------------------

    @abstractmethod
    def config_of(self, values: Mapping[str, float]) -> C:
        """Return the sub-network with these gene values, by name; values of inactive genes are ignored."""

    @abstractmethod
    def values_of(self, config: C) -> Mapping[str, float]:
        """Return the values of the active genes of `config`, by gene name.

        Raises:
            UserError: if `config` does not have the structure of this space's networks.
        """

    @abstractmethod
    def read(self, values: Mapping[str, Any]) -> C:
        """Build a config from its `to_dict` output; membership in the space is not checked.

        Raises:
            UserError: if `values` do not describe a config.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values of the unrestricted space; `ofa.common.config.build` is the inverse."""
        values = dataclasses.asdict(self)
        del values["restriction"], values["compound"]
        return values

    def identity(self) -> Mapping[str, Any]:
        """Return the plain values that are hashed into the fingerprint."""
        return identifying_values(self.unrestricted)

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the unrestricted space; artefacts of different fingerprints never mix."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    # -- restriction -------------------------------------------------------------------------------

    @cached_property
    def allowed(self) -> tuple[tuple[int, ...], ...]:
        """Allowed choice indices, per gene."""
        return self.restriction or tuple(tuple(range(len(gene.choices))) for gene in self.genes)

    @property
    def unrestricted(self) -> Self:
        """This space without its restriction."""
        return dataclasses.replace(self, restriction=None, compound=False)

    def restrict(
        self, choices: Mapping[str, Sequence[float] | None] | None = None, *, compound: bool = False
    ) -> Self:
        """Return this space restricted to some choices per kind of gene, or to compound networks.

        Args:
            choices: allowed values by kind of gene; None allows all.
            compound: whether conditional genes are set from the genes that switch them on.

        Raises:
            UserError: if no choice of a gene remains.
        """
        restriction = []
        for gene, allowed in zip(self.genes, self.allowed, strict=True):
            values = (choices or {}).get(gene.kind)
            restriction.append(tuple(i for i in allowed if values is None or gene.choices[i] in values))
            if not restriction[-1]:
                raise UserError(
                    f"No {gene.kind} is left of {_listed(gene.choices)} after restricting to {values}."
                )
        return dataclasses.replace(self, restriction=tuple(restriction), compound=compound or self.compound)

    def keep_largest(self, counts: Mapping[str, int | None]) -> Self:
        """Return this space restricted to the largest `counts[kind]` choices per kind of gene (None: all)."""
        pairs = zip(self.genes, self.allowed, strict=True)
        restriction = (allowed[-(counts.get(gene.kind) or len(allowed)) :] for gene, allowed in pairs)
        return dataclasses.replace(self, restriction=tuple(restriction))

    @property
    def only_largest(self) -> Self:
        """This space restricted to its largest network."""
        return self.keep_largest({gene.kind: 1 for gene in self.genes})

    @property
    def allowed_resolutions(self) -> tuple[int, ...]:
        """Input sizes in pixels that are allowed."""
        column = self.gene_index["resolution"]
        return tuple(int(self.genes[column].choices[index]) for index in self.allowed[column])

    # -- one network -------------------------------------------------------------------------------

    @property
    def largest(self) -> C:
        """The network with the largest allowed choice everywhere."""
        return self._network([allowed[-1] for allowed in self.allowed])

    @property
    def smallest(self) -> C:
        """The network with the smallest allowed choice everywhere."""
        return self._network([allowed[0] for allowed in self.allowed])

    @property
    def middle(self) -> C:
        """The network with the middle allowed choice everywhere."""
        return self._network([allowed[len(allowed) // 2] for allowed in self.allowed])

    def _network(self, row: Sequence[int]) -> C:
        return self.config(self.canonical(np.array([row], np.int8))[0])

    def config(self, genome: NDArray[np.integer[Any]]) -> C:
        """Return the network of one genome, shape (num_genes,)."""
        pairs = zip(self.genes, genome.tolist(), strict=True)
        return self.config_of({gene.name: gene.choices[index] for gene, index in pairs})

    def genome(self, config: C) -> Genomes:
        """Return the canonical genome of `config`, shape (num_genes,).

        Raises:
            UserError: naming the first gene of the config that is outside the (restricted) space.
        """
        genome = np.zeros(len(self.genes), np.int8)
        for name, value in self.values_of(config).items():
            column = self.gene_index[name]
            genome[column] = self._choice(column, value)
        unlike = np.flatnonzero(self.canonical(genome[None])[0] != genome)
        if len(unlike):
            gene, choice = self.genes[unlike[0]], genome[unlike[0]]
            raise UserError(
                f"{gene.name} is {gene.choices[choice]:g}; in this compound restriction of space "
                f"{self.name!r} it follows {gene.active_if.gene if gene.active_if else 'another gene'}."
            )
        return genome

    def _choice(self, column: int, value: float) -> int:
        gene = self.genes[column]
        choices = {gene.choices[i]: i for i in self.allowed[column]}
        if value not in choices:
            raise UserError(
                f"{gene.name} is {value:g}; space {self.name!r} has the choices {_listed(list(choices))}."
            )
        return choices[value]

    def contains(self, config: C) -> bool:
        """Return whether `config` is a network of this (restricted) space."""
        try:
            self.genome(config)
        except UserError:
            return False
        return True

    def genomes(self, configs: Sequence[C]) -> Genomes:
        """Return the canonical genomes of `configs`, shape (n, num_genes)."""
        if not configs:
            return np.zeros((0, len(self.genes)), np.int8)
        return np.stack([self.genome(config) for config in configs])

    # -- features ----------------------------------------------------------------------------------

    @cached_property
    def _features(self) -> OneHot:
        deciding = set(self.governors)
        return OneHot(self, [i for i in range(len(self.genes)) if i not in deciding], only_active=True)

    @property
    def num_features(self) -> int:
        """Width of `encode`'s rows."""
        return self._features.width

    def encode(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return one-hot features (n, num_features) of the active genes that switch no others on.

        Inactive genes stay zero, so e.g. a depth needs no features of its own (Cai et al. 2020, sec. 3.4).
        """
        return self._features(genomes)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def identifying_values(
    value: Any, always: Mapping[type, Sequence[str]] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the plain values that identify a dataclass, nested ones included.

    A field counts if it has no default or differs from its default. Optional fields that are added later
    therefore change no fingerprint, and existing files stay valid.

    Args:
        value: a frozen dataclass.
        always: field names, by class, that count even at their default.
    """
    names = {name for kind, fields in always.items() if isinstance(value, kind) for name in fields}
    pairs = ((entry, getattr(value, entry.name)) for entry in dataclasses.fields(value))
    return {
        entry.name: _plain(item, always)
        for entry, item in pairs
        if entry.name in names or item != entry.default
    }


def _plain(item: Any, always: Mapping[type, Sequence[str]]) -> Any:
    if isinstance(item, tuple):
        return [_plain(entry, always) for entry in item]
    return identifying_values(item, always) if dataclasses.is_dataclass(item) else item


def check_fingerprint(fingerprint: object, space: SearchSpace, what: str) -> None:
    """Raise the error for an artefact that was made for another space."""
    if fingerprint != space.fingerprint:
        raise UserError(
            f"The {what} was made for the space with fingerprint {short_text(fingerprint)}; this space, "
            f"{space.name!r}, has {space.fingerprint}. Use the same space (and number of classes and "
            "channels) for both."
        )
