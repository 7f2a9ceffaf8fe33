"""What a step trains: drawn from the seed and the step's number alone, equal on every rank and resume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa.space import SearchSpace
from ofa.subnet import SubnetConfig


@dataclass(frozen=True)
class StepPlan:
    """Resolution of a step and the sub-networks trained in it, all at that resolution."""

    resolution: int
    configs: tuple[SubnetConfig, ...]


def plan_step(space: SearchSpace, seed: int, step: int, subnets: int, sandwich: bool = False) -> StepPlan:
    """Draw the resolution and the sub-networks of global step `step` from the restricted `space`.

    With `sandwich` the first two are its largest and smallest network, and only the others are drawn.
    """
    first = space.sample(1, np.random.default_rng([seed, step, 0]))[0]
    genomes = [space.sample(1, np.random.default_rng([seed, step, k]))[0] for k in range(subnets)]
    if sandwich:
        genomes[:2] = [space.genome(space.largest), space.genome(space.smallest)]
    for genome in genomes:
        genome[0] = first[0]
    configs = tuple(space.config(genome) for genome in genomes)
    return StepPlan(configs[0].resolution, configs)
