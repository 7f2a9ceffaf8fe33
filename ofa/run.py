"""A run's directory: where each stage's files are, and the configuration it belongs to."""

from __future__ import annotations

import dataclasses
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ofa.accelerator import choose_accelerator
from ofa.checkpoint import SupernetInfo, load_supernet
from ofa.config import ConfigError, build, differences
from ofa.data import DataInfo, DataSettings, ImageData, load_data
from ofa.errors import UserError
from ofa.files import locked, read_json, write_json
from ofa.space import SearchSpace
from ofa.supernet import Supernet
from ofa.training.settings import Phase, TrainSettings


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run depends on; the schema of `conf/train_supernet.yaml`."""

    run_name: str
    space: SearchSpace
    data: DataSettings
    phases: dict[str, Phase]
    training: TrainSettings
    runs_dir: str = "runs"
    accelerator: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Give each phase the name it is listed under."""
        named = {name: dataclasses.replace(phase, name=name) for name, phase in self.phases.items()}
        object.__setattr__(self, "phases", named)

    def fitted_space(self, info: DataInfo) -> SearchSpace:
        """Return the space with the channels and classes of the data."""
        return dataclasses.replace(self.space, in_channels=info.in_channels, num_classes=info.num_classes)

    def record(self) -> dict[str, Any]:
        """Return the plain values that decide a run's result, without places and machine settings."""
        values = dataclasses.asdict(self)
        for name in ("run_name", "runs_dir", "accelerator", "threads"):
            del values[name]
        for name in ("root", "download", "workers"):
            del values["data"][name]
        for name in (
            "checkpoint_every_steps",
            "keep_checkpoints",
            "validate_every_epochs",
            "validation_images",
            "on_non_finite",
        ):
            del values["training"][name]
        del values["space"]["restriction"]
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    def provenance(self, info: DataInfo) -> dict[str, Any]:
        """Return what stands beside the trained supernet: how it was made, from which images."""
        return {"run": self.run_name, "class_names": list(info.class_names), "config": self.record()}


class RunDirectory:
    """`<runs_dir>/<run_name>`: each stage finds the files of the earlier ones here."""

    def __init__(self, runs_dir: str, run_name: str) -> None:
        """Name the directory; nothing is created."""
        self.path = Path(runs_dir) / run_name
        self.name = run_name
        self.supernet = self.path / "supernet.pt"
        self.records = self.path / "accuracy.jsonl"
        self.predictor = self.path / "predictor.pt"
        self.bundles = self.path / "bundles"

    def table(self, device_name: str) -> Path:
        """Path of the latency table of a device."""
        return self.path / "latency" / f"{device_name}.json"

    def bundle(self, name: str) -> Path:
        """Path of the bundle of that name in the run, or `name` itself where there is none."""
        path = self.bundles / name
        return path if path.is_dir() else Path(name)

    def search(self, name: str) -> Path:
        """Path of a search result."""
        return self.path / "search" / f"{name}.json"

    def kit(self, name: str) -> Path:
        """Path of a kit for another device."""
        return self.path / "kits" / name

    def locked(self, stage: str, writes: bool) -> AbstractContextManager[None]:
        """Return the lock of a stage, for the process of it that `writes` files; see `ofa.files.locked`."""
        if not writes:
            return nullcontext()
        return locked(self.path / f".{stage}.lock", f"the {stage} of {self.path}")

    def claim(self, config: TrainConfig) -> None:
        """Make the directory belong to `config`, or check that it does.

        A directory in which no step has been saved yet takes any configuration.

        Raises:
            UserError: if it holds a run of a different configuration, naming what differs.
        """
        file = self.path / "config.json"
        record = config.record()
        started = self.supernet.exists() or any((self.path / "checkpoints").glob("step_*.pt"))
        if not (started and file.exists()):
            write_json(file, {**record, "data_root": config.data.root})
            return
        changes = differences(self._recorded(file), record)
        if changes:
            raise UserError(
                f"{self.path} holds a run of a different configuration: {'; '.join(changes[:8])}. Choose "
                "another run_name, give the same settings to resume, or remove that directory."
            )

    def _recorded(self, file: Path) -> dict[str, Any]:
        """Return the run's record as it is written today: settings added since have their defaults."""
        values = read_json(file, "run configuration", "python scripts/train_supernet.py")
        values.pop("data_root", None)
        try:
            return build(TrainConfig, {**values, "run_name": self.name}, str(file)).record()
        except ConfigError as error:
            raise UserError(
                f"{self.path} holds a run whose configuration this version does not know: {error} Go on with "
                "the version that began it, or choose another run_name."
            ) from error

    def load_data_settings(self, root: str | None) -> DataSettings:
        """Return the run's data settings, with `root` in place of the recorded folder if given.

        Raises:
            UserError: if there is no such run.
        """
        file = self.path / "config.json"
        command = f"python scripts/train_supernet.py run_name={self.name}"
        values = read_json(file, f"run {self.name!r}", command)
        where = {"root": root or values.get("data_root")}
        return build(DataSettings, {**values.get("data", {}), **where}, str(file))


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

    run_name: str
    runs_dir: str
    data_root: str | None = None
    accelerator: str = "auto"
    threads: int | None = None

    @property
    def directory(self) -> RunDirectory:
        """The run's directory."""
        return RunDirectory(self.runs_dir, self.run_name)

    @property
    def trained_space(self) -> SearchSpace:
        """The space of the trained supernet; see `trained_space`."""
        return trained_space(load_supernet(self.directory.supernet)[1])


def trained_space(info: SupernetInfo) -> SearchSpace:
    """Return the space of a supernet, restricted to the networks that the last phase of its training opened.

    The whole space, if it was not trained here.
    """
    phases = info.provenance.get("config", {}).get("phases", {})
    return build(Phase, [*phases.values()][-1]).space(info.space) if phases else info.space


@dataclass(frozen=True)
class TrainedRun:
    """A trained run with what its later stages need; the supernet is on `device`, in eval mode."""

    directory: RunDirectory
    supernet: Supernet
    info: SupernetInfo
    data: ImageData
    device: torch.device

    @property
    def trained_space(self) -> SearchSpace:
        """See `trained_space`."""
        return trained_space(self.info)


def open_run(config: RunConfig) -> TrainedRun:
    """Load the supernet and the images of a run.

    Raises:
        UserError: if there is no such run, or one of its files is missing or damaged.
    """
    device = choose_accelerator(config.accelerator, config.threads)
    directory = config.directory
    data = load_data(directory.load_data_settings(config.data_root))
    supernet, info = load_supernet(directory.supernet)
    found = data.info.in_channels, data.info.num_classes
    classes = info.provenance.get("class_names", list(data.info.class_names))
    if found != (info.space.in_channels, info.space.num_classes) or classes != list(data.info.class_names):
        raise UserError(
            f"The images of {data.info.name} have {found[0]} channels and the classes "
            f"{', '.join(data.info.class_names[:10])}; run {config.run_name!r} was trained on "
            f"{info.space.in_channels} channels and {', '.join(map(str, classes[:10]))}. "
            "Give the data_root of the same images."
        )
    return TrainedRun(directory, supernet.to(device), info, data, device)
