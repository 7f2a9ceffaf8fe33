"""What a run is made from, what its later stages are told, and whether a directory belongs to it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from ofa.common.command_line import DEFAULT_RUNS_DIR, command_line, run_settings
from ofa.common.config import ConfigError, build, differences
from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.common.locks import sole_writer
from ofa.common.reading import read_json
from ofa.common.text_settings import Implied, Name, PathText, ShortForm, StandsFor
from ofa.data.settings import DataInfo, DataSettings, task_settings
from ofa.graph.settings import ModelSettings
from ofa.graph.space import ImageSpace, family_space
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_info import read_supernet_info, trained_space
from ofa.space.staged import StagedSpace
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe, name_phases
from ofa.training.settings import TrainSettings

MODEL_IMPLIES = {"space": "null", "phases": "user_model", "training": "user_model"}
"""Settings of a training that the name of a user's model stands for, where they are not given."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run depends on; the schema of `conf/train_supernet.yaml`.

    Attributes:
        init: source of the first weights, see `ofa.runs.start_from`; null for random ones.
        space: space of the supernet; None for a user's model.
        model: the user's model, whose name is None for a space.
        task: stands for `data.task` on a command line.
    """

    run_name: Name
    data: DataSettings
    phases: dict[str, Phase]
    training: TrainSettings
    runs_dir: PathText = DEFAULT_RUNS_DIR
    accelerator: str = "auto"
    threads: int | None = None
    init: PathText | None = None
    space: StagedSpace | None = None
    model: Annotated[ModelSettings, ShortForm("name"), Implied(MODEL_IMPLIES)] = field(
        default_factory=ModelSettings
    )
    task: Annotated[None, StandsFor(task_settings)] = None

    def __post_init__(self) -> None:
        """Check that there is a space or a model, and give each phase the name it is listed under."""
        if (self.space is None) == (self.model.name is None):
            both = "neither space nor model" if self.space is None else "a space and a model"
            raise UserError(f"There is {both}; expected one of them (null for the other).")
        if self.space is None and self.training.dropout:
            raise UserError("training.dropout is for spaces; a user's model has its own. Set it to 0.")
        object.__setattr__(self, "phases", {phase.name: phase for phase in name_phases(self.phases)})

    @property
    def family(self) -> StagedSpace:
        """The space of a training without a user's model."""
        assert self.space is not None
        return self.space

    @property
    def recipe(self) -> Recipe:
        """How the supernet is trained."""
        return Recipe(tuple(self.phases.values()), self.training)

    def record(self) -> dict[str, Any]:
        """Return the plain values that decide a run's result, without places and machine settings."""
        values = dataclasses.asdict(self)
        for name in ("run_name", "runs_dir", "accelerator", "threads", "task"):
            del values[name]
        values["data"] = data_record(self.data)
        undeciding = ["checkpoint_every_steps", "keep_checkpoints", "on_non_finite"]
        if self.training.early_stopping is None:
            undeciding += ["validate_every_epochs", "validate_every_steps", "validation_images"]
        for name in undeciding:
            del values["training"][name]
        if self.space is None:
            # The weights are compared by their content; see `ofa.runs.user_model`.
            del values["space"], values["model"]["weights"]
        else:
            del values["space"]["restriction"], values["model"]
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    def provenance(self, info: DataInfo) -> dict[str, Any]:
        """Return what stands beside the trained supernet: how it was made, from which images."""
        values = {"run": self.run_name, "class_names": list(info.class_names), "config": self.record()}
        scale = info.target_scale
        return values if scale is None else {**values, "target_scale": dataclasses.asdict(scale)}


def data_record(data: DataSettings) -> dict[str, Any]:
    """Return the plain values that decide which images these are, without places and machine settings.

    Code of the user's own is part of it where there is any.
    """
    values = dataclasses.asdict(data)
    for name in ("root", "download", "workers", "cache"):
        del values[name]
    for name in ("task", "source", "kwargs"):
        if not values[name]:
            del values[name]
    return values


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of every command that goes on from a trained run.

    Attributes:
        run_name: name of the run.
        runs_dir: folder of all runs.
        data_root: folder of the images; null for the one the run was trained with.
        accelerator: auto, cpu or cuda.
        threads: CPU threads of PyTorch and of linear algebra; null for the libraries' choice.
    """

    run_name: Name
    runs_dir: PathText = DEFAULT_RUNS_DIR
    data_root: PathText | None = None
    accelerator: str = "auto"
    threads: int | None = None

    @property
    def directory(self) -> RunDirectory:
        """The run's directory."""
        return RunDirectory(self.runs_dir, self.run_name)

    @property
    def trained_space(self) -> ImageSpace:
        """The space of the trained supernet; see `trained_space`."""
        return trained_space(read_supernet_info(self.directory.supernet))

    @property
    def trained_family(self) -> StagedSpace:
        """The space of the trained supernet, for what exists for published families alone.

        Raises:
            UserError: for a run of a user's model.
        """
        return family_space(self.trained_space, f"Run {self.run_name!r}")


