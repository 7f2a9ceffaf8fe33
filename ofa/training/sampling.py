"""The networks of a step, drawn from seed and step alone: equal on every rank and after a resume."""

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
        resolution: side of the images in pixels.
        configs: sub-networks of the step.
        genomes: genomes of `configs`, shape (n, num_genes).
    """

    resolution: int
    configs: tuple[AnyConfig, ...]
    genomes: Genomes = field(compare=False)


def plan_step(space: SearchSpace, phase: Phase, seed: int, step: int) -> StepPlan:
    """Draw the resolution and the sub-networks of global step `step`.

    Args:
        space: space restricted to the open networks of `phase`.
        phase: phase that sets the number of sub-networks and the sandwich rule.
        seed: seed of the run.
        step: global step of the run, from 0.
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
