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
from ofa.evaluation.task import Task
from ofa.evaluation.tasks import task_of
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.batch_norm import enter_training_mode
from ofa.training.channel_order import sort_channels
from ofa.training.checkpoints import TrainingCheckpoints
from ofa.training.checks import check_training
from ofa.training.gradient_step import PendingReport, StepReport
from ofa.training.loop import REMEDY, Batch, ReportReader, StepLoop
from ofa.training.mixing import Mixing
from ofa.training.monitor import StepInfo, TrainingMonitor
from ofa.training.optimizer import load_optimizer, set_learning_rate
from ofa.training.pace import Pace
from ofa.training.phase_weights import PhaseWeights
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import dropout_seed, plan_step
from ofa.training.schedule import schedule_of
from ofa.training.state import SavedParts, TrainingState
from ofa.training.step import TrainStep
from ofa.training.summary import RunSummary
from ofa.training.teacher import Teacher, frozen_teacher
from ofa.training.trained_part import phase_optimizer
from ofa.training.validation import Validation


class Trainer(StepLoop):
    """Trains a supernet through all phases into a run directory.

    Attributes:
        task: losses and metrics of the training.
        damaged_checkpoints: checkpoints that could not be read.
    """

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
            task: losses and metrics; None: that of the images.
            new_parameters: names of the parameters that were not taken from the source of a transfer, for
                `Phase.new_lr_factor`; those of a checkpoint take precedence.
            note: called with lines for the user, e.g. how long the training will take.

        Raises:
            UserError: if phases, settings and images do not fit, or `folder` has a checkpoint of another
                training.
            ValueError: if a name of `new_parameters` is unknown.
        """
        settings, folder = recipe.settings, Path(folder)
        device = device or choose_accelerator("auto", None)
        self.task = task or task_of(data, settings.loss)
        check_training(supernet, data, recipe, device, world, new_parameters, self.task)
        super().__init__(folder, settings.checkpoint_every_steps)
        self._space, self._data, self._settings = supernet.space, data, settings
        self._recipe, self._phases, self._folder, self._device = recipe, recipe.phases, folder, device
        self._schedule = schedule_of(recipe, data, supernet)
        self._progress, self._note, self._world, self._configuration = progress, note, world, configuration
        self.supernet = supernet.to(device).to(memory_format=torch.channels_last)
        self._train_step = TrainStep(self.supernet, settings, device=device, world=world, task=self.task)
        self._mixing = Mixing(settings.mixup, settings.cutmix, data.num_classes, settings.seed)
        self._teacher: Teacher | None = None
        self._weights = PhaseWeights(self.supernet, settings, self.metric)
        self._phase_space = self._space
        self._state = TrainingState(frozenset(new_parameters))
        self._checkpoints = TrainingCheckpoints(folder / "checkpoints", settings.keep_checkpoints)
        self._macs = supernet.costs["macs"]
        self._validation = Validation(self.supernet, data, recipe, self.task, world)
        self._saved = SavedParts(self.supernet, self._state, self._weights, self._train_step.scaler)
        self.damaged_checkpoints = self._resume()
        self._pace = Pace(self._schedule, settings, data, self._state.position, note)

    @property
    def resumed_at(self) -> int:
        """Number of finished steps."""
        return self._state.position.step

    @property
    def metric(self) -> Metric:
        """The metric of validation."""
        return self.task.metric

    def train(self) -> AbstractSupernet[nn.Module]:
        """Run all remaining phases and return the supernet in eval mode.

        Raises:
            UserError: if the loss stops being finite, or a checkpoint cannot be written.
            StoppedError: after SIGTERM or SIGINT, with a checkpoint of the last step written.
        """
        first_step, folder = self.resumed_at, self._folder / "tensorboard" if self._world.is_main else None
        with self._listening():
            monitor = TrainingMonitor(
                folder,
                first_step,
                self._macs(self._space.genomes([self._space.smallest, self._space.largest])),
                self._device,
                self._progress,
                metric=self.metric,
                data=self._data.info,
                configuration=self._configuration,
            )
            try:
                while self._state.position.phase < len(self._phases):
                    self._train_phase(self._phases[self._state.position.phase], monitor)
                    self._end_phase()
            finally:
                monitor.close()
        return self.supernet.requires_grad_(True).eval()

    def validate(self) -> dict[str, float]:
        """Return the validation metric of the smallest, middle, largest and a random sub-network."""
        with self._weights.validated():
            return self._validation.scores(self.resumed_at)

    def summary(self, run_name: str) -> RunSummary:
        """Return the summary of the run; a collective call, because the processes share the validation."""
        with self._weights.validated():
            scores, more_scores = self._validation.all_scores(self.resumed_at)
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
            scores=scores,
            peak_memory_mb=peak_memory_mb(self._device),
            more_scores=more_scores,
            num_images=self._validation.num_images,
        )

    def _train_phase(self, phase: Phase, monitor: TrainingMonitor) -> None:
        position = self._state.position
        self._progress(*self._schedule.work_done(position), phase.name)
        if position.phase_step == 0:
            monitor.begin_phase(position.step, position.phase + 1, phase.name)
            if phase.sort_channels:
                self._sort_channels()
            self._optimizer = self._phase_optimizer(phase)
            self._weights.begin_phase()
        evaluator, is_main, folder = self._validation.evaluator, self._world.is_main, self._folder
        self._teacher = frozen_teacher(self.supernet, self._recipe, position, folder, evaluator, is_main)
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
        settings = self._settings
        batches = self._data.train_batches(
            settings.batch_size, settings.seed, epoch, self._device, start, self._world
        )
        batches = monitor.showing(batches, position.step)
        while position.step // steps_per_epoch == epoch and not self._phase_ended():
            remaining = steps_per_epoch - position.step % steps_per_epoch
            next_step = position.step + min(remaining, self._schedule.steps_to_validation(position))
            enter_training_mode(self.supernet, phase.frozen_batch_norm)
            self._run_batches(islice(batches, next_step - position.step), reader, self._spend)
            assert position.step == next_step, "an epoch has fewer batches than num_batches says"
            self._validate_if_due(monitor)

    def _validate_if_due(self, monitor: TrainingMonitor) -> None:
        step = self._state.position.step
        if not self._schedule.is_validation_due(self._state.position) or self._state.validated_step == step:
            return
        with self._saved_on_error(), self._weights.validated():
            scores, losses = self._validation.scores_and_losses(step)
            if self._is_last_phase():
                self._weights.add_validation(step, scores)
        monitor.validated(step, scores, losses)
        self._state.validated_step = step

    def _sort_channels(self) -> None:
        """Sort channels for the networks trained so far."""
        phase, settings, space = self._state.position.phase, self._settings, self._space
        start_space = self.supernet.start_space or space
        trained_space = self._phases[phase - 1].space(space) if phase else start_space
        batches = self._data.batches("train", settings.batch_size, self._device, settings.calibration_images)
        sort_channels(self.supernet, trained_space, settings.importance, batches, self.task, self._world)

    def _train_batch(self, batch: Batch, data_wait_s: float) -> tuple[StepInfo, PendingReport]:
        position, settings = self._state.position, self._settings
        phase = self._phases[position.phase]
        plan = plan_step(self._phase_space, phase, settings.seed, position.step)
        lr = self._schedule.learning_rate(position)
        set_learning_rate(self._optimizer, lr)
        pending = self._train_step(
            plan,
            self._mixing(*batch, position.step),
            teacher=self._teacher,
            in_place=phase.teacher == "in_place",
            optimizer=self._optimizer,
            seed=dropout_seed(settings.seed, position.step, self._world.rank),
            stop=self._stop.received,
        )
        self._weights.update()
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
        position = self._state.position
        is_over = position.phase_step == self._schedule.steps(self._phases[position.phase])
        return is_over or (self._is_last_phase() and self._weights.is_exhausted)

    def _is_last_phase(self) -> bool:
        return self._state.position.phase == len(self._phases) - 1

    def _end_phase(self) -> None:
        position = self._state.position
        line = self._weights.end_phase(position.step, self._is_last_phase())
        if line is not None:
            self._note(line)
        position.phase, position.phase_step = position.phase + 1, 0
        self._checkpoint()

    def _phase_optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        return phase_optimizer(self.supernet, phase, self._settings, self._state.new_parameters)

    def _save(self) -> None:
        if self._world.is_main:
            self._checkpoints.save(self.resumed_at, self._saved.values(self._optimizer))

    def _resume(self) -> list[str]:
        values, damaged_paths = self._checkpoints.load_latest(self._saved.check)
        if values is not None:
            self._saved.load(values)
        position = self._state.position
        self._optimizer = self._phase_optimizer(self._phases[min(position.phase, len(self._phases) - 1)])
        if values is not None and position.phase_step > 0:
            load_optimizer(self._optimizer, values.get("optimizer"))
        self._checkpoints.check_equal_starts(position.step, self._world)
        return damaged_paths
