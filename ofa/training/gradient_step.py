"""The end of every training step: gradients of all processes, their norm, the optimiser, and a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ofa.common.distributed import World
from ofa.supernet.operators import ElasticBatchNorm2d
from ofa.training.batch_norm import batch_norms
from ofa.training.losses import sum_terms
from ofa.training.optimizer import step_if
from ofa.training.precision import autocast, gradient_scaler

SCORE = "score"
"""Name of the primary metric of a batch among the numbers of a network."""

MAX_SKIPPED = 20
"""Training stops after this many consecutive skipped steps."""


@dataclass(frozen=True)
class StepReport:
    """Result of a step, averaged over all processes.

    Attributes:
        losses: loss of each network of the step, in their order.
        scores: primary metric of the batch for each of them; empty if the task has none for batches.
        gradient_norm: L2 norm of all gradients, before clipping.
        skipped: whether the weights are unchanged because a loss or gradient was not finite.
        stop: whether any process received a request to stop.
    """

    losses: tuple[float, ...]
    gradient_norm: float
    skipped: bool
    stop: bool
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class PendingReport:
    """Result of a step during its asynchronous copy from the device.

    Attributes:
        networks: trained networks; `str` of them appears in errors.
        terms: names of the terms of each network's loss, and of its score.
        numbers: values of all of these, the stop flag, and the gradient norm, on the CPU.
        ready: event that signals that `numbers` is complete; None if it already is.
    """

    networks: Sequence[object]
    terms: tuple[tuple[str, ...], ...]
    numbers: Tensor
    ready: torch.cuda.Event | None

    def values(self) -> list[float]:
        """Wait for the numbers and return them."""
        if self.ready is not None:
            self.ready.synchronize()
        values: list[float] = self.numbers.tolist()
        return values


class GradientStep:
    """The common part of all training steps; a subclass computes the losses.

    All gradients and numbers are reduced over processes once per step. Nothing waits for the device: the
    device itself skips a step that is not finite, and the report is read later.

    Attributes:
        scaler: keeps small gradients of fp16 above zero; part of a checkpoint.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        precision: str,
        max_grad_norm: float | None,
        skip_non_finite: bool,
        world: World,
        device: torch.device,
    ) -> None:
        """Take the network and the settings of a step.

        Args:
            network: trained network, on `device`.
            precision: fp32, bf16 or fp16.
            max_grad_norm: gradients are clipped to this norm; None for no clipping.
            skip_non_finite: whether to skip a step that is not finite instead of ending the training.
            world: processes that train together.
            device: training device.
        """
        self._network, self._world, self._device = network, world, device
        self._precision, self._max_grad_norm = precision, max_grad_norm
        self._skip_non_finite, self._skipped_in_a_row = skip_non_finite, 0
        self._norms = batch_norms(network)
        self.scaler = gradient_scaler(precision, device)

    def _autocast(self) -> torch.autocast:
        return autocast(self._precision, self._device)

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Let the global generator, from which dropout draws, start from `seed`."""
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def _backward(self, terms: Mapping[str, Tensor], score: Tensor | None = None) -> dict[str, Tensor]:
        """Accumulate the gradients of a loss; return its terms without their graph, and the score."""
        torch.autograd.backward(self.scaler.scale(sum_terms(terms)))
        numbers = {name: term.detach() for name, term in terms.items()}
        return numbers if score is None else {**numbers, SCORE: score.detach()}

    def _finish(
        self,
        optimizer: torch.optim.Optimizer,
        networks: Sequence[object],
        terms: Sequence[Mapping[str, Tensor]],
        stop: bool,
    ) -> PendingReport:
        """Average, clip and step; if a loss or the gradient is not finite, the weights are unchanged.

        Args:
            optimizer: optimizer of the network's parameters, with the learning rates of this step.
            networks: trained networks.
            terms: loss terms of each of `networks`, and a `SCORE` that is no part of the loss.
            stop: whether this process received a request to stop.
        """
        gradients = [p.grad for p in self._network.parameters() if p.grad is not None]
        numbers = [value for group in terms for value in group.values()]
        numbers.append(torch.full((), float(stop), device=self._device))
        # Processes see different images; a single process would track the average.
        statistics = [buffer for buffer in self._network.buffers() if buffer.is_floating_point()]
        self._world.all_reduce_mean_([*gradients, *numbers, *statistics])
        self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        all_numbers = torch.stack([*numbers, norm])
        if self._max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._network.parameters(), self._max_grad_norm, norm)
        step_if(optimizer, torch.isfinite(all_numbers).all())
        self.scaler.update()
        if self.scaler.is_enabled() or self._skip_non_finite:
            for module in self._norms:
                _forget_non_finite(module)
        names = tuple(tuple(group) for group in terms)
        return PendingReport(networks, names, *_copy_to_host_async(all_numbers))

    def read(self, pending: PendingReport) -> StepReport:
        """Return the report of a step; call it in the order of the steps.

        Raises:
            NonFiniteError: if a loss or the gradient was not finite, and may not be skipped.
        """
        *values, num_stopping, gradient_norm = pending.values()
        value_iterator = iter(values)
        terms = [{name: next(value_iterator) for name in names} for names in pending.terms]
        is_loss_finite = all(map(math.isfinite, values))
        is_finite = is_loss_finite and math.isfinite(gradient_norm)
        if is_finite:
            self._skipped_in_a_row = 0
        else:
            # If only the fp16 gradient overflowed, the scaler has lowered its scale.
            is_overflow = self.scaler.is_enabled() and is_loss_finite
            self._skip_or_stop(pending.networks, terms, gradient_norm, is_overflow)
        scores = tuple(group.pop(SCORE) for group in terms if SCORE in group)
        losses = tuple(sum(group.values()) for group in terms)
        return StepReport(losses, gradient_norm, not is_finite, num_stopping > 0, scores)

    def _skip_or_stop(
        self,
        networks: Sequence[object],
        terms: Sequence[Mapping[str, float]],
        gradient_norm: float,
        overflow: bool,
    ) -> None:
        self._skipped_in_a_row += 1
        may_skip = overflow or self._skip_non_finite
        if may_skip and self._skipped_in_a_row <= MAX_SKIPPED:
            return
        lines = []
        for network, group in zip(networks, terms, strict=True):
            if not all(map(math.isfinite, group.values())):
                numbers = [f"{name} {value:.4g}" for name, value in group.items() if name != SCORE]
                lines.append(f"{', '.join(numbers)} of {network}")
        raise NonFiniteError("; ".join(lines) or f"a gradient norm of {gradient_norm}")


@torch.no_grad()
def _forget_non_finite(norm: nn.Module) -> None:
    """Set running statistics that are not finite back to their initial values."""
    if isinstance(norm, ElasticBatchNorm2d):
        norm.forget_non_finite()
    elif norm.running_mean is not None:
        norm.get_buffer("running_mean").nan_to_num_(0.0, 0.0, 0.0)
        norm.get_buffer("running_var").nan_to_num_(1.0, 1.0, 1.0)


def _copy_to_host_async(numbers: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Return a copy on the CPU, and the event that signals its completion (None: it is complete)."""
    if numbers.device.type != "cuda":
        return numbers, None
    copy, event = numbers.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(numbers.device))
    return copy, event


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is not finite; the text names the loss terms and networks."""
