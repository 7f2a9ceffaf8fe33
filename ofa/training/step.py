"""One training step: losses and gradients of several sub-networks on one batch, then the optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ofa.common.distributed import World
from ofa.data.base import resize
from ofa.supernet.operators import ElasticBatchNorm2d
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.losses import loss_terms, sum_terms
from ofa.training.optimizer import step_if
from ofa.training.precision import autocast, gradient_scaler
from ofa.training.sampling import StepPlan
from ofa.training.settings import TrainSettings
from ofa.training.teacher import Teacher

MAX_SKIPPED = 20
"""Steps skipped one after the other before the training stops."""


@dataclass(frozen=True)
class StepReport:
    """What a step did, averaged over all processes.

    Attributes:
        losses: of each sub-network of the plan, in its order.
        gradient_norm: L2 norm of all gradients, before clipping.
        skipped: whether the weights stayed as they were because something was not finite.
        stop: whether any process was asked to stop.
    """

    losses: tuple[float, ...]
    gradient_norm: float
    skipped: bool
    stop: bool


@dataclass(frozen=True)
class PendingReport:
    """What a step has computed, on its way from the device; the processor need not wait for it.

    Attributes:
        plan: of the step.
        terms: names of the terms of each sub-network's loss, in the order of the plan.
        numbers: the values of all terms, whether to stop, and the gradient norm; on the processor.
        ready: when `numbers` is complete; None if it is.
    """

    plan: StepPlan
    terms: tuple[tuple[str, ...], ...]
    numbers: Tensor
    ready: torch.cuda.Event | None

    def values(self) -> list[float]:
        """Return the numbers, once they are there."""
        if self.ready is not None:
            self.ready.synchronize()
        found: list[float] = self.numbers.tolist()
        return found


class TrainStep:
    """Trains the sub-networks of a plan on a batch.

    All gradients and numbers cross between processes once per step. Nothing waits for the device: a step
    that is not finite is left out there, and what it did is read later.
    """

    def __init__(
        self,
        supernet: AbstractSupernet[nn.Module],
        settings: TrainSettings,
        world: World,
        device: torch.device,
    ) -> None:
        """Take the supernet, on `device`; batch norm is that of `settings`."""
        self._supernet, self._settings, self._world, self._device = supernet, settings, world, device
        self._norms = [module for module in supernet.modules() if isinstance(module, ElasticBatchNorm2d)]
        if settings.batch_norm == "synchronised" and world.size > 1:
            for norm in self._norms:
                norm.world = world
        self.scaler = gradient_scaler(settings.precision, device)
        self._skipped_in_a_row = 0

    def __call__(
        self,
        plan: StepPlan,
        batch: tuple[Tensor, Tensor],
        teacher: Teacher | None,
        in_place: bool,
        optimizer: torch.optim.Optimizer,
        seed: int,
        stop: bool = False,
    ) -> PendingReport:
        """Train one step; if a loss or the gradient is not finite, the weights stay as they are.

        Args:
            plan: resolution and sub-networks.
            batch: this process's images (n, channels, h, w) and labels (n,).
            teacher: source of the soft targets, if any.
            in_place: whether the first sub-network of the plan teaches the others instead.
            optimizer: of the supernet's parameters, its learning rates set.
            seed: of dropout, for this step and process.
            stop: whether this process was asked to stop.

        Returns:
            What `read` takes, once the next step is under way.
        """
        optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            # Dropout draws from the global generator; a seed per step makes every step repeatable.
            torch.manual_seed(seed)
            terms = self._backward(plan, batch, teacher, in_place)
        gradients = [p.grad for p in self._supernet.parameters() if p.grad is not None]
        numbers = [value for group in terms for value in group.values()]
        numbers.append(torch.full((), float(stop), device=self._device))
        # Processes see different images; averaged running statistics are what a single one would track.
        self._world.all_reduce_mean_([*gradients, *numbers, *self._supernet.buffers()])
        self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        together = torch.stack([*numbers, norm])
        if self._settings.max_grad_norm is not None:
            limit = self._settings.max_grad_norm
            torch.nn.utils.clip_grads_with_norm_(self._supernet.parameters(), limit, norm)
        step_if(optimizer, torch.isfinite(together).all())
        self.scaler.update()
        if self.scaler.is_enabled() or self._settings.on_non_finite == "skip":
            for module in self._norms:
                module.forget_non_finite()
        names = tuple(tuple(group) for group in terms)
        return PendingReport(plan, names, *_copy_to_host_async(together))

    def read(self, pending: PendingReport) -> StepReport:
        """Return what a step did; steps are read in their order.

        Raises:
            NonFiniteError: if a loss or the gradient was not finite, and may not be skipped.
        """
        *values, stopping, gradient_norm = pending.values()
        remaining = iter(values)
        found = [{name: next(remaining) for name in names} for names in pending.terms]
        losses_finite = all(map(math.isfinite, values))
        finite = losses_finite and math.isfinite(gradient_norm)
        if finite:
            self._skipped_in_a_row = 0
        else:
            # Where fp16 overflows in the gradient alone, the scaler has lowered its scale.
            overflow = self.scaler.is_enabled() and losses_finite
            self._skip_or_stop(pending.plan, found, gradient_norm, overflow)
        losses = tuple(sum(group.values()) for group in found)
        return StepReport(losses, gradient_norm, not finite, stopping > 0)

    def _backward(
        self, plan: StepPlan, batch: tuple[Tensor, Tensor], teacher: Teacher | None, in_place: bool
    ) -> list[dict[str, Tensor]]:
        """Accumulate the gradients of all sub-networks; return the terms of each one's loss."""
        images, labels = resize(batch[0], plan.resolution), batch[1]
        soft_targets = None
        if teacher is not None:
            with autocast(self._settings.precision, self._device):
                soft_targets = teacher(images).float()
        every_terms = []
        for config in plan.configs:
            with autocast(self._settings.precision, self._device):
                logits = self._supernet(images, config)
            logits = logits.float()
            terms = loss_terms(self._settings.loss, logits, labels, soft_targets)
            torch.autograd.backward(self.scaler.scale(sum_terms(terms)))
            every_terms.append({name: term.detach() for name, term in terms.items()})
            if in_place and soft_targets is None:
                soft_targets = logits.detach()
        return every_terms

    def _skip_or_stop(
        self, plan: StepPlan, terms: Sequence[Mapping[str, float]], gradient_norm: float, overflow: bool
    ) -> None:
        self._skipped_in_a_row += 1
        may_skip = overflow or self._settings.on_non_finite == "skip"
        if may_skip and self._skipped_in_a_row <= MAX_SKIPPED:
            return
        lines = [
            f"{', '.join(f'{name} {value:.4g}' for name, value in group.items())} of {config}"
            for config, group in zip(plan.configs, terms, strict=True)
            if not all(map(math.isfinite, group.values()))
        ]
        raise NonFiniteError("; ".join(lines) or f"a gradient norm of {gradient_norm}")


def _copy_to_host_async(numbers: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Return a copy on the processor, and when it will be complete (None: it is)."""
    if numbers.device.type != "cuda":
        return numbers, None
    copy, ready = numbers.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    ready.record(torch.cuda.current_stream(numbers.device))
    return copy, ready


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is not finite; the text names the loss terms and sub-networks."""
