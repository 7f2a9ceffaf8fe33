"""The training of a supernet: a sequence of phases that can resume at any step, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ofa.common.accelerator import choose_accelerator, peak_memory_mb
from ofa.common.distributed import SINGLE_PROCESS, World, check_batch_size
from ofa.common.metric import Metric
from ofa.common.progress import ProgressCallback, silent
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.task import ClassificationTask, Task
from ofa.space.config import AnyConfig
from ofa.space.space import SearchSpace, check_fingerprint
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.checkpoints import TrainingCheckpoints
from ofa.training.gradient_step import PendingReport, StepReport
from ofa.training.loop import Batch, ReportReader, StepLoop
from ofa.training.monitor import StepInfo, TrainingMonitor
from ofa.training.optimizer import build_optimizer, load_optimizer, set_learning_rate
from ofa.training.phases import Phase, check_phases
from ofa.training.precision import check_precision
from ofa.training.recipe import Recipe
from ofa.training.sampling import dropout_seed, plan_step
from ofa.training.schedule import Position, Schedule
from ofa.training.step import TrainStep
from ofa.training.summary import RunSummary
from ofa.training.teacher import Teacher

REMEDY = (
    "The last checkpoint is intact: lower the learning rates of the phases (phases.*.lr) and use a new "
    "run_name, or skip such steps with training.on_non_finite=skip."
)


class Trainer(StepLoop):
    """Trains a supernet through all phases into a run directory."""

    def __init__(
        self,
        supernet: AbstractSupernet[nn.Module],
        data: ImageData,
        recipe: Recipe,
        *,
        folder: str | Path,
        device: torch.device | None = None,
        progress: ProgressCallback = silent,
        world: World = SINGLE_PROCESS,
        configuration: Mapping[str, Any] | None = None,
        task: Task | None = None,
    ) -> None:
        """Take the supernet, and load the latest checkpoint of `folder` if there is one.

        Args:
            supernet: new, loaded or imported supernet, equal in every process; moved to `device` and trained
                in place. Its channels and classes are those of `data`.
            data: training and validation images.
            recipe: phases and their settings; dropout is a property of the supernet.
            folder: run directory for checkpoints, teacher and TensorBoard events.
            device: training device; None: a CUDA device if there is one, else the CPU.
            progress: called every tenth step.
            world: processes that train together; each takes its part of every batch, and the first
                writes the files.
            configuration: plain values that TensorBoard shows as text, if any.
            task: task that defines losses and metrics; None: classification with the loss of `settings`.

        Raises:
            UserError: if phases and settings do not fit, or `folder` has a checkpoint of another training.
        """
        phases, settings, folder = recipe.phases, recipe.settings, Path(folder)
        device = choose_accelerator("auto", None) if device is None else device
        check_phases(phases, trained=True)
        check_precision(settings.precision, device)
        check_batch_size(settings.batch_size, world)
        super().__init__(folder, settings.checkpoint_every_steps)
        self._space, self._data, self._settings = supernet.space, data, settings
        self._phases, self._folder, self._device = phases, folder, device
        size = settings.batch_size
        self._schedule = Schedule(self._phases, data.num_batches(size), size / 64)
        self._progress, self._world, self._configuration = progress, world, configuration
        self.supernet = supernet.to(device).to(memory_format=torch.channels_last)
        self._task = task or ClassificationTask(settings.loss)
        self._train_step = TrainStep(self.supernet, settings, device=device, world=world, task=self._task)
        self._teacher: Teacher | None = None
        self._phase_space = self._space
        self._position = Position()
        self._checkpoints = TrainingCheckpoints(folder / "checkpoints", settings.keep_checkpoints)
        self._seconds: dict[str, float] = {}
        self._waited: dict[str, float] = {}
        self._optimizer = self._new_optimizer()
        self._macs = supernet.costs["macs"]
        self._evaluator = self._new_evaluator()
        self.damaged_checkpoints = self._resume()

    @property
    def resumed_at(self) -> int:
        """Number of finished steps."""
        return self._position.step

    @property
    def metric(self) -> Metric:
        """The metric of validation."""
        return self._task.metric

    def train(self) -> AbstractSupernet[nn.Module]:
        """Run all remaining phases and return the supernet in eval mode.

        SIGTERM or SIGINT ends it after the current step.

        Raises:
            UserError: if the loss stops being finite, or a checkpoint cannot be written.
            StoppedError: after a signal, with a checkpoint of the last step written.
        """
        with self._listening():
            folder = self._folder / "tensorboard" if self._world.is_main else None
            mac_range = self._macs(self._space.genomes([self._space.smallest, self._space.largest]))
            first_step = self._position.step
            monitor = TrainingMonitor(
                folder, first_step, mac_range, self._device, self._progress, metric=self.metric
            )
            if self._configuration:
                monitor.describe(first_step, self._configuration)
            try:
                while self._position.phase < len(self._phases):
                    self._train_phase(self._phases[self._position.phase], monitor)
                    self._end_phase()
            finally:
                monitor.close()
        return self.supernet.eval()

    def validate(self) -> dict[str, float]:
        """Return the validation metric of the smallest, middle, largest and a random sub-network."""
        configs = self._named_configs()
        local_names = list(configs)[self._world.rank :: self._world.size]
        scores = self._world.gather({name: self._evaluator.score(configs[name]) for name in local_names})
        return {name: scores[name] for name in configs}

    def summary(self, run_name: str) -> RunSummary:
        """Return the summary of the run; a collective call, because the processes share the validation."""
        return RunSummary(
            run_name,
            self._space.name,
            self._data.info.name,
            steps=self._position.step,
            images_per_step=self._settings.batch_size,
            processes=self._world.size,
            device=str(self._device),
            seconds_per_phase=dict(self._seconds),
            data_wait_share=sum(self._waited.values()) / max(sum(self._seconds.values()), 1e-9),
            metric=self.metric.name,
            scores=self.validate(),
            peak_memory_mb=peak_memory_mb(self._device),
        )

    def _train_phase(self, phase: Phase, monitor: TrainingMonitor) -> None:
        position = self._position
        self._progress(*self._schedule.work_done(position), phase.name)
        if position.phase_step == 0:
            if phase.sort_channels:
                self.supernet.sort_channels(self._trained_space())
            self._optimizer = self._new_optimizer()
        self._teacher = self._frozen_teacher(phase)
        self._phase_space = phase.space(self._space)

        def note(info: StepInfo, report: StepReport) -> None:
            monitor.note(info, report, *self._schedule.work_done(position))

        reader = ReportReader(self._train_step.read, note, REMEDY)
        while not self._phase_ended():
            epoch, start = divmod(position.phase_step, self._schedule.steps_per_epoch)
            run_epoch = (position.step - start) // self._schedule.steps_per_epoch
            batches = self._data.train_batches(
                self._settings.batch_size, self._settings.seed, run_epoch, self._device, start, self._world
            )
            self.supernet.train()
            self._run_batches(batches, reader, self._spend)
            is_last = epoch + 1 == phase.epochs
            if is_last or (epoch + 1) % self._settings.validate_every_epochs == 0:
                monitor.validated(position.step, self.validate())

    def _trained_space(self) -> SearchSpace:
        """Return the space of the networks trained so far; the whole space before the first phase."""
        phase = self._position.phase
        return self._phases[phase - 1].space(self._space) if phase else self._space

    def _frozen_teacher(self, phase: Phase) -> Teacher | None:
        if phase.teacher != "frozen" or self._settings.distillation_ratio == 0:
            return None
        position, path, is_main = self._position, self._folder / "teacher.pt", self._world.is_main
        earlier_phases = self._phases[: position.phase]
        has_begun = position.phase_step > 0 or any(phase.teacher == "frozen" for phase in earlier_phases)
        return Teacher(self.supernet, path, self._evaluator, is_main, has_begun)

    def _train_batch(self, batch: Batch, data_wait_s: float) -> tuple[StepInfo, PendingReport]:
        position, settings = self._position, self._settings
        phase = self._phases[position.phase]
        plan = plan_step(self._phase_space, phase, settings.seed, position.step)
        lr = self._schedule.learning_rate(position)
        set_learning_rate(self._optimizer, lr)
        pending = self._train_step(
            plan,
            batch,
            teacher=self._teacher,
            in_place=phase.teacher == "in_place",
            optimizer=self._optimizer,
            seed=dropout_seed(settings.seed, position.step, self._world.rank),
            stop=self._stop.received,
        )
        epoch = position.phase_step // self._schedule.steps_per_epoch
        position.step += 1
        position.phase_step += 1
        info = StepInfo(
            number=position.step,
            epoch_text=f"{phase.name} epoch {epoch + 1}/{phase.epochs}",
            lr=lr,
            resolution=plan.resolution,
            macs=self._macs(plan.genomes),
            images=settings.batch_size,
            data_wait_s=data_wait_s,
        )
        return info, pending

    def _spend(self, seconds: float, data_wait_s: float) -> None:
        name = self._phases[self._position.phase].name
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._waited[name] = self._waited.get(name, 0.0) + data_wait_s

    def _phase_ended(self) -> bool:
        return self._position.phase_step == self._schedule.steps(self._phases[self._position.phase])

    def _end_phase(self) -> None:
        self._position.phase += 1
        self._position.phase_step = 0
        self._write_checkpoint()

    def _save(self) -> None:
        self._end_phase() if self._phase_ended() else self._write_checkpoint()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings = self._settings
        return build_optimizer(self.supernet, 0.0, settings.momentum, settings.weight_decay)

    def _new_evaluator(self) -> SubnetEvaluator[nn.Module]:
        return SubnetEvaluator(
            self.supernet,
            self._data,
            calibration_images=self._settings.calibration_images,
            limit=self._settings.validation_images,
            task=self._task,
        )

    def _write_checkpoint(self) -> None:
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
            "scaler": self._train_step.scaler.state_dict(),
            "seconds": self._seconds,
            "waited": self._waited,
        }
        self._checkpoints.save(position.step, values)

    def _resume(self) -> list[str]:
        def check(values: Mapping[str, Any], what: str) -> None:
            check_fingerprint(values.get("fingerprint"), self._space, what)

        values, damaged_paths = self._checkpoints.load_latest(check)
        if values is not None:
            self.supernet.load_state_dict(values["supernet"])
            load_optimizer(self._optimizer, values["optimizer"])
            self._train_step.scaler.load_state_dict(values["scaler"])
            self._seconds = dict(values.get("seconds", {}))
            self._waited = dict(values.get("waited", {}))
            self._position = Position(values["phase"], values["phase_step"], values["step"])
        self._checkpoints.check_equal_starts(self._position.step, self._world)
        return damaged_paths

    def _named_configs(self) -> dict[str, AnyConfig]:
        rng = np.random.default_rng([self._settings.seed, self._position.step])
        space = self._phases[-1].space(self._space)
        return {
            "smallest": space.smallest,
            "middle": space.middle,
            "largest": space.largest,
            "random": space.config(space.sample(1, rng)[0]),
        }
