"""Validation while a supernet is trained: named sub-networks, shared by the processes."""

from __future__ import annotations

import numpy as np
from torch import nn

from ofa.common.distributed import World
from ofa.data.base import ImageData
from ofa.evaluation.classes import shows_other_metrics
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.task import Task
from ofa.space.config import AnyConfig
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.recipe import Recipe

LOSS = "loss"


class Validation:
    """Evaluates named sub-networks, shared by the processes.

    Attributes:
        evaluator: evaluator on the validation images.
        num_images: number of these images.
    """

    def __init__(
        self,
        supernet: AbstractSupernet[nn.Module],
        data: ImageData,
        recipe: Recipe,
        task: Task,
        world: World,
    ) -> None:
        """Take the supernet, on its device, and the settings of `recipe`."""
        settings = recipe.settings
        self.evaluator = SubnetEvaluator(
            supernet,
            data,
            calibration_images=settings.calibration_images,
            limit=settings.validation_images,
            task=task,
        )
        self.num_images = self.evaluator.num_images
        self._shows_others = shows_other_metrics(data, "validation")
        self._space, self._seed, self._world = recipe.phases[-1].space(supernet.space), settings.seed, world

    def configs(self, step: int) -> dict[str, AnyConfig]:
        """Return the smallest, middle and largest sub-network, and one drawn from seed and step."""
        space, rng = self._space, np.random.default_rng([self._seed, step])
        return {
            "smallest": space.smallest,
            "middle": space.middle,
            "largest": space.largest,
            "random": space.config(space.sample(1, rng)[0]),
        }

    def measure(self, step: int) -> dict[str, dict[str, float]]:
        """Return the metrics and the `LOSS` of each sub-network by their names; a collective call."""
        configs = self.configs(step)
        local_names = list(configs)[self._world.rank :: self._world.size]
        local: dict[str, float] = {}
        for name in local_names:
            metrics, loss = self.evaluator.measure_with_loss(configs[name])
            local |= {f"{name}/{metric}": value for metric, value in {**metrics, LOSS: loss}.items()}
        values = self._world.gather(local)
        names = [*(metric.name for metric in self.evaluator.task.metrics), LOSS]
        return {name: {metric: values[f"{name}/{metric}"] for metric in names} for name in configs}

    def all_scores(self, step: int) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Return `scores`, and the other metrics where they tell more, else none; a collective call."""
        measures, metric = self.measure(step), self.evaluator.task.metric.name
        for values in measures.values():
            del values[LOSS]
        scores = {name: values.pop(metric) for name, values in measures.items()}
        return scores, measures if self._shows_others else {}

    def scores(self, step: int) -> dict[str, float]:
        """Return the primary metric of each sub-network; a collective call."""
        return self.scores_and_losses(step)[0]

    def scores_and_losses(self, step: int) -> tuple[dict[str, float], dict[str, float]]:
        """Return the primary metric and the loss of each sub-network; a collective call."""
        measures, metric = self.measure(step), self.evaluator.task.metric.name
        scores, losses = ({name: m[key] for name, m in measures.items()} for key in (metric, LOSS))
        return scores, losses
