"""One training step of a supernet: losses and gradients of several sub-networks on one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import UserError
from ofa.data.base import resize
from ofa.evaluation.outputs import detached_outputs, float_outputs
from ofa.evaluation.task import ClassificationTask, Task
from ofa.supernet.operators import ElasticBatchNorm2d
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.gradient_step import GradientStep, PendingReport
from ofa.training.losses import loss_terms
from ofa.training.sampling import StepPlan
from ofa.training.settings import TrainSettings
from ofa.training.teacher import Teacher


class TrainStep(GradientStep):
    """Trains the sub-networks of a plan on a batch; see `GradientStep`."""

    def __init__(
        self,
        supernet: AbstractSupernet[nn.Module],
        settings: TrainSettings,
        *,
        device: torch.device,
        world: World = SINGLE_PROCESS,
        task: Task | None = None,
    ) -> None:
        """Take the supernet, on `device`; `settings.batch_norm` selects its batch norm.

        `task` defaults to classification with the loss of `settings`.

        Raises:
            UserError: if batch norm has to be synchronised and the supernet has a layer without support.
        """
        super().__init__(
            supernet,
            precision=settings.precision,
            max_grad_norm=settings.max_grad_norm,
            skip_non_finite=settings.on_non_finite == "skip",
            world=world,
            device=device,
        )
        self._supernet, self.settings = supernet, settings
        self._task = task or ClassificationTask(settings.loss)
        if settings.batch_norm == "synchronised" and world.size > 1:
            for norm in self._norms:
                if not isinstance(norm, ElasticBatchNorm2d):
                    raise UserError(
                        "batch_norm synchronised needs elastic batch norm; this supernet has layers of the "
                        "type BatchNorm2d. Choose per_process."
                    )
                norm.world = world

    def __call__(
        self,
        plan: StepPlan,
        batch: tuple[Tensor, Tensor],
        *,
        teacher: Teacher | None,
        in_place: bool,
        optimizer: torch.optim.Optimizer,
        seed: int,
        stop: bool = False,
    ) -> PendingReport:
        """Train one step; if a loss or the gradient is not finite, the weights are unchanged.

        Args:
            plan: resolution and sub-networks.
            batch: this process's images (n, channels, h, w) and their targets, e.g. labels (n,).
            teacher: source of the soft targets, if any.
            in_place: whether the first sub-network of the plan teaches the others instead.
            optimizer: optimizer of the supernet's parameters, with the learning rates of this step.
            seed: seed of dropout for this step and process.
            stop: whether this process received a request to stop.

        Returns:
            Pending report for `read`, to be called while the next step runs.
        """
        optimizer.zero_grad(set_to_none=True)
        with self._seeded(seed):
            terms = self._train_subnets(plan, batch, teacher, in_place)
        return self._finish(optimizer, plan.configs, terms, stop)

    def _train_subnets(
        self, plan: StepPlan, batch: tuple[Tensor, Tensor], teacher: Teacher | None, in_place: bool
    ) -> list[dict[str, Tensor]]:
        """Accumulate the gradients of all sub-networks; return the terms of each one's loss."""
        images, targets = resize(batch[0], plan.resolution), batch[1]
        soft_targets = None
        if teacher is not None:
            with self._autocast():
                soft_targets = float_outputs(teacher(images))
        terms_by_network = []
        for config in plan.configs:
            with self._autocast():
                outputs = self._supernet(images, config)
            outputs = float_outputs(outputs)
            ratio = self.settings.distillation_ratio
            terms = loss_terms(self._task, ratio, outputs, targets, soft_targets)
            terms_by_network.append(self._backward(terms, self._task.batch_score(outputs, targets)))
            if in_place and soft_targets is None:
                soft_targets = detached_outputs(outputs)
        return terms_by_network
