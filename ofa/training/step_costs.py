"""What steps of phases and validations cost, from the MACs of the sub-networks that are drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ofa.space.genes import Genomes
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import plan_step

NUM_DRAWN = 30
FIXED_SHARE = 0.1
"""Time of a sub-network without MACs, relative to the largest one; fitted to measured steps on a CPU."""


def step_costs(supernet: AbstractSupernet[nn.Module], recipe: Recipe) -> tuple[float, ...]:
    """Return the mean cost of a step of each phase, in steps of the largest network."""
    return tuple(phase_step_cost(supernet, phase, recipe.settings.seed) for phase in recipe.phases)


def validation_cost(supernet: AbstractSupernet[nn.Module], recipe: Recipe) -> float:
    """Return the cost of the four networks of a validation, in those of the largest one."""
    space = recipe.phases[-1].space(supernet.space)
    configs = [space.smallest, space.middle, space.largest, space.middle]
    return float(relative_times(supernet, supernet.space.genomes(configs)).sum())


def phase_step_cost(supernet: AbstractSupernet[nn.Module], phase: Phase, seed: int) -> float:
    """Return the mean cost of a step of a phase, in steps of the largest network."""
    space = phase.space(supernet.space)
    genomes = [plan_step(space, phase, seed, step).genomes for step in range(NUM_DRAWN)]
    mean_time = float(relative_times(supernet, np.concatenate(genomes)).mean())
    return phase.step_cost * mean_time


def relative_times(supernet: AbstractSupernet[nn.Module], genomes: Genomes) -> NDArray[np.float64]:
    """Return the time of each sub-network relative to the largest one, shape (n,)."""
    space, macs = supernet.space, supernet.costs["macs"]
    largest = float(macs(space.genomes([space.largest]))[0])
    return np.asarray(FIXED_SHARE + (1 - FIXED_SHARE) * macs(genomes) / largest)
