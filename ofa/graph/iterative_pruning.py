"""`iterative`: a smaller network in steps: sensitivity of its groups, a narrower plan, fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.common.score_file import ScoreFile
from ofa.graph.measured_cost import MeasuredCost
from ofa.graph.one_step_pruning import (
    Sort,
    checked_costs,
    costs_of,
    fitted_network,
    known_score,
    reconstruction,
)
from ofa.graph.pruning_plan import least_loss_plan
from ofa.graph.sensitivity import GroupSensitivity, measure_sensitivity
from ofa.graph.space import GraphSpace
from ofa.graph.structure import UNIT_KINDS
from ofa.graph.supernet import GraphSupernet
from ofa.space.estimator import Estimator
from ofa.space.plain import GeneConfig

_MAX_ROUNDS = 20
_MIN_LOWERING = 0.98


@dataclass(frozen=True)
class PruningStep:
    """One step of iterative pruning, before its network is fine-tuned.

    Attributes:
        number: number of the step, from 1.
        limits: largest value of each cost in this step.
        sensitivity: what each group loses alone, from the network of the step before.
        config: the network that was chosen.
        costs: its costs, by the names of the limits.
    """

    number: int
    limits: Mapping[str, float]
    sensitivity: tuple[GroupSensitivity, ...]
    config: GeneConfig
    costs: Mapping[str, float]


def iterative(
    supernet: GraphSupernet,
    limits: Mapping[str, float],
    *,
    num_steps: int,
    recalibrate: Callable[[nn.Module], object],
    evaluate: Callable[[nn.Module], float],
    fine_tune: Callable[[nn.Module, PruningStep], object],
    sort: Sort = GraphSupernet.sort_channels,
    fitting_images: Tensor | None = None,
    num_points: int = 4,
    measured: Mapping[str, MeasuredCost] = MappingProxyType({}),
    scores_of: Callable[[int], ScoreFile] = lambda number: ScoreFile(),
    progress: Callable[[int], AbstractContextManager[ProgressCallback]] = lambda number: nullcontext(silent),
) -> list[PruningStep]:
    """Make a network narrower in steps, with fine-tuning after each; its last state is in the supernet.

    The budget shrinks by the same factor in each step. A step sorts the units by importance, measures the
    sensitivity of each group (Li et al. 2017, sec. 3.2; batch norm recalibrated), chooses the counts that
    lose least within the budget, and fine-tunes the network, whose tensors go back into the supernet: the
    groups stay those of the conversion, and nothing is traced again. Only widths and ranks vary.

    Args:
        supernet: supernet of a trained network; its tensors change in place.
        limits: largest value of costs in the end, by name; see `GraphSupernet.costs`.
        num_steps: number of steps.
        recalibrate: computes the batch-norm statistics of a network from training images, in place.
        evaluate: returns how good a network is on validation data; larger is better.
        fine_tune: trains the network of a step in place.
        sort: sorts the units by importance.
        fitting_images: images to which layers are fitted before an evaluation or a training, as `one_step`.
        num_points: number of smaller counts per group in the analysis of each step.
        measured: further costs by name, which are measured.
        scores_of: file of the scores of a step; networks that have one are not evaluated again.
        progress: opens the progress of the analysis of a step.

    Raises:
        UserError: without a step or a limit, for an unknown cost, or a limit below the smallest network.
    """
    if num_steps < 1:
        raise UserError(f"steps is {num_steps}; expected at least 1.")
    genes = supernet.space.genes
    space = supernet.space.keep_largest({gene.kind: 1 for gene in genes if gene.kind not in UNIT_KINDS})
    costs = checked_costs(space, limits, measured)
    steps: list[PruningStep] = []
    for number in range(1, num_steps + 1):
        sort(supernet, space.only_largest)
        reconstruct = reconstruction(supernet, fitting_images)
        score = partial(known_score, supernet, scores_of(number), recalibrate, evaluate, reconstruct)
        with progress(number) as report:
            sensitivity = measure_sensitivity(space, score, num_points=num_points, progress=report)
        budget = step_limits(limits, costs_of(space, space.largest, costs, measured), num_steps + 1 - number)
        config = _planned(space, sensitivity, budget, costs, measured)
        spent = costs_of(space, config, costs, measured)
        steps.append(PruningStep(number, budget, sensitivity, config, spent))
        network = fitted_network(supernet, config, reconstruct)
        fine_tune(network, steps[-1])
        supernet.insert(config, network)
        space = narrowed(space, config)
    return steps


def _planned(
    space: GraphSpace,
    sensitivity: Sequence[GroupSensitivity],
    limits: Mapping[str, float],
    costs: Mapping[str, Estimator],
    measured: Mapping[str, MeasuredCost],
) -> GeneConfig:
    """Return the plan that loses least and keeps the limits, those of measured costs as measured.

    Where a plan exceeds a measured limit, the limit of its estimates is lowered; the smallest network, which
    keeps all limits, ends that.
    """
    aims = dict(limits)
    for _ in range(_MAX_ROUNDS):
        aims |= {n: cost.reachable(aims[n], space.smallest) for n, cost in measured.items() if n in aims}
        config = least_loss_plan(space, sensitivity, aims, costs)
        values = costs_of(space, config, costs, measured)
        exceeded = {name: value for name, value in values.items() if value > limits[name]}
        if not exceeded:
            return config
        for name, value in exceeded.items():
            aims[name] *= min(limits[name] / value, _MIN_LOWERING)
    return space.smallest


def step_limits(limits: Mapping[str, float], present: Mapping[str, float], num_left: int) -> dict[str, float]:
    """Return the limits of the next of `num_left` steps; each shrinks the costs by the same factor."""
    return {
        name: max(limit, present[name] * (limit / present[name]) ** (1 / num_left))
        for name, limit in limits.items()
    }


def narrowed(space: GraphSpace, config: GeneConfig) -> GraphSpace:
    """Return the networks of a space that are no wider than `config`, and otherwise like it."""
    values = dict(config.values)
    restriction = tuple(
        tuple(
            index
            for index in allowed
            if gene.name not in values
            or gene.choices[index] == values[gene.name]
            or (gene.kind in UNIT_KINDS and gene.choices[index] < values[gene.name])
        )
        for gene, allowed in zip(space.genes, space.allowed, strict=True)
    )
    return dataclasses.replace(space, restriction=restriction)