def next_command(
    config: TrainConfig | RunConfig, stage: str, settings: Mapping[str, object] | None = None
) -> str:
    """Return the line that tells how to go on: `next: ofa STAGE run_name=NAME …`."""
    named_run = run_settings(config.run_name, config.runs_dir)
    return f"next: {command_line(stage, {**named_run, **(settings or {})})}"


def has_begun(directory: RunDirectory) -> bool:
    """Return whether a training has saved a step, or its supernet, in the directory."""
    return directory.supernet.exists() or any((directory.path / "checkpoints").glob("step_*.pt"))


def claim_directory(
    directory: RunDirectory, config: TrainConfig, facts: Mapping[str, Any] | None = None
) -> None:
    """Make a run's directory belong to `config`, or check that it does.

    A directory in which no step has been saved yet takes any configuration.

    Args:
        directory: the directory.
        config: configuration of the run.
        facts: further entries to write beside the configuration.

    Raises:
        UserError: if it holds a run of a different configuration, naming what differs.
    """
    record = config.record()
    if not (has_begun(directory) and directory.config.exists()):
        write_json(directory.config, {**record, "data_root": config.data.root, **(facts or {})})
        return
    changes = differences(_recorded(directory), record)
    if changes:
        raise UserError(
            f"{directory.path} holds a run of a different configuration: {'; '.join(changes[:8])}. Choose "
            "another run_name, give the same settings to resume, or remove that directory."
        )


def claim_images(directory: RunDirectory, data: DataSettings) -> None:
    """Make images those of a directory without a run, so that later stages find them, or check that they are.

    Raises:
        UserError: if the directory holds a run of other images.
    """
    with sole_writer(directory.config, "run configuration", setting="run_name"):
        if not directory.config.exists():
            write_json(directory.config, {"data": data_record(data), "data_root": data.root})
            return
    changes = differences(data_record(load_data_settings(directory, data.root)), data_record(data), "data")
    if changes:
        raise UserError(
            f"{directory.path} holds a run of other images: {'; '.join(changes[:8])}. Choose another "
            "run_name."
        )


def _recorded(directory: RunDirectory) -> dict[str, Any]:
    """Return the run's record as it is written today: settings added since have their defaults."""
    values = read_json(directory.config, "run configuration", "train")
    for name in ("data_root", "start"):
        values.pop(name, None)
    if "imported" in values:
        raise UserError(
            f"{directory.path} holds a run of a different configuration: an imported supernet. Choose "
            "another run_name."
        )
    try:
        return build(TrainConfig, {**values, "run_name": directory.name}, str(directory.config)).record()
    except ConfigError as error:
        raise UserError(
            f"{directory.path} holds a run whose configuration this version does not know: {error} Go on "
            "with the version that began it, or choose another run_name."
        ) from error


def load_data_settings(directory: RunDirectory, root: str | None) -> DataSettings:
    """Return a run's data settings, with `root` in place of the recorded folder if given.

    Raises:
        UserError: if there is no such run, or its configuration names other images than its supernet was
            trained with.
    """
    values = read_json(directory.config, f"run {directory.name!r}", "train")
    data = values.get("data", {})
    where = {"root": root or values.get("data_root")}
    settings = build(
        DataSettings, {**data, **where} if isinstance(data, dict) else data, str(directory.config)
    )
    _check_trained_images(directory, settings)
    return settings


def _check_trained_images(directory: RunDirectory, settings: DataSettings) -> None:
    """Raise if a supernet says that it was trained with other images, or another split of them."""
    if not directory.supernet.with_suffix(".json").exists():
        return
    trained = read_supernet_info(directory.supernet).data
    changes = [] if trained is None else differences(data_record(trained), data_record(settings), "data")
    if changes:
        raise UserError(
            f"{directory.config} was changed after the training: {'; '.join(changes[:8])}. Its supernet was "
            "trained with the former, and images that it was trained on would be used to judge it. Put the "
            "old values back, or train again under another run_name."
        )
