"""`fit`: resumable training of any network with weights of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ofa.common.config import build, differences
from ofa.common.disk import check_free_space, check_writable
from ofa.common.distributed import SINGLE_PROCESS, World, check_batch_size
from ofa.common.errors import UserError
from ofa.common.mismatches import load_state
from ofa.common.plain_values import checked_integer
from ofa.common.progress import ProgressCallback, silent
from ofa.common.tensors import content_digest
from ofa.data.base import ImageData, resize
from ofa.evaluation.outputs import float_outputs
from ofa.evaluation.task import ClassificationTask, Task
from ofa.evaluation.tasks import task_of
from ofa.training.batch_norm import check_batch_statistics, values_per_image
from ofa.training.checkpoints import TrainingCheckpoints, checkpoints_bytes, misfits_named
from ofa.training.checks import check_losses
from ofa.training.gradient_step import GradientStep, PendingReport, StepReport
from ofa.training.known_faults import check_strided_convolutions
from ofa.training.loop import Batch, ReportReader, StepLoop
from ofa.training.losses import Penalty, loss_terms
from ofa.training.monitor import StepInfo, TrainingMonitor
from ofa.training.optimizer import build_optimizer, learning_rate, load_optimizer, set_learning_rate
from ofa.training.precision import check_precision
from ofa.training.sampling import dropout_seed
from ofa.training.settings import FinetuneSettings


def fit(
    network: nn.Module,
    data: ImageData,
    settings: FinetuneSettings,
    *,
    resolution: int,
    task: Task | None = None,
    teacher: nn.Module | None = None,
    folder: Path | None = None,
    world: World = SINGLE_PROCESS,
    progress: ProgressCallback = silent,
    checkpoint_every_steps: int = 500,
    penalty: Penalty | None = None,
) -> None:
    """Train `network` in place at one resolution and leave it in eval mode.

    A repeated call with the same arguments resumes from the last checkpoint in `folder`, bit for bit.

    Args:
        network: network on the training device, equal in every process; maps images to outputs of the task.
        data: training images.
        settings: length, learning rate and losses.
        resolution: side of the training images in pixels.
        task: task that defines the losses; None for that of the images with the loss of `settings`.
        teacher: frozen network in eval mode whose outputs are the soft targets, if and only if the
            distillation ratio is not 0.
        folder: folder of checkpoints (`checkpoints`) and TensorBoard events (`tensorboard`); None: no files.
        world: processes that train together; each takes its part of every batch, and the first
            writes the files.
        progress: called every tenth step.
        checkpoint_every_steps: steps between checkpoints; the last step has one.
        penalty: a further term of the loss; None for none.

    Raises:
        UserError: if the device cannot train in the precision, a batch norm would get a single value per
            channel, `folder` has a checkpoint of another training, or the loss or a weight stops being
            finite; the network must not be used then.
        StoppedError: after SIGTERM or SIGINT, with the last step saved.
        ValueError: if a teacher is missing or unexpected.
    """
    if (teacher is None) != (settings.distillation_ratio == 0):
        raise ValueError("A teacher is needed if and only if the distillation ratio is not 0.")
    _check(network, data, settings, resolution, world)
    task = task or task_of(data, settings.loss)
    check_losses(task, "finetuning")
    step = NetworkStep(network, settings, teacher=teacher, task=task, world=world, penalty=penalty)
    training = _Fit(
        network,
        data,
        settings,
        train_step=step,
        resolution=resolution,
        folder=folder,
        checkpoint_every_steps=checkpoint_every_steps,
    )
    training.run(progress)
    network.to(memory_format=torch.contiguous_format).eval()


def _check(
    network: nn.Module, data: ImageData, settings: FinetuneSettings, resolution: int, world: World
) -> None:
    """Raise the error for a training that cannot work."""
    if settings.length < 1:
        raise UserError(f"{settings.unit} is {settings.length}; expected at least 1.")
    device = next(network.parameters()).device
    check_precision(settings.precision, device)
    check_strided_convolutions(network, device)
    check_batch_size(settings.batch_size, world)
    _check_batch_norm(network, data, settings.batch_size, resolution, world)


def _check_batch_norm(
    network: nn.Module, data: ImageData, batch_size: int, resolution: int, world: World
) -> None:
    device = next(network.parameters()).device
    images = torch.zeros(1, data.info.in_channels, resolution, resolution, device=device)
    check_batch_statistics(
        lambda _: values_per_image(network, network, images),
        [resolution],
        batch_size=batch_size,
        num_local=batch_size // world.size,
    )


class NetworkStep(GradientStep):
    """Trains one network on a batch; see `GradientStep`."""

    def __init__(
        self,
        network: nn.Module,
        settings: FinetuneSettings,
        *,
        teacher: nn.Module | None = None,
        task: Task | None = None,
        world: World = SINGLE_PROCESS,
        penalty: Penalty | None = None,
    ) -> None:
        """Take the network and its teacher, both on one device; without a task, classification."""
        super().__init__(
            network,
            precision=settings.precision,
            max_grad_norm=None,
            skip_non_finite=False,
            world=world,
            device=next(network.parameters()).device,
        )
        self._task, self._ratio = task or ClassificationTask(settings.loss), settings.distillation_ratio
        self._outputs: Callable[[Tensor], Tensor] = torch.compile(network) if settings.compile else network
        self._teacher, self.penalty = teacher, penalty
        self.world, self.device = world, self._device

    def __call__(
        self, batch: Batch, *, optimizer: torch.optim.Optimizer, seed: int, stop: bool
    ) -> PendingReport:
        """Train one step; see `ofa.training.step.TrainStep` for the arguments."""
        images, targets = batch
        with torch.no_grad(), self._autocast():
            soft_targets = None if self._teacher is None else float_outputs(self._teacher(images))
        optimizer.zero_grad(set_to_none=True)
        with self._seeded(seed):
            with self._autocast():
                outputs = self._outputs(images)
            outputs = float_outputs(outputs)
            terms = loss_terms(self._task, self._ratio, outputs, targets, soft_targets)
            if self.penalty is not None:
                terms["penalty"] = self.penalty()
            parts = self._backward(terms, self._task.batch_score(outputs, targets))
        return self._finish(optimizer, ("the network",), [parts], stop)


class _Fit(StepLoop):
    """One training of one network: its position and its files."""

    def __init__(
        self,
        network: nn.Module,
        data: ImageData,
        settings: FinetuneSettings,
        *,
        train_step: NetworkStep,
        resolution: int,
        folder: Path | None,
        checkpoint_every_steps: int,
    ) -> None:
        super().__init__(folder, checkpoint_every_steps)
        self._network, self._data, self._settings = network, data, settings
        self._train_step, self._resolution, self._folder = train_step, resolution, folder
        self._world, self._device = train_step.world, train_step.device
        self._steps_per_epoch = data.num_batches(settings.batch_size)
        self._total, self._step = settings.num_steps(self._steps_per_epoch), 0
        self._checkpoints = None if folder is None else TrainingCheckpoints(folder / "checkpoints")
        self._identity = {
            "network": content_digest(network.state_dict()),
            "data": data.info.name,
            "resolution": resolution,
            "settings": dataclasses.asdict(settings),
        }
        network.to(memory_format=torch.channels_last)
        self._optimizer = build_optimizer(network, 0.0, settings.momentum, settings.weight_decay)
        self._resume()

    def run(self, progress: ProgressCallback) -> None:
        with self._listening():
            folder = self._folder / "tensorboard" if self._folder and self._world.is_main else None
            monitor = TrainingMonitor(folder, self._step, None, self._device, progress)

            def note(info: StepInfo, report: StepReport) -> None:
                monitor.note(info, report, info.number, self._total)

            reader = ReportReader(self._train_step.read, note, "Lower lr.")
            try:
                while not self._phase_ended():
                    self._train_epoch(reader)
            finally:
                monitor.close()
            if not all(bool(torch.isfinite(weight).all()) for weight in self._network.parameters()):
                raise UserError(f"Weights are not finite after step {self._step}; lower lr.")
            self._checkpoint()

    def _train_epoch(self, reader: ReportReader) -> None:
        epoch, first_batch = divmod(self._step, self._steps_per_epoch)
        size, seed = self._settings.batch_size, self._settings.seed
        batches = self._data.train_batches(size, seed, epoch, self._device, first_batch, self._world)
        batches = islice(batches, self._total - self._step)
        if self._train_step.penalty is not None:
            self._train_step.penalty.before_epoch(epoch)
        self._network.train()
        self._run_batches(
            ((resize(images, self._resolution), targets) for images, targets in batches), reader
        )

    def _train_batch(self, batch: Batch, data_wait_s: float) -> tuple[StepInfo, PendingReport]:
        settings = self._settings
        lr = learning_rate(self._step, self._total, 0, settings.lr * settings.batch_size / 64)
        set_learning_rate(self._optimizer, lr)
        pending = self._train_step(
            batch,
            optimizer=self._optimizer,
            seed=dropout_seed(settings.seed, self._step, self._world.rank),
            stop=self._stop.received,
        )
        epoch = self._step // self._steps_per_epoch
        self._step += 1
        info = StepInfo(
            number=self._step,
            epoch_text=f"epoch {epoch + 1}/{math.ceil(self._total / self._steps_per_epoch)}",
            lr=lr,
            resolution=self._resolution,
            macs=None,
            images=settings.batch_size,
            data_wait_s=data_wait_s,
        )
        return info, pending

    def _phase_ended(self) -> bool:
        return self._step == self._total

    def _save(self) -> None:
        if self._checkpoints is None or not self._world.is_main:
            return
        values = {
            "identity": self._identity,
            "step": self._step,
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._train_step.scaler.state_dict(),
        }
        self._checkpoints.save(self._step, values)

    def _resume(self) -> None:
        if self._checkpoints is None or self._folder is None:
            return
        if self._world.is_main:
            check_writable(self._folder)
            checkpoints = (self._folder / "checkpoints").glob("*.pt")
            check_free_space(self._folder, checkpoints_bytes(self._network), "the fine-tuning", checkpoints)
        values, _ = self._checkpoints.load_latest(self._check)
        if values is not None:
            load_optimizer(self._optimizer, values.get("optimizer"))
            with misfits_named():
                load_state(self._network, values["network"], "The checkpoint")
                self._train_step.scaler.load_state_dict(values["scaler"])
                self._step = checked_integer(values["step"], "step")
        self._checkpoints.check_equal_starts(self._step, self._world)

    def _check(self, values: Mapping[str, Any], what: str) -> None:
        identity = values.get("identity")
        if not isinstance(identity, Mapping):
            raise UserError(f"The {what} is of no such training. Remove {self._folder} to start anew.")
        # Settings added since the checkpoint was written take their defaults.
        settings = build(FinetuneSettings, identity.get("settings", {}), f"{what}: settings")
        changes = differences({**identity, "settings": dataclasses.asdict(settings)}, self._identity)
        if changes:
            raise UserError(
                f"The {what} belongs to another training: {'; '.join(changes[:8])}. Give the same settings "
                f"to go on, or remove {self._folder} to start anew."
            )
