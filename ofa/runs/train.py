"""`train_run`: the training of a supernet in the folder of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch

from ofa.common.command_line import assignments
from ofa.common.disk import check_free_space, check_writable, size_text
from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.progress import Note, ProgressCallback, silent, unnoted
from ofa.common.tensors import state_bytes
from ofa.data.base import ImageData
from ofa.data.sources import load_data
from ofa.evaluation.tasks import task_of
from ofa.graph.space import ImageSpace
from ofa.graph.supernet import GraphSupernet
from ofa.runs.config import TrainConfig, claim_directory, has_begun
from ofa.runs.conversion import ConvertedModel
from ofa.runs.directory import RunDirectory
from ofa.runs.own_code import name_own_code
from ofa.runs.plan import facts_of, suggested_settings
from ofa.runs.start import StartRecord, start_run, start_values
from ofa.runs.supernet_file import AnySupernet, save_supernet
from ofa.runs.user_model import model_supernet, save_first_supernet
from ofa.supernet.supernet import build_supernet
from ofa.training.checkpoints import checkpoints_bytes
from ofa.training.checks import check_training
from ofa.training.phases import check_phases
from ofa.training.precision import EMULATED, emulates
from ofa.training.schedule import schedule_of
from ofa.training.summary import RunSummary
from ofa.training.trainer import Trainer

NOTHING_NEW = "new_lr_factor has no effect: every parameter was taken, or there is no init to take it from"


def train_run(
    config: TrainConfig,
    device: torch.device,
    *,
    world: World = SINGLE_PROCESS,
    progress: ProgressCallback = silent,
    note: Note = unnoted,
    conversion: ConvertedModel | None = None,
) -> RunSummary:
    """Train the supernet of a run, or go on with it, and save it with how it was made.

    Args:
        config: everything that the training depends on, and the run's folder.
        device: training device.
        world: the processes that train together; all call this.
        progress: called every tenth step.
        note: called with lines for the user: what is trained, and how good it became.
        conversion: the user's model as it was converted before, which is trained then; None to convert it.

    Raises:
        UserError: for settings that cannot work, missing images, another run's folder, or an infinite loss.
        StoppedError: after a signal, with a checkpoint of the last step written.
    """
    check_phases(config.recipe.phases, trained=config.init is not None or config.model.has_weights)
    name_own_code(config.data)
    data = load_data(config.data, progress=_before(progress))
    run = RunDirectory(config.runs_dir, config.run_name)
    task = task_of(data, config.training.loss)
    supernet, start = _new_supernet(config, run, data, note, conversion)
    check_training(supernet, data, config.recipe, device, world, task=task)
    with run.locked("training", world.is_main):
        num_bytes = _check_disk(run, config, supernet, world.is_main)
        start = start_run(config, run, supernet, data.info, note) or start
        if start is not None:
            supernet.start_space = supernet.space.only_largest if start.is_one_network else None
        if world.is_main:
            _claim(run, config, supernet, start)
        world.wait()
        new_names = () if start is None else start.new_names
        _say(note, _first_lines(config, supernet.space, data, device, bool(new_names), num_bytes))
        trainer = Trainer(
            supernet,
            data,
            config.recipe,
            folder=run.path,
            device=device,
            progress=progress,
            world=world,
            configuration=dataclasses.asdict(config),
            note=note,
            new_parameters=new_names,
        )
        _say(note, _resume_lines(trainer))
        trainer.train()
        summary = trainer.summary(config.run_name)
        if world.is_main:
            save_supernet(run.supernet, supernet, {**config.provenance(data.info), **start_values(start)})
            summary.write(run.path, run.path.parent / "runs.csv")
    _say(note, summary.lines(task.metrics))
    return summary


def _say(note: Note, lines: Iterable[str]) -> None:
    for line in lines:
        note(line)


def _claim(run: RunDirectory, config: TrainConfig, supernet: AnySupernet, start: StartRecord | None) -> None:
    """Let a folder belong to a run, and keep the supernet of a user's model that the run begins with."""
    claim_directory(run, config, start_values(start))
    if isinstance(supernet, GraphSupernet) and not has_begun(run):
        save_first_supernet(run, supernet)


def _new_supernet(
    config: TrainConfig, run: RunDirectory, data: ImageData, note: Note, conversion: ConvertedModel | None
) -> tuple[AnySupernet, StartRecord | None]:
    """Return the supernet that a run begins with, and where the weights of a user's model came from."""
    if config.space is None:
        return model_supernet(config, run, data, note, conversion)
    settings = config.training
    return build_supernet(config.space.for_data(data), settings.seed, settings.dropout), None


def _before(progress: ProgressCallback) -> ProgressCallback:
    """Return the progress of what precedes the training: its text alone."""
    return lambda done, total, text: progress(0, total, f"{text}, {done} of {total}")


def _check_disk(run: RunDirectory, config: TrainConfig, supernet: AnySupernet, writes: bool) -> int:
    """Return the size in bytes of a training's files: its checkpoints, the teacher and the supernet.

    Raises:
        UserError: if the process that `writes` them cannot, or there is too little room.
    """
    settings = config.training
    num_more_states = (settings.ema_decay is not None) + (settings.early_stopping is not None)
    checkpoints = checkpoints_bytes(supernet, settings.keep_checkpoints, num_more_states)
    num_bytes = checkpoints + 2 * state_bytes(supernet)
    if writes:
        check_writable(run.path.parent)  # The table of all runs is there.
        check_free_space(run.path, num_bytes, "the training", run.path.glob("**/*.pt"))
    return num_bytes


def _first_lines(
    config: TrainConfig,
    space: ImageSpace,
    data: ImageData,
    device: torch.device,
    has_new: bool,
    num_bytes: int,
) -> list[str]:
    """Return what is said when a training begins: the space, the images, the disk, and where to watch it."""
    run_path = RunDirectory(config.runs_dir, config.run_name).path
    resolutions, size = ", ".join(map(str, space.allowed_resolutions)), config.training.batch_size
    num_steps = schedule_of(config.recipe, data).total_steps
    better = suggested_settings(facts_of(data), space, size)
    return [
        f"{space.name}: {space.size:.3g} sub-networks; {data.size('train')} images of {data.info.name}",
        *data.notes,
        f"{num_steps:,} steps of {size} images, at {resolutions} px",
        f"needs up to {size_text(num_bytes)} in {run_path}",
        *([f"these images suggest: {' '.join(assignments(better))}"] if better else []),
        f"watch it with: tensorboard --logdir {run_path / 'tensorboard'}",
        *([EMULATED] if emulates(config.training.precision, device) else []),
        *([NOTHING_NEW] if not has_new and any(p.new_lr_factor != 1 for p in config.recipe.phases) else []),
    ]


def _resume_lines(trainer: Trainer) -> list[str]:
    """Return what is said of the checkpoint that a training goes on from."""
    lines = [f"passed over the damaged checkpoint {file}" for file in trainer.damaged_checkpoints]
    return [*lines, f"going on after step {trainer.resumed_at}"] if trainer.resumed_at else lines
