"""What a step trains: drawn from the seed and the step's number alone, equal on every rank and resume."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ofa.space.config import AnyConfig
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from ofa.training.phases import Phase


@dataclass(frozen=True)
class StepPlan:
    """Resolution of a step and the sub-networks trained in it, all at that resolution.

    Attributes:
        resolution: in pixels.
        configs: of the sub-networks.
        genomes: the same as genomes, shape (n, num_genes).
    """

    resolution: int
    configs: tuple[AnyConfig, ...]
    genomes: Genomes = field(compare=False)


def plan_step(space: SearchSpace, phase: Phase, seed: int, step: int) -> StepPlan:
    """Draw the resolution and the sub-networks of global step `step`.

    Args:
        space: restricted to what `phase` opens.
        phase: how many are drawn and how.
        seed: of the run.
        step: of the run.
    """
    counts = range(phase.subnets_per_step)
    draws = [space.sample(1, np.random.default_rng([seed, step, count])) for count in counts]
    genomes = np.concatenate(draws)
    column = space.gene_index["resolution"]
    resolution = genomes[0, column]
    if phase.sandwich:
        genomes[:2] = [space.genome(space.largest), space.genome(space.smallest)]
    genomes[:, column] = resolution
    configs = tuple(space.config(genome) for genome in genomes)
    return StepPlan(configs[0].resolution, configs, genomes)


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of dropout for one step of one process of a run with `seed`."""
    return int(np.random.default_rng([seed, step, rank]).integers(2**62))
