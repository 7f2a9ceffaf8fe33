"""The training of a supernet: a sequence of phases that can resume at any step, bit for bit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofa.common.accelerator import choose_accelerator, peak_memory_mb
from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.metric import Metric
from ofa.common.progress import Note, ProgressCallback, silent, unnoted
from ofa.data.base import ImageData
from ofa.evaluation.task import ClassificationTask, Task
from ofa.space.space import SearchSpace, check_fingerprint
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.batch_norm import enter_training_mode
from ofa.training.checkpoints import TrainingCheckpoints
from ofa.training.checks import check_training
from ofa.training.gradient_step import PendingReport, StepReport
from ofa.training.loop import Batch, ReportReader, StepLoop
from ofa.training.monitor import StepInfo, TrainingMonitor
from ofa.training.optimizer import load_optimizer, set_learning_rate
from ofa.training.pace import Pace
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import dropout_seed, plan_step
from ofa.training.schedule import schedule_of
from ofa.training.state import TrainingState
from ofa.training.step import TrainStep
from ofa.training.summary import RunSummary
from ofa.training.teacher import Teacher
from ofa.training.trained_part import phase_optimizer
from ofa.training.validation import named_configs, shared_scores, validation_evaluator

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
        new_parameters: Collection[str] = (),
        note: Note = unnoted,
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
            new_parameters: names of the parameters that were not taken from the source of a transfer, for
                `Phase.new_lr_factor`; those of a checkpoint take precedence.
            note: called with lines for the user, e.g. how long the training will take.

        Raises:
            UserError: if phases, settings and images do not fit, or `folder` has a checkpoint of another
                training.
            ValueError: if a name of `new_parameters` is unknown.
        """
        phases, settings, folder = recipe.phases, recipe.settings, Path(folder)
        device = choose_accelerator("auto", None) if device is None else device
        check_training(supernet, data, recipe, device, world, new_parameters)
        super().__init__(folder, settings.checkpoint_every_steps)
        self._space, self._data, self._settings = supernet.space, data, settings
        self._phases, self._folder, self._device = phases, folder, device
        self._schedule = schedule_of(recipe, data)
        self._progress, self._world, self._configuration = progress, world, configuration
        self.supernet = supernet.to(device).to(memory_format=torch.channels_last)
        self._task = task or ClassificationTask(settings.loss)
        self._train_step = TrainStep(self.supernet, settings, device=device, world=world, task=self._task)
        self._teacher: Teacher | None = None
        self._phase_space = self._space
        self._state = TrainingState(frozenset(new_parameters))
        self._checkpoints = TrainingCheckpoints(folder / "checkpoints", settings.keep_checkpoints)
        self._macs = supernet.costs["macs"]
        self._evaluator = validation_evaluator(self.supernet, data, settings, self._task)
        self.damaged_checkpoints = self._resume()
        self._pace = Pace(self._schedule, settings, self._state.position, note)

    @property
    def resumed_at(self) -> int:
        """Number of finished steps."""
        return self._state.position.step

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
            first_step = self._state.position.step
            monitor = TrainingMonitor(
                folder, first_step, mac_range, self._device, self._progress, metric=self.metric
            )
            if self._configuration:
                monitor.describe(first_step, self._configuration)
            try:
                while self._state.position.phase < len(self._phases):
                    self._train_phase(self._phases[self._state.position.phase], monitor)
                    self._end_phase()
            finally:
                monitor.close()
        return self.supernet.requires_grad_(True).eval()

    def validate(self) -> dict[str, float]:
        """Return the validation metric of the smallest, middle, largest and a random sub-network."""
        space = self._phases[-1].space(self._space)
        configs = named_configs(space, self._settings.seed, self._state.position.step)
        return shared_scores(self._evaluator, configs, self._world)

    def summary(self, run_name: str) -> RunSummary:
        """Return the summary of the run; a collective call, because the processes share the validation."""
        return RunSummary(
            run_name,
            self._space.name,
            self._data.info.name,
            steps=self._state.position.step,
            images_per_step=self._settings.batch_size,
            processes=self._world.size,
            device=str(self._device),
            seconds_per_phase=dict(self._state.spent.seconds),
            data_wait_share=self._state.spent.data_wait_share,
            metric=self.metric.name,
            scores=self.validate(),
            peak_memory_mb=peak_memory_mb(self._device),
        )

    def _train_phase(self, phase: Phase, monitor: TrainingMonitor) -> None:
        position = self._state.position
        self._progress(*self._schedule.work_done(position), phase.name)
        if position.phase_step == 0:
            if phase.sort_channels:
                self.supernet.sort_channels(self._trained_space())
            self._optimizer = self._phase_optimizer(phase)
        self._teacher = self._frozen_teacher(phase)
        self._phase_space = phase.space(self._space)

        def note(info: StepInfo, report: StepReport) -> None:
            monitor.note(info, report, *self._schedule.work_done(position))

        reader = ReportReader(self._train_step.read, note, REMEDY)
        # A start may begin where a validation is due, or even after the last step.
        self._validate_if_due(monitor)
        while not self._phase_ended():
            self._train_epoch(phase, reader, monitor)

    def _train_epoch(self, phase: Phase, reader: ReportReader, monitor: TrainingMonitor) -> None:
        """Train to the end of the epoch or of the phase, with the validations on the way."""
        position, steps_per_epoch = self._state.position, self._schedule.steps_per_epoch
        epoch, start = divmod(position.step, steps_per_epoch)
        batches = iter(
            self._data.train_batches(
                self._settings.batch_size, self._settings.seed, epoch, self._device, start, self._world
            )
        )
        while position.step // steps_per_epoch == epoch and not self._phase_ended():
            remaining = steps_per_epoch - position.step % steps_per_epoch
            next_step = position.step + min(remaining, self._schedule.steps_to_validation(position))
            enter_training_mode(self.supernet, phase.frozen_batch_norm)
            self._run_batches(islice(batches, next_step - position.step), reader, self._spend)
            assert position.step == next_step, "an epoch has fewer batches than num_batches says"
            self._validate_if_due(monitor)

    def _validate_if_due(self, monitor: TrainingMonitor) -> None:
        step = self._state.position.step
        if self._schedule.is_validation_due(self._state.position) and self._state.validated_step != step:
            monitor.validated(step, self.validate())
            self._state.validated_step = step

    def _trained_space(self) -> SearchSpace:
        """Return the space of the networks trained so far; the whole space before the first phase."""
        phase = self._state.position.phase
        return self._phases[phase - 1].space(self._space) if phase else self._space

    def _frozen_teacher(self, phase: Phase) -> Teacher | None:
        if phase.teacher != "frozen" or self._settings.distillation_ratio == 0:
            return None
        position, path, is_main = self._state.position, self._folder / "teacher.pt", self._world.is_main
        earlier_phases = self._phases[: position.phase]
        has_begun = position.phase_step > 0 or any(phase.teacher == "frozen" for phase in earlier_phases)
        return Teacher(self.supernet, path, self._evaluator, is_main, has_begun)

    def _train_batch(self, batch: Batch, data_wait_s: float) -> tuple[StepInfo, PendingReport]:
        position, settings = self._state.position, self._settings
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
        info = StepInfo(
            number=position.step + 1,
            epoch_text=self._schedule.position_text(position),
            lr=lr,
            resolution=plan.resolution,
            macs=self._macs(plan.genomes),
            images=settings.batch_size,
            data_wait_s=data_wait_s,
        )
        position.step += 1
        position.phase_step += 1
        return info, pending

    def _spend(self, seconds: float, data_wait_s: float) -> None:
        self._state.spent.add(self._phases[self._state.position.phase].name, seconds, data_wait_s)
        self._pace.add(self._state.position, seconds)

    def _phase_ended(self) -> bool:
        return self._state.position.phase_step == self._schedule.steps(
            self._phases[self._state.position.phase]
        )

    def _end_phase(self) -> None:
        self._state.position.phase += 1
        self._state.position.phase_step = 0
        self._save()

    def _phase_optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        return phase_optimizer(self.supernet, phase, self._settings, self._state.new_parameters)

    def _save(self) -> None:
        if not self._world.is_main:
            return
        values = {
            "fingerprint": self._space.fingerprint,
            "supernet": self.supernet.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._train_step.scaler.state_dict(),
            **self._state.values(),
        }
        self._checkpoints.save(self._state.position.step, values)

    def _resume(self) -> list[str]:
        def check(values: Mapping[str, Any], what: str) -> None:
            check_fingerprint(values.get("fingerprint"), self._space, what)

        values, damaged_paths = self._checkpoints.load_latest(check)
        if values is not None:
            self.supernet.load_state_dict(values["supernet"])
            self._train_step.scaler.load_state_dict(values["scaler"])
            self._state.load(values)
        self._optimizer = self._phase_optimizer(
            self._phases[min(self._state.position.phase, len(self._phases) - 1)]
        )
        if values is not None and self._state.position.phase_step > 0:
            load_optimizer(self._optimizer, values["optimizer"])
        self._checkpoints.check_equal_starts(self._state.position.step, self._world)
        return damaged_paths
