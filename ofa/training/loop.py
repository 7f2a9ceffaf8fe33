"""The training loop: a run is a chain of phases and can go on from any step, bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa.channels import sort_channels
from ofa.checkpoint import TrainingCheckpoints
from ofa.cost import compile_cost, macs
from ofa.data import ImageData
from ofa.data.base import resize
from ofa.distributed import ALONE, World
from ofa.errors import UserError
from ofa.evaluate import SubnetEvaluator
from ofa.progress import ProgressCallback, silent
from ofa.space import SearchSpace
from ofa.subnet import SubnetConfig
from ofa.supernet import Supernet, build_supernet
from ofa.training.losses import step_loss
from ofa.training.monitor import TrainingMonitor
from ofa.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from ofa.training.sampling import StepPlan, plan_step
from ofa.training.settings import Phase, TrainSettings, check_phases
from ofa.training.teacher import Teacher

# Cost of the teacher's forward pass relative to one sub-network's training step, for the time left.
_TEACHER_COST = 0.3


@dataclass
class _Position:
    """Where a run stands: the next step is `phase_step` of phase `phase`, the `step`-th of the run."""

    phase: int = 0
    phase_step: int = 0
    step: int = 0


class Trainer:
    """Trains a supernet through all phases into a run directory."""

    def __init__(
        self,
        space: SearchSpace,
        data: ImageData,
        phases: Sequence[Phase],
        settings: TrainSettings,
        folder: Path,
        device: torch.device,
        progress: ProgressCallback = silent,
        world: World = ALONE,
    ) -> None:
        """Build the supernet, or load the latest checkpoint of `folder`.

        Args:
            space: the whole space; its channels and classes are those of `data`.
            data: images.
            phases: in the order they run; the first must not distil.
            settings: shared by all phases.
            folder: run directory for checkpoints, teacher and TensorBoard events.
            device: where to train.
            progress: told about every tenth step.
            world: the processes that train together; each takes its part of every batch, the first one
                writes the files. Batch norm normalises by the images of one process.

        Raises:
            UserError: for phases or settings that cannot work, or an unfit checkpoint in `folder`.
        """
        check_phases(phases)
        _check_precision(settings, device)
        if settings.batch_size % world.size:
            raise UserError(
                f"batch_size {settings.batch_size} cannot be shared equally by {world.size} processes; "
                "choose a multiple of their number."
            )
        self._space, self._data, self._settings = space, data, settings
        self._phases, self._folder, self._device = tuple(phases), folder, device
        self._steps_per_epoch = data.num_batches(settings.batch_size)
        self._progress, self._world = progress, world
        self.supernet = build_supernet(space, settings.seed, settings.dropout).to(device)
        self.supernet = self.supernet.to(memory_format=torch.channels_last)
        self._teacher: Teacher | None = None
        self._position = _Position()
        self._checkpoints = TrainingCheckpoints(folder / "checkpoints")
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self._optimizer = self._new_optimizer()
        self._macs = compile_cost(space, macs)
        self._mac_range = self._macs(space.genomes([space.smallest, space.largest]))
        self._evaluator = SubnetEvaluator(
            self.supernet,
            data,
            calibration_images=settings.calibration_images,
            limit=settings.validation_images,
        )
        self.damaged_checkpoints = self._resume()

    @property
    def resumed_at(self) -> int:
        """Number of steps that are already done."""
        return self._position.step

    def train(self) -> Supernet:
        """Run all remaining phases and return the supernet in eval mode.

        Raises:
            UserError: if the loss stops being finite, or a checkpoint cannot be written.
        """
        try:
            return self._train()
        except OSError as error:
            raise UserError(
                f"Could not write to {self._folder}: {error}. Check the permissions and free space; the "
                "last checkpoint is intact, run the same command to go on."
            ) from error

    def _train(self) -> Supernet:
        folder = self._folder / "tensorboard" if self._world.is_main else None
        self._monitor = TrainingMonitor(folder, self._position.step, self._progress)
        try:
            while self._position.phase < len(self._phases):
                self._train_phase(self._phases[self._position.phase])
                self._position.phase += 1
                self._position.phase_step = 0
                self._save()
        finally:
            self._monitor.close()
        return self.supernet.eval()

    def validate(self) -> dict[str, float]:
        """Return validation top-1 (0..1) of the smallest, middle, largest and a random sub-network."""
        configs = self._named_configs()
        mine = list(configs)[self._world.rank :: self._world.size]
        found = self._world.share({name: self._evaluator.top1(configs[name]) for name in mine})
        return {name: found[name] for name in configs}

    # -- phases and steps --------------------------------------------------------------------------

    def _train_phase(self, phase: Phase) -> None:
        position = self._position
        if position.phase_step == 0:
            if phase.sort_channels:
                sort_channels(self.supernet, self._phases[position.phase - 1].space(self._space))
            self._optimizer = self._new_optimizer()
        distills = phase.distill and self._settings.distillation_ratio > 0
        path, is_main = self._folder / "teacher.pt", self._world.is_main
        self._teacher = Teacher(self.supernet, path, self._evaluator, is_main) if distills else None
        space = phase.space(self._space)
        while position.phase_step < phase.epochs * self._steps_per_epoch:
            epoch, first = divmod(position.phase_step, self._steps_per_epoch)
            self._train_epoch(phase, space, epoch, first)
            last = epoch + 1 == phase.epochs
            if last or (epoch + 1) % self._settings.validate_every_epochs == 0:
                self._monitor.validated(position.step, self.validate())

    def _train_epoch(self, phase: Phase, space: SearchSpace, epoch: int, first: int) -> None:
        position, settings = self._position, self._settings
        run_epoch = (position.step - first) // self._steps_per_epoch
        batches = self._data.train_batches(
            settings.batch_size, settings.seed, run_epoch, self._device, first, self._world
        )
        self.supernet.train()
        waiting = time.perf_counter()
        for images, labels in batches:
            waited = time.perf_counter() - waiting
            plan = plan_step(space, settings.seed, position.step, phase.subnets_per_step, phase.sandwich)
            lr = self._schedule(phase, position.phase_step)
            losses = self._train_step(plan, images, labels, lr)
            position.step += 1
            position.phase_step += 1
            self._monitor.add(losses, settings.batch_size, waited)
            self._monitor.report(position.step, phase, epoch, *self._work_done(), lr, plan.resolution)
            ended = position.phase_step == phase.epochs * self._steps_per_epoch
            if position.step % settings.checkpoint_every_steps == 0 and not ended:
                self._save()
            waiting = time.perf_counter()

    def _train_step(self, plan: StepPlan, images: Tensor, labels: Tensor, lr: float) -> dict[str, float]:
        settings = self._settings
        images = resize(images, plan.resolution)
        set_learning_rate(self._optimizer, lr)
        self._optimizer.zero_grad(set_to_none=True)
        losses: dict[str, list[Tensor]] = {}
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            # Dropout draws from the global generator; a seed per step makes every step repeatable.
            torch.manual_seed(
                int(
                    np.random.default_rng([settings.seed, self._position.step, self._world.rank]).integers(
                        2**62
                    )
                )
            )
            teacher_logits = self._teach(images)
            for config in plan.configs:
                with self._autocast():
                    logits = self.supernet(images, config)
                loss = step_loss(
                    logits.float(),
                    labels,
                    teacher_logits,
                    settings.label_smoothing,
                    settings.distillation_ratio,
                )
                torch.autograd.backward(self._scaler.scale(loss))
                losses.setdefault(self._size_class(config), []).append(loss.detach())
        self._average_over_processes(losses)
        self._check_finite(losses, plan)
        if settings.max_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), settings.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return {name: float(torch.stack(values).mean()) for name, values in losses.items()}

    def _average_over_processes(self, losses: dict[str, list[Tensor]]) -> None:
        """Average gradients and losses; every process trains the same sub-networks and parameters."""
        gradients = [p.grad for p in self.supernet.parameters() if p.grad is not None]
        self._world.average([*gradients, *(loss for group in losses.values() for loss in group)])

    def _check_finite(self, losses: dict[str, list[Tensor]], plan: StepPlan) -> None:
        """Stop before the optimiser's step if a loss is not finite."""
        values = [float(loss) for group in losses.values() for loss in group]
        if not all(math.isfinite(value) for value in values):
            raise UserError(
                f"The loss is {values} at step {self._position.step} ({plan.configs[0]}); the training has "
                "diverged. The last checkpoint is intact: lower the learning rates of the phases "
                "(phases.*.lr) and use a new run_name."
            )

    def _teach(self, images: Tensor) -> Tensor | None:
        if self._teacher is None:
            return None
        with self._autocast():
            return self._teacher(images).float()

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self._settings.precision == "fp16" else torch.bfloat16
        return torch.autocast(self._device.type, dtype, enabled=self._settings.precision != "fp32")

    def _schedule(self, phase: Phase, phase_step: int) -> float:
        total, warmup = phase.epochs * self._steps_per_epoch, phase.warmup_epochs * self._steps_per_epoch
        return learning_rate(phase_step, total, warmup, phase.lr * self._settings.batch_size / 64)

    # -- state -------------------------------------------------------------------------------------

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings = self._settings
        return build_optimizer(self.supernet, 0.0, settings.momentum, settings.weight_decay)

    def _save(self) -> None:
        # Processes see different images; the average is what a single one would have tracked.
        self._world.average(list(self.supernet.buffers()))
        if not self._world.is_main:
            return
        position = self._position
        values: dict[str, Any] = {
            "fingerprint": self._space.fingerprint,
            "phase": position.phase,
            "phase_step": position.phase_step,
            "step": position.step,
            "supernet": self.supernet.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        self._checkpoints.save(position.step, values)

    def _resume(self) -> list[str]:
        values, damaged = self._checkpoints.load_latest(self._space)
        if values is not None:
            self.supernet.load_state_dict(values["supernet"])
            self._optimizer.load_state_dict(values["optimizer"])
            self._scaler.load_state_dict(values["scaler"])
            self._position = _Position(values["phase"], values["phase_step"], values["step"])
        return damaged

    # -- reporting ---------------------------------------------------------------------------------

    def _named_configs(self) -> dict[str, SubnetConfig]:
        rng = np.random.default_rng([self._settings.seed, self._position.step])
        return {
            "smallest": self._space.smallest,
            "middle": self._space.middle,
            "largest": self._space.largest,
            "random": self._space.config(self._space.sample(1, rng)[0]),
        }

    def _size_class(self, config: SubnetConfig) -> str:
        """Return small, middle or large: the third of the space's MAC range (log scale) it falls in."""
        low, high = np.log(self._mac_range)
        value = float(np.log(self._macs(self._space.genomes([config]))[0]))
        share = (value - low) / max(high - low, 1e-12)
        return ("small", "middle", "large")[min(2, int(3 * share))]

    def _work_done(self) -> tuple[int, int]:
        """Return work done and total in equal units of cost, so that the time left is right."""
        costs = [phase.subnets_per_step + _TEACHER_COST * phase.distill for phase in self._phases]
        steps = [phase.epochs * self._steps_per_epoch for phase in self._phases]
        work = [round(cost * count) for cost, count in zip(costs, steps, strict=True)]
        done = sum(work[: self._position.phase])
        done += round(costs[self._position.phase] * self._position.phase_step)
        return done, sum(work)


def _check_precision(settings: TrainSettings, device: torch.device) -> None:
    if settings.precision == "fp16" and device.type != "cuda":
        raise UserError("precision fp16 needs a CUDA device; choose fp32 or bf16 on this one.")
