"""`SearchSpace`: a declaration of stages and their choices, and what follows from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.common.errors import UserError
from ofa.space.genes import GENE_KINDS, Gene, GeneKey, GenePool, Genomes
from ofa.space.stages import StageSpec, StemSpec, check_choices
from ofa.space.subnet import SubnetConfig
from ofa.space.translate import check_structure, config_of, gene_values


@dataclass(frozen=True)
class SearchSpace:
    """A family of sub-networks of one supernet.

    `restriction` holds the allowed choice indices per gene, and in a `compound` space the choices of blocks
    follow their stage's depth; a restricted space has the genes, genomes and fingerprint of the whole one
    and only draws fewer networks, so that predictors and tables of the whole space serve it unchanged.

    Attributes:
        name: of the space.
        family: how the declaration becomes layers; see `ofa.architecture.lowering`.
        resolutions: input sizes in pixels.
        stem_channels: output channels of the stem before multipliers.
        stem_stride: stride of the first convolution.
        stages: elastic stages.
        head_channels: widths of the convolutions between stages and classifier; their number is the family's.
        width_multiplier: of all channels.
        num_classes: outputs.
        in_channels: channels of the images.
        bn_epsilon: of batch norm.
        first_block_channels: output of the block before the elastic stages; None: as the stem's.
        stem: elastic choices of the stem; None if it has none.
        restriction: allowed choice indices per gene; None for all.
        compound: whether kernel sizes and expand ratios follow the depth; see `ofa.space.genes.GenePool`.
    """

    name: str
    family: str
    resolutions: tuple[int, ...]
    stem_channels: int
    stem_stride: int
    stages: tuple[StageSpec, ...]
    head_channels: tuple[int, ...]
    width_multiplier: float = 1.0
    num_classes: int = 1000
    in_channels: int = 3
    bn_epsilon: float = 1e-5
    first_block_channels: int | None = None
    stem: StemSpec | None = None
    restriction: tuple[tuple[int, ...], ...] | None = None
    compound: bool = False

    def __post_init__(self) -> None:
        """Check the resolutions and the sizes that every family needs."""
        check_choices("resolutions", self.resolutions)
        if not self.stages:
            raise UserError("A space needs at least one stage.")
        if len({bool(stage.widths) for stage in self.stages}) > 1:
            raise UserError("Some stages have widths; expected them in every stage or in none.")
        for name in ("stem_channels", "stem_stride", "num_classes", "in_channels"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if self.first_block_channels is not None and self.first_block_channels < 1:
            raise UserError(f"first_block_channels is {self.first_block_channels}; expected at least 1.")
        if self.head_channels and min(self.head_channels) < 1:
            raise UserError(f"head_channels are {list(self.head_channels)}; expected at least 1.")
        if not self.width_multiplier > 0:
            raise UserError(f"width_multiplier is {self.width_multiplier}; expected a positive number.")
        for name in ("width_multiplier", "bn_epsilon"):
            object.__setattr__(self, name, float(getattr(self, name)))

    # -- what the space is -------------------------------------------------------------------------

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Return all genes: resolution, stem, then per stage width, depth and each block's choices."""
        genes = [Gene("resolution", self.resolutions)]
        if self.stem is not None:
            genes.append(Gene("stem_depth", self.stem.depths))
            genes.append(Gene("width", self.stem.inner_widths, block=0))
            genes.append(Gene("width", self.stem.widths, block=1))
        for s, stage in enumerate(self.stages):
            if stage.widths:
                genes.append(Gene("width", stage.widths, s))
            genes.append(Gene("depth", stage.depths, s))
            for b in range(stage.depths[-1]):
                genes.append(Gene("kernel_size", stage.kernel_sizes, s, b))
                genes.append(Gene("expand_ratio", stage.expand_ratios, s, b))
        return tuple(genes)

    @property
    def gene_index(self) -> dict[GeneKey, int]:
        """Column of the gene (kind, stage, block)."""
        return self._pool.index

    @cached_property
    def allowed(self) -> tuple[tuple[int, ...], ...]:
        """Choice indices that may be drawn, per gene."""
        return self.restriction or tuple(tuple(range(len(gene.choices))) for gene in self.genes)

    @cached_property
    def _pool(self) -> GenePool:
        return GenePool(self.genes, self.allowed, self.compound)

    @property
    def size(self) -> int:
        """Number of distinct sub-networks, all resolutions counted."""
        return self._pool.size

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values of the whole space; `ofa.common.config.build` is the inverse."""
        values = dataclasses.asdict(self)
        del values["restriction"], values["compound"]
        return values

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the whole space; artefacts of spaces with different fingerprints never mix.

        A field that is not in `_ALWAYS_HASHED` counts only where it differs from its default, so that files
        made before it was added stay valid.
        """
        text = json.dumps(_hashed_values(self.unrestricted), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    # -- restriction -------------------------------------------------------------------------------

    @property
    def unrestricted(self) -> SearchSpace:
        """This space without its restriction."""
        return dataclasses.replace(self, restriction=None, compound=False)

    def restrict(
        self,
        resolutions: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        kernel_sizes: Sequence[int] | None = None,
        expand_ratios: Sequence[float] | None = None,
        widths: Sequence[float] | None = None,
        stem_depths: Sequence[int] | None = None,
        compound: bool = False,
    ) -> SearchSpace:
        """Return this space with only the given choices, or compound networks; by default all that it has.

        Raises:
            UserError: if nothing of a gene's choices is left.
        """
        values = (resolutions, stem_depths, widths, depths, kernel_sizes, expand_ratios)
        wanted = dict(zip(GENE_KINDS, values, strict=True))
        restriction = []
        for gene, allowed in zip(self.genes, self.allowed, strict=True):
            kept = wanted[gene.kind]
            restriction.append(tuple(i for i in allowed if kept is None or gene.choices[i] in kept))
            if not restriction[-1]:
                raise UserError(
                    f"No {gene.kind} is left of {list(gene.choices)} after restricting to {kept}."
                )
        return dataclasses.replace(self, restriction=tuple(restriction), compound=compound or self.compound)

    def keep_largest(
        self,
        resolution: int | None = None,
        depth: int | None = None,
        kernel_size: int | None = None,
        expand_ratio: int | None = None,
        width: int | None = None,
        stem_depth: int | None = None,
    ) -> SearchSpace:
        """Return this space with only so many of the largest choices of each kind of gene (None: all)."""
        values = (resolution, stem_depth, width, depth, kernel_size, expand_ratio)
        counts = dict(zip(GENE_KINDS, values, strict=True))
        pairs = zip(self.genes, self.allowed, strict=True)
        restriction = (allowed[-(counts[gene.kind] or len(allowed)) :] for gene, allowed in pairs)
        return dataclasses.replace(self, restriction=tuple(restriction))

    # -- one network -------------------------------------------------------------------------------

    @property
    def largest(self) -> SubnetConfig:
        """The network with the largest allowed choice everywhere."""
        return self._network([allowed[-1] for allowed in self.allowed])

    @property
    def smallest(self) -> SubnetConfig:
        """The network with the smallest allowed choice everywhere."""
        return self._network([allowed[0] for allowed in self.allowed])

    @property
    def middle(self) -> SubnetConfig:
        """The network with the middle allowed choice everywhere."""
        return self._network([allowed[len(allowed) // 2] for allowed in self.allowed])

    def _network(self, row: Sequence[int]) -> SubnetConfig:
        return self.config(self.canonical(np.array([row], np.int8))[0])

    def config(self, genome: NDArray[np.integer[Any]]) -> SubnetConfig:
        """Return the network of one genome, shape (num_genes,)."""
        pairs = zip(self.genes, genome.tolist(), strict=True)
        return config_of({gene.key: gene.choices[index] for gene, index in pairs})

    def genome(self, config: SubnetConfig) -> Genomes:
        """Return the canonical genome of `config`, shape (num_genes,).

        Raises:
            UserError: naming the first field of the config that is outside the (restricted) space.
        """
        check_structure(config, self.stages, self.stem, self.name)
        genome = np.zeros(len(self.genes), np.int8)
        # A stage's depth comes before its blocks, so no block is asked for that the space does not have.
        for key, value in gene_values(config):
            column = self.gene_index[key]
            genome[column] = self._choice(column, value)
        strange = np.flatnonzero(self.canonical(genome[None])[0] != genome)
        if len(strange):
            gene, choice = self.genes[strange[0]], genome[strange[0]]
            raise UserError(
                f"{gene.kind}{gene.place} is {gene.choices[choice]:g}; in this compound restriction "
                f"of space {self.name!r} it follows the depth of its stage."
            )
        return genome

    def _choice(self, column: int, value: float) -> int:
        gene = self.genes[column]
        choices = {gene.choices[i]: i for i in self.allowed[column]}
        if value not in choices:
            raise UserError(
                f"{gene.kind}{gene.place} is {value:g}; space {self.name!r} has the choices "
                f"{', '.join(f'{choice:g}' for choice in choices)}."
            )
        return choices[value]

    def contains(self, config: SubnetConfig) -> bool:
        """Return whether `config` is a network of this (restricted) space."""
        try:
            self.genome(config)
        except UserError:
            return False
        return True

    def genomes(self, configs: Sequence[SubnetConfig]) -> Genomes:
        """Return the canonical genomes of `configs`, shape (n, num_genes)."""
        if not configs:
            return np.zeros((0, len(self.genes)), np.int8)
        return np.stack([self.genome(config) for config in configs])

    # -- populations (see `ofa.space.genes`) -------------------------------------------------------------

    def active(self, genomes: Genomes) -> NDArray[np.bool_]:
        """See `GenePool.active`."""
        return self._pool.active(genomes)

    def canonical(self, genomes: Genomes) -> Genomes:
        """See `GenePool.canonical`."""
        return self._pool.canonical(genomes)

    def sample(self, count: int, rng: np.random.Generator) -> Genomes:
        """See `GenePool.sample`."""
        return self._pool.sample(count, rng)

    def mutate(self, genomes: Genomes, rate: float, rng: np.random.Generator) -> Genomes:
        """See `GenePool.mutate`."""
        return self._pool.mutate(genomes, rate, rng)

    def crossover(self, first: Genomes, second: Genomes, rng: np.random.Generator) -> Genomes:
        """See `GenePool.crossover`."""
        return self._pool.crossover(first, second, rng)

    def all_genomes(self) -> Genomes:
        """Return the genome of every network, shape (size, num_genes); for small spaces."""
        return self._pool.all_genomes()

    @property
    def num_features(self) -> int:
        """Width of `encode`'s rows."""
        return self._pool.num_features

    def encode(self, genomes: Genomes) -> NDArray[np.float32]:
        """See `GenePool.encode`."""
        return self._pool.encode(genomes)


# The fields of the first fingerprints. Never add a name: see `SearchSpace.fingerprint`.
_ALWAYS_HASHED: dict[type, frozenset[str]] = {
    SearchSpace: frozenset(
        (
            *("name", "family", "resolutions", "stages", "head_channels", "stem"),
            *("stem_channels", "stem_stride", "first_block_channels", "width_multiplier"),
            *("num_classes", "in_channels", "bn_epsilon"),
        )
    ),
    StageSpec: frozenset(
        (
            *("channels", "stride", "depths", "kernel_sizes", "expand_ratios", "widths"),
            *("activation", "squeeze_excite"),
        )
    ),
    StemSpec: frozenset(("depths", "inner_widths", "widths")),
}


def _hashed_values(value: Any) -> Any:
    """Return the plain values of a space, or of what it consists of, that its fingerprint is made of."""
    if isinstance(value, tuple):
        return [_hashed_values(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    always = next(names for kind, names in _ALWAYS_HASHED.items() if isinstance(value, kind))
    pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {
        field.name: _hashed_values(item)
        for field, item in pairs
        if field.name in always or item != field.default
    }


def check_fingerprint(found: object, space: SearchSpace, what: str) -> None:
    """Raise the error for an artefact that belongs to another space."""
    if found != space.fingerprint:
        raise UserError(
            f"The {what} was made for the space with fingerprint {found}; this space, {space.name!r}, has "
            f"{space.fingerprint}. Use the same space (and number of classes and channels) for both."
        )
