"""The training loop: a run is a chain of phases and can go on from any step, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa.common.accelerator import peak_memory_mb
from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import StoppedError, UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.space.space import SearchSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet, build_supernet
from ofa.training.checkpoints import TrainingCheckpoints
from ofa.training.monitor import StepInfo, TrainingMonitor
from ofa.training.optimizer import build_optimizer, load_optimizer, set_learning_rate
from ofa.training.phases import Phase, check_phases
from ofa.training.precision import check_precision
from ofa.training.sampling import plan_step
from ofa.training.schedule import Position, Schedule
from ofa.training.settings import TrainSettings
from ofa.training.step import NonFiniteError, PendingReport, TrainStep
from ofa.training.stop import StopRequest
from ofa.training.summary import RunSummary
from ofa.training.teacher import Teacher


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
        world: World = SINGLE_PROCESS,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the supernet, or load the latest checkpoint of `folder`.

        Args:
            space: the whole space; its channels and classes are those of `data`.
            data: images.
            phases: in the order they run; the first has no frozen teacher.
            settings: shared by all phases.
            folder: run directory for checkpoints, teacher and TensorBoard events.
            device: where to train.
            progress: told about every tenth step.
            world: the processes that train together; each takes its part of every batch, the first one
                writes the files.
            configuration: plain values that TensorBoard shows as text, if any.

        Raises:
            UserError: for phases or settings that cannot work, or an unfit checkpoint in `folder`.
        """
        check_phases(phases)
        check_precision(settings.precision, device)
        if settings.batch_size % world.size:
            raise UserError(
                f"batch_size {settings.batch_size} cannot be shared equally by {world.size} processes; "
                "choose a multiple of their number."
            )
        self._space, self._data, self._settings = space, data, settings
        self._phases, self._folder, self._device = tuple(phases), folder, device
        self._schedule = Schedule(
            self._phases, data.num_batches(settings.batch_size), settings.batch_size / 64
        )
        self._progress, self._world, self._configuration = progress, world, configuration
        self.supernet = build_supernet(space, settings.seed, settings.dropout).to(device)
        self.supernet = self.supernet.to(memory_format=torch.channels_last)
        self._train_step = TrainStep(self.supernet, settings, world, device)
        self._teacher: Teacher | None = None
        self._position = Position()
        self._checkpoints = TrainingCheckpoints(folder / "checkpoints", settings.keep_checkpoints)
        self._seconds: dict[str, float] = {}
        self._waited: dict[str, float] = {}
        self._stop = StopRequest()
        self._optimizer = self._new_optimizer()
        self._macs = self.supernet.costs["macs"]
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

        SIGTERM ends it after the step that is under way.

        Raises:
            UserError: if the loss stops being finite, or a checkpoint cannot be written.
            StoppedError: after SIGTERM, with a checkpoint of the last step written.
        """
        try:
            with self._stop.listening():
                return self._train()
        except OSError as error:
            raise UserError(
                f"Could not write to {self._folder}: {error}. Check the permissions and free space; the "
                "last checkpoint is intact, run the same command to go on."
            ) from error

    def _train(self) -> Supernet:
        folder = self._folder / "tensorboard" if self._world.is_main else None
        mac_range = self._macs(self._space.genomes([self._space.smallest, self._space.largest]))
        self._monitor = TrainingMonitor(folder, self._position.step, mac_range, self._device, self._progress)
        if self._configuration:
            self._monitor.describe(self._position.step, self._configuration)
        try:
            while self._position.phase < len(self._phases):
                self._train_phase(self._phases[self._position.phase])
                self._end_phase()
        finally:
            self._monitor.close()
        return self.supernet.eval()

    def validate(self) -> dict[str, float]:
        """Return validation top-1 (0..1) of the smallest, middle, largest and a random sub-network."""
        configs = self._named_configs()
        mine = list(configs)[self._world.rank :: self._world.size]
        found = self._world.gather({name: self._evaluator.top1(configs[name]) for name in mine})
        return {name: found[name] for name in configs}

    def summary(self, run_name: str) -> RunSummary:
        """Return the facts of the run; every process must ask, because they share the validation."""
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
            top1=self.validate(),
            peak_memory_mb=peak_memory_mb(self._device),
        )

    # -- phases and steps --------------------------------------------------------------------------

    def _train_phase(self, phase: Phase) -> None:
        position = self._position
        self._progress(*self._schedule.work_done(position), phase.name)
        if position.phase_step == 0:
            if phase.sort_channels:
                self.supernet.sort_channels(self._phases[position.phase - 1].space(self._space))
            self._optimizer = self._new_optimizer()
        distills = phase.teacher == "frozen" and self._settings.distillation_ratio > 0
        path, is_main = self._folder / "teacher.pt", self._world.is_main
        earlier = self._phases[: position.phase]
        begun = position.phase_step > 0 or any(phase.teacher == "frozen" for phase in earlier)
        self._teacher = Teacher(self.supernet, path, self._evaluator, is_main, begun) if distills else None
        space = phase.space(self._space)
        while position.phase_step < self._schedule.steps(phase):
            epoch, first = divmod(position.phase_step, self._schedule.steps_per_epoch)
            self._train_epoch(phase, space, epoch, first)
            last = epoch + 1 == phase.epochs
            if last or (epoch + 1) % self._settings.validate_every_epochs == 0:
                self._monitor.validated(position.step, self.validate())

    def _train_epoch(self, phase: Phase, space: SearchSpace, epoch: int, first: int) -> None:
        position, settings = self._position, self._settings
        run_epoch = (position.step - first) // self._schedule.steps_per_epoch
        batches = self._data.train_batches(
            settings.batch_size, settings.seed, run_epoch, self._device, first, self._world
        )
        self.supernet.train()
        last = None
        waiting = time.perf_counter()
        for batch in batches:
            waited = time.perf_counter() - waiting
            plan = plan_step(space, phase, settings.seed, position.step)
            lr = self._schedule.learning_rate(position)
            set_learning_rate(self._optimizer, lr)
            step_seed = np.random.default_rng([settings.seed, position.step, self._world.rank])
            pending = self._train_step(
                plan,
                batch,
                self._teacher,
                phase.teacher == "in_place",
                self._optimizer,
                int(step_seed.integers(2**62)),
                self._stop.received,
            )
            position.step += 1
            position.phase_step += 1
            # What the step before did; that of this one may still be under way on the device.
            stop = self._read(last)
            subnet_macs, images = self._macs(self._space.genomes(plan.configs)), settings.batch_size
            facts = StepInfo(position.step, phase, epoch, lr, plan.resolution, subnet_macs, images, waited)
            last = facts, pending
            ended = position.phase_step == self._schedule.steps(phase)
            due = position.step % settings.checkpoint_every_steps == 0
            epoch_ended = position.phase_step % self._schedule.steps_per_epoch == 0
            if stop or due or epoch_ended or pending.ready is None:
                stop, last = self._read(last) or stop, None
            self._seconds[phase.name] = self._seconds.get(phase.name, 0.0) + time.perf_counter() - waiting
            self._waited[phase.name] = self._waited.get(phase.name, 0.0) + waited
            if stop:
                self._end_phase() if ended else self._save()
                raise StoppedError(
                    f"Stopped by SIGTERM after step {position.step}, which is saved in {self._folder}; "
                    "run the same command to go on."
                )
            if due and not ended:
                self._save()
            waiting = time.perf_counter()

    def _read(self, last: tuple[StepInfo, PendingReport] | None) -> bool:
        """Note what a step did, if there is one, and return whether it was told to stop."""
        if last is None:
            return False
        facts, pending = last
        try:
            report = self._train_step.read(pending)
        except NonFiniteError as error:
            raise UserError(
                f"The training has diverged at step {facts.number - 1}: {error}. The last checkpoint is "
                "intact: lower the learning rates of the phases (phases.*.lr) and use a new run_name, or "
                "skip such steps with training.on_non_finite=skip."
            ) from error
        self._monitor.note(facts, report, *self._schedule.work_done(self._position))
        return report.stop

    def _end_phase(self) -> None:
        self._position.phase += 1
        self._position.phase_step = 0
        self._save()

    # -- state -------------------------------------------------------------------------------------

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings = self._settings
        return build_optimizer(self.supernet, 0.0, settings.momentum, settings.weight_decay)

    def _save(self) -> None:
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
        values, damaged = self._checkpoints.load_latest(self._space)
        if values is not None:
            self.supernet.load_state_dict(values["supernet"])
            load_optimizer(self._optimizer, values["optimizer"])
            self._train_step.scaler.load_state_dict(values["scaler"])
            self._seconds = dict(values.get("seconds", {}))
            self._waited = dict(values.get("waited", {}))
            self._position = Position(values["phase"], values["phase_step"], values["step"])
        self._checkpoints.check_equal_starts(self._position.step, self._world)
        return damaged

    # -- reporting ---------------------------------------------------------------------------------

    def _named_configs(self) -> dict[str, SubnetConfig]:
        rng = np.random.default_rng([self._settings.seed, self._position.step])
        space = self._phases[-1].space(self._space)
        return {
            "smallest": space.smallest,
            "middle": space.middle,
            "largest": space.largest,
            "random": space.config(space.sample(1, rng)[0]),
        }
