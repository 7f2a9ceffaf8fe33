"""`GraphSpace`: the sub-networks of a user's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ofa.architecture.cost import space_costs
from ofa.common.errors import UserError
from ofa.graph.costs import Population, peak_elements
from ofa.graph.selection import Selection
from ofa.graph.structure import GraphStructure
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.plain import GeneConfig, GeneSpace
from ofa.space.space import SearchSpace
from ofa.space.staged import StagedSpace


@dataclass(frozen=True)
class GraphSpace(GeneSpace):
    """A space whose genes are the widths, kernel sizes and depths of a user's model, and its resolution.

    Attributes:
        structure: what the genes act on.
        in_channels: channels of the images that the network takes; 0 where it takes something else.
        num_classes: classes that it tells; 0 where it tells something else.
    """

    structure: GraphStructure
    in_channels: int = 0
    num_classes: int = 0

    __hash__ = SearchSpace.__hash__

    def selection(self, config: GeneConfig) -> Selection:
        """Return what a network of the space keeps; parts without a gene are whole."""
        values = dict(config.values)
        counts = tuple(int(values.get(group.gene, group.num_units)) for group in self.structure.groups)
        skipped = [
            block
            for chain in self.structure.chains
            for block in chain.blocks[int(values.get(f"depth:{chain.name}", len(chain.blocks))) :]
        ]
        kernels = {
            kernel.weight: int(values.get(f"kernel_size:{kernel.name}", kernel.side))
            for kernel in self.structure.kernels
        }
        return Selection(counts, kernels, frozenset(skipped))

    def keeps_class(self, config: GeneConfig) -> bool:
        """Return whether a network of the space is of the user's own class, rather than a graph module."""
        bound = set(self.structure.bound_groups)
        groups = zip(self.structure.groups, self.selection(config).counts, strict=True)
        return all(count == group.num_units for group, count in groups if group.name in bound)

    def allowed_values(self, gene: str) -> tuple[float, ...]:
        """Return the allowed values of a gene; empty if there is no such gene."""
        column = self.gene_index.get(gene)
        if column is None:
            return ()
        return tuple(self.genes[column].choices[index] for index in self.allowed[column])

    def population(self, genomes: Genomes) -> Population:
        """Return what networks keep, as arrays; genomes have shape (n, num_genes)."""
        structure = self.structure

        def values(name: str, full: int) -> NDArray[np.float64]:
            column = self.gene_index.get(name)
            if column is None:
                return np.full(len(genomes), float(full))
            return np.array(self.genes[column].choices)[genomes[:, column]]

        counts = [values(group.gene, group.num_units) for group in structure.groups]
        kernels = {k.weight: values(f"kernel_size:{k.name}", k.side) for k in structure.kernels}
        has_block: dict[str, NDArray[np.float64]] = {}
        for chain in structure.chains:
            depths = values(f"depth:{chain.name}", len(chain.blocks))
            has_block |= {
                block: (depths > index).astype(np.float64) for index, block in enumerate(chain.blocks)
            }
        matrix = np.stack(counts, axis=1) if counts else np.zeros((len(genomes), 0))
        resolutions = genomes[:, self.gene_index["resolution"]].astype(np.int64)
        return Population(resolutions, matrix, kernels, has_block)

    @cached_property
    def kernel_sides(self) -> Mapping[str, tuple[int, ...]]:
        """Sides that the kernel of each weight may have, descending; those with one side are left out."""
        sides = {gene.name: gene.choices for gene in self.genes if gene.kind == "kernel_size"}
        return {
            kernel.weight: tuple(sorted(map(int, sides[f"kernel_size:{kernel.name}"]), reverse=True))
            for kernel in self.structure.kernels
            if f"kernel_size:{kernel.name}" in sides
        }


ImageSpace: TypeAlias = StagedSpace | GraphSpace
"""A space of networks that map images to logits."""


def family_space(space: ImageSpace, owner: str) -> StagedSpace:
    """Return the space of a published family, for what exists for families alone.

    Args:
        space: any space.
        owner: what has the space, for the error, e.g. "Run 'mine'".

    Raises:
        UserError: for the space of a user's model.
    """
    if isinstance(space, StagedSpace):
        return space
    raise UserError(f"{owner} is of the model {space.name!r}; expected one of a published family.")


@space_costs.register
def _graph_costs(space: GraphSpace) -> Mapping[str, Estimator]:
    costs = space.structure.costs

    def total(genomes: Genomes, name: str) -> NDArray[np.float64]:
        products: Any = getattr(costs, name)
        return np.asarray(space.population(genomes).values(products).sum(axis=1))

    def peak(genomes: Genomes) -> NDArray[np.float64]:
        return 4 * peak_elements(costs, space.population(genomes))

    known = {"macs": partial(total, name="macs"), "parameters": partial(total, name="parameters")}
    # The activations of a network that could not be captured as a whole are unknown.
    return known | ({"peak_activation_bytes": peak} if costs.storages else {})
