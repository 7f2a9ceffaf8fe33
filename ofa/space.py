"""`SearchSpace`: stages and their choices, the genes they give, and operations on whole populations.

A *genome* is an int8 row of choice indices, one per gene, canonical when the genes of inactive blocks
are 0. A population is one array of shape (n, num_genes).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.errors import UserError
from ofa.subnet import BlockConfig, SubnetConfig

Genomes = NDArray[np.int8]
GENE_KINDS = ("resolution", "depth", "kernel_size", "expand_ratio")


@dataclass(frozen=True)
class StageSpec:
    """One stage: blocks of equal width whose number, kernels and expand ratios are elastic."""

    channels: int
    stride: int
    depths: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[float, ...]
    activation: str
    squeeze_excite: bool

    def __post_init__(self) -> None:
        """Check that every list of choices is ascending, distinct and positive."""
        for name in ("depths", "kernel_sizes", "expand_ratios"):
            _check_choices(name, getattr(self, name))
        if any(kernel % 2 == 0 for kernel in self.kernel_sizes):
            raise UserError(f"kernel_sizes are {list(self.kernel_sizes)}; expected odd numbers.")
        if self.activation not in ("relu", "hard_swish"):
            raise UserError(f"activation is {self.activation!r}; expected relu or hard_swish.")
        if self.channels < 1 or self.stride < 1:
            raise UserError("channels and stride of a stage must be at least 1.")
        # 3 and 3.0 are one space: equal spaces have equal fingerprints.
        object.__setattr__(self, "expand_ratios", tuple(map(float, self.expand_ratios)))


@dataclass(frozen=True)
class Gene:
    """One elastic decision: its kind, where it acts, and its choices in ascending order."""

    kind: str
    choices: tuple[float, ...]
    stage: int = -1
    block: int = -1


@dataclass(frozen=True)
class SearchSpace:
    """A family of sub-networks of one supernet.

    `restriction` holds the allowed choice indices per gene; a restricted space has the genes, genomes and
    fingerprint of the whole one and only draws from fewer choices, so that predictors and tables of the
    whole space serve it unchanged.
    """

    name: str
    family: str
    resolutions: tuple[int, ...]
    stem_channels: int
    stem_stride: int
    stages: tuple[StageSpec, ...]
    head_channels: tuple[int, int]
    width_multiplier: float = 1.0
    num_classes: int = 1000
    in_channels: int = 3
    bn_epsilon: float = 1e-5
    restriction: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        """Check the resolutions and the sizes that every family needs."""
        _check_choices("resolutions", self.resolutions)
        if not self.stages:
            raise UserError("A space needs at least one stage.")
        for name in ("stem_channels", "stem_stride", "num_classes", "in_channels"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if not self.width_multiplier > 0:
            raise UserError(f"width_multiplier is {self.width_multiplier}; expected a positive number.")
        for name in ("width_multiplier", "bn_epsilon"):
            object.__setattr__(self, name, float(getattr(self, name)))

    # -- what the space is -------------------------------------------------------------------------

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Return all genes: resolution, then per stage its depth and each block's kernel and ratio."""
        genes = [Gene("resolution", self.resolutions)]
        for s, stage in enumerate(self.stages):
            genes.append(Gene("depth", stage.depths, s))
            for b in range(stage.depths[-1]):
                genes.append(Gene("kernel_size", stage.kernel_sizes, s, b))
                genes.append(Gene("expand_ratio", stage.expand_ratios, s, b))
        return tuple(genes)

    @cached_property
    def gene_index(self) -> dict[tuple[str, int, int], int]:
        """Column of the gene (kind, stage, block)."""
        return {(gene.kind, gene.stage, gene.block): i for i, gene in enumerate(self.genes)}

    @cached_property
    def allowed(self) -> tuple[tuple[int, ...], ...]:
        """Choice indices that may be drawn, per gene."""
        return self.restriction or tuple(tuple(range(len(gene.choices))) for gene in self.genes)

    @property
    def size(self) -> int:
        """Number of distinct sub-networks, all resolutions counted."""
        total = len(self.allowed[0])
        for s, stage in enumerate(self.stages):
            depth_gene = self.gene_index["depth", s, -1]
            per_depth = 0
            for depth in (stage.depths[i] for i in self.allowed[depth_gene]):
                block_genes = range(depth_gene + 1, depth_gene + 1 + 2 * depth)
                per_depth += math.prod(len(self.allowed[g]) for g in block_genes)
            total *= per_depth
        return total

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values of the whole space; `ofa.config.build` is the inverse."""
        values = dataclasses.asdict(self)
        del values["restriction"]
        return values

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the whole space; artefacts of spaces with different fingerprints never mix."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def whole(self) -> SearchSpace:
        """This space without its restriction."""
        return dataclasses.replace(self, restriction=None)

    def restrict(
        self,
        resolutions: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        kernel_sizes: Sequence[int] | None = None,
        expand_ratios: Sequence[float] | None = None,
    ) -> SearchSpace:
        """Return this space with only the given choices; None leaves a kind as it is.

        Raises:
            UserError: if nothing of a gene's choices is left.
        """
        wanted = dict(zip(GENE_KINDS, (resolutions, depths, kernel_sizes, expand_ratios), strict=True))
        restriction = []
        for gene, allowed in zip(self.genes, self.allowed, strict=True):
            values = wanted[gene.kind]
            kept = tuple(i for i in allowed if values is None or gene.choices[i] in values)
            if not kept:
                raise UserError(
                    f"No {gene.kind} is left of {list(gene.choices)} after restricting to {values}."
                )
            restriction.append(kept)
        return dataclasses.replace(self, restriction=tuple(restriction))

    def largest_choices(self, **counts: int | None) -> SearchSpace:
        """Return this space with only the `counts[kind]` largest choices of each kind of gene (None: all)."""
        for kind in set(counts) - set(GENE_KINDS):
            raise UserError(f"Unknown kind of gene {kind!r}; known: {', '.join(GENE_KINDS)}.")
        restriction = []
        for gene, allowed in zip(self.genes, self.allowed, strict=True):
            count = counts.get(gene.kind)
            restriction.append(allowed if count is None else allowed[-count:])
        return dataclasses.replace(self, restriction=tuple(restriction))

    # -- one network -------------------------------------------------------------------------------

    @property
    def largest(self) -> SubnetConfig:
        """The network with the largest allowed choice everywhere."""
        return self.config(np.array([allowed[-1] for allowed in self.allowed], np.int8))

    @property
    def smallest(self) -> SubnetConfig:
        """The network with the smallest allowed choice everywhere."""
        return self.config(np.array([allowed[0] for allowed in self.allowed], np.int8))

    @property
    def middle(self) -> SubnetConfig:
        """The network with the middle allowed choice everywhere."""
        return self.config(np.array([allowed[len(allowed) // 2] for allowed in self.allowed], np.int8))

    def config(self, genome: NDArray[np.integer[Any]]) -> SubnetConfig:
        """Return the network of one genome, shape (num_genes,)."""
        values = [gene.choices[index] for gene, index in zip(self.genes, genome.tolist(), strict=True)]
        stages = []
        for s in range(len(self.stages)):
            first = self.gene_index["depth", s, -1]
            depth = int(values[first])
            blocks = (
                BlockConfig(int(values[first + 1 + 2 * b]), values[first + 2 + 2 * b]) for b in range(depth)
            )
            stages.append(tuple(blocks))
        return SubnetConfig(int(values[0]), tuple(stages))

    def genome(self, config: SubnetConfig) -> Genomes:
        """Return the canonical genome of `config`, shape (num_genes,).

        Raises:
            UserError: naming the first field of the config that is outside the (restricted) space.
        """
        if len(config.stages) != len(self.stages):
            raise UserError(
                f"The sub-network has {len(config.stages)} stages; "
                f"space {self.name!r} has {len(self.stages)}."
            )
        genome = np.zeros(len(self.genes), np.int8)
        genome[0] = self._choice(0, config.resolution)
        for s, blocks in enumerate(config.stages):
            first = self.gene_index["depth", s, -1]
            genome[first] = self._choice(first, len(blocks))
            for b, block in enumerate(blocks):
                genome[first + 1 + 2 * b] = self._choice(first + 1 + 2 * b, block.kernel_size)
                genome[first + 2 + 2 * b] = self._choice(first + 2 + 2 * b, block.expand_ratio)
        return genome

    def _choice(self, index: int, value: float) -> int:
        gene = self.genes[index]
        choices = {gene.choices[i]: i for i in self.allowed[index]}
        if value not in choices:
            place = "" if gene.stage < 0 else f" of stage {gene.stage}"
            place += "" if gene.block < 0 else f", block {gene.block}"
            raise UserError(
                f"{gene.kind}{place} is {value:g}; space {self.name!r} has the choices "
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

    # -- populations -------------------------------------------------------------------------------

    @cached_property
    def _activity(self) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Per gene: the column of the depth gene that governs it, and the first active choice index."""
        column = np.zeros(len(self.genes), np.intp)
        needed = np.zeros(len(self.genes), np.int64)
        for i, gene in enumerate(self.genes):
            if gene.block >= 0:
                column[i] = self.gene_index["depth", gene.stage, -1]
                needed[i] = sum(depth <= gene.block for depth in self.stages[gene.stage].depths)
        return column, needed

    def active(self, genomes: Genomes) -> NDArray[np.bool_]:
        """Return which genes matter, shape (n, num_genes): those of blocks inside their stage's depth."""
        column, needed = self._activity
        return np.asarray(genomes[:, column] >= needed)

    def canonical(self, genomes: Genomes) -> Genomes:
        """Return the genomes with the genes of inactive blocks set to 0."""
        return np.where(self.active(genomes), genomes, np.int8(0)).astype(np.int8, copy=False)

    def genomes(self, configs: Sequence[SubnetConfig]) -> Genomes:
        """Return the canonical genomes of `configs`, shape (n, num_genes)."""
        if not configs:
            return np.zeros((0, len(self.genes)), np.int8)
        return np.stack([self.genome(config) for config in configs])

    def sample(self, count: int, rng: np.random.Generator) -> Genomes:
        """Return `count` random canonical genomes; each gene is drawn uniformly."""
        return self.canonical(self._draw(count, rng))

    @cached_property
    def _allowed_table(self) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        counts = np.array([len(allowed) for allowed in self.allowed])
        table = np.zeros((len(self.genes), counts.max()), np.int8)
        for i, allowed in enumerate(self.allowed):
            table[i, : len(allowed)] = allowed
        return table, counts

    def _draw(self, count: int, rng: np.random.Generator) -> Genomes:
        table, counts = self._allowed_table
        picks = (rng.random((count, len(self.genes))) * counts).astype(np.intp)
        return np.asarray(table[np.arange(len(self.genes)), picks])

    def mutate(self, genomes: Genomes, rate: float, rng: np.random.Generator) -> Genomes:
        """Return children in which each gene is redrawn with probability `rate`.

        Genes of blocks that a deeper child activates are drawn afresh.
        """
        fresh = self._draw(len(genomes), rng)
        redrawn = (rng.random(genomes.shape) < rate) | ~self.active(genomes)
        return self.canonical(np.where(redrawn, fresh, genomes))

    def crossover(self, first: Genomes, second: Genomes, rng: np.random.Generator) -> Genomes:
        """Return children that take each gene from either parent row with equal chance.

        A gene that is inactive in one parent comes from the other.
        """
        from_first = rng.random(first.shape) < 0.5
        active_first, active_second = self.active(first), self.active(second)
        from_first = np.where(active_first == active_second, from_first, active_first)
        return self.canonical(np.where(from_first, first, second))

    @cached_property
    def _encoding(self) -> tuple[NDArray[np.intp], NDArray[np.int64], int]:
        """Columns that are encoded, the first feature of each, and the number of features."""
        columns = [i for i, gene in enumerate(self.genes) if gene.kind != "depth"]
        widths = [len(self.genes[i].choices) for i in columns]
        offsets = np.concatenate([[0], np.cumsum(widths)])
        return np.array(columns, np.intp), offsets[:-1], int(offsets[-1])

    @property
    def num_features(self) -> int:
        """Width of `encode`'s rows."""
        return self._encoding[2]

    def encode(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return one-hot features, shape (n, num_features): resolution and each active block's choices.

        Rows of inactive blocks stay zero, so depth needs no feature of its own (Cai et al. 2020, sec. 3.4).
        """
        columns, offsets, width = self._encoding
        features = np.zeros((len(genomes), width), np.float32)
        rows, picked = np.nonzero(self.active(genomes)[:, columns])
        features[rows, offsets[picked] + genomes[rows, columns[picked]]] = 1.0
        return features


def unique_rows(genomes: Genomes) -> NDArray[np.intp]:
    """Return the indices of the first occurrence of each distinct row, in order."""
    keys = np.ascontiguousarray(genomes).view(np.dtype((np.void, genomes.shape[1]))).ravel()
    _, first = np.unique(keys, return_index=True)
    return np.sort(first)


def _check_choices(name: str, choices: tuple[float, ...]) -> None:
    if not choices or min(choices) <= 0 or list(choices) != sorted(set(choices)):
        raise UserError(f"{name} are {list(choices)}; expected distinct positive numbers in ascending order.")
