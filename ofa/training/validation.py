"""Validation while a supernet is trained: named sub-networks, shared by the processes."""

from __future__ import annotations

import numpy as np
from torch import nn

from ofa.common.distributed import World
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.task import Task
from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.settings import TrainSettings


def validation_evaluator(
    supernet: AbstractSupernet[nn.Module], data: ImageData, settings: TrainSettings, task: Task
) -> SubnetEvaluator[nn.Module]:
    """Return the evaluator of sub-networks on the validation images of `settings`."""
    return SubnetEvaluator(
        supernet,
        data,
        calibration_images=settings.calibration_images,
        limit=settings.validation_images,
        task=task,
    )


def named_configs(space: SearchSpace, seed: int, step: int) -> dict[str, AnyConfig]:
    """Return the smallest, middle and largest sub-network of a space, and one drawn from seed and step."""
    rng = np.random.default_rng([seed, step])
    return {
        "smallest": space.smallest,
        "middle": space.middle,
        "largest": space.largest,
        "random": space.config(space.sample(1, rng)[0]),
    }


def shared_scores(
    evaluator: SubnetEvaluator[nn.Module], configs: dict[str, AnyConfig], world: World
) -> dict[str, float]:
    """Return the primary metric of each sub-network; every process evaluates a part of them."""
    local_names = list(configs)[world.rank :: world.size]
    scores = world.gather({name: evaluator.score(configs[name]) for name in local_names})
    return {name: scores[name] for name in configs}
