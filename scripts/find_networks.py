"""Go the whole way from pictures to networks for devices, e.g. `ofa find data.root=DIR`."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from build_latency_table import build_latency_table
from collect_accuracy import collect_accuracy
from export_subnet import export_subnet
from fit_predictor import fit_predictor
from report_run import report_run
from rich.console import Console
from rich.markup import escape
from search_for_device import search_for_device
from train_supernet import train_converted, train_supernet

from latency_tables.table.device import DeviceSpec
from latency_tables.table.limit import limits_between
from latency_tables.table.load import load_table
from latency_tables.table.measured import check_max_table_error
from ofa.common.command_line import DEFAULT_RUNS_DIR, assignments, command_line, flattened, run_settings
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.progress import duration_text, progress_bar, table_console
from ofa.common.shipped import experiment_settings, preset_settings, read_preset
from ofa.common.steps import Step, run_steps, steps_table
from ofa.common.text_settings import Name, PathText, ShortForm, StandsFor
from ofa.data.settings import DataSettings, task_settings
from ofa.graph.settings import ModelSettings
from ofa.launch import Command, command
from ofa.runs.directory import RunDirectory
from ofa.runs.plan import default_run_name
from ofa.runs.plan_start import StartChoice, plan_start
from ofa.space.staged import StagedSpace

Result = TypeVar("Result")
LIMIT_SHARES = (0.15, 0.35, 0.6)  # between the latencies of the smallest and the largest network
RANDOM_NETWORKS = 8  # measured beside the bundles, for comparison
INTERRUPTED = "Finished steps and what was measured are kept; the same command goes on."
FIT_S, SEARCH_S, EXPORT_S, TIMING_S = 3.0, 3.0, 6.0, 15.0  # on 2 cores of an EPYC


@dataclass(frozen=True)
class LatencyLimits:
    """Milliseconds that a network may take on each device; None for a choice by the table."""

    latency_ms: float | tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class FindConfig:
    """Settings of `conf/find_networks.yaml`."""

    run_name: Name | None
    data: DataSettings
    device: DeviceSpec | None
    more_devices: tuple[str, ...]
    limits: LatencyLimits
    init: PathText | None
    space: StagedSpace | None
    recipe: str | None
    length: float
    count: int
    calibration_images: int
    table_minutes: float
    max_table_error: float
    plan_only: bool
    model: Annotated[ModelSettings, ShortForm("name")] = field(default_factory=ModelSettings)
    experiment: Annotated[None, StandsFor(experiment_settings)] = None
    task: Annotated[None, StandsFor(task_settings)] = None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs_dir: PathText = DEFAULT_RUNS_DIR
    accelerator: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check that there is no space beside a model."""
        if self.space is not None and self.model.name is not None:
            raise UserError("There is a space and a model; expected one of them, or neither.")

    @property
    def choice(self) -> StartChoice:
        """What the user chose of the start of the training."""
        return StartChoice(self.space, self.model, self.recipe, has_init=self.init is not None)


@command("find_networks", FindConfig, interrupted=INTERRUPTED)
def find_networks(config: FindConfig) -> Path:
    """Print the plan, carry it out, and return the folder of the bundles."""
    return go_the_whole_way(config)


def go_the_whole_way(config: FindConfig) -> Path:
    """Do what `find_networks` does; for other commands."""
    start_s = time.perf_counter()
    print("looking at the images, and how long everything takes on this machine")
    way = Way(config)
    way.print_plan()
    if not config.plan_only:
        run_steps(way.steps, Console())
        print(f"the whole way took {duration_text(time.perf_counter() - start_s)}")
        print(f"bundles: {way.run.bundles}\ncurves: tensorboard --logdir {way.run.path / 'tensorboard'}")
        if way.left_out:
            lines = [f"No network for {name}: {reason}" for name, reason in way.left_out.items()]
            raise UserError("\n".join(lines))
    return way.run.bundles


class Way:
    """The steps from a set of images to bundles; each is a command of its own."""

    def __init__(self, config: FindConfig) -> None:
        """Look at the images, choose space, recipe and devices, and try how long everything takes.

        Raises:
            UserError: for images, devices or settings that cannot work; nothing has been written then.
        """
        from latency_tables.measuring.duration import estimate_duration_s
        from latency_tables.measuring.tables import networks_in
        from ofa.common.accelerator import choose_accelerator
        from ofa.data.sources import load_data
        from ofa.export.formats import formats_of_engines
        from ofa.runs.duration import estimate_durations
        from ofa.supernet.supernet import build_supernet

        check_max_table_error(config.max_table_error)
        self.config = config
        self.run = RunDirectory(config.runs_dir, config.run_name or default_run_name(config.data))
        self.devices = {device.name: device for device in _devices(config)}
        self._formats = formats_of_engines(device.engine for device in self.devices.values())
        self.left_out: dict[str, str] = {}
        with progress_bar("looking at the images") as progress:
            self._data = load_data(config.data, progress=progress)
        self._start = plan_start(
            self._data, config.data, config.choice, length=config.length, cache=self.run.path / "shrunk"
        )
        trained = train_supernet.config(*assignments(self._train_settings))
        device = choose_accelerator(config.accelerator, config.threads)
        with tempfile.TemporaryDirectory() as cache:
            # Nothing is written into the run's folder yet.
            tried = dataclasses.replace(trained.data, cache=trained.data.cache and cache)
            self.data = load_data(tried)
            converted = self._start.conversion
            supernet = converted.supernet if converted else build_supernet(trained.family.for_data(self.data))
            self._space = supernet.space
            images = min(config.calibration_images, self.data.size("train"))
            self._durations = estimate_durations(
                supernet, self.data, trained.recipe, device, calibration_images=images
            )
        networks = networks_in(supernet, supernet.space)
        self._tables_s = {name: estimate_duration_s(networks, spec) for name, spec in self.devices.items()}

    def print_plan(self) -> None:
        """Print what was seen, what was chosen, and the steps with their times."""
        space = self._space
        for note in self.data.notes:
            print(note)
        resolutions = ", ".join(map(str, space.allowed_resolutions))
        recipe = self._start.plan.recipe
        print(f"{space.name}: {space.size:.3g} sub-networks of {resolutions} px; recipe {recipe}")
        table_console().print(steps_table(self.steps, "shorter: length=0.5, count=50"))
        print(f"the training alone: {command_line('train', self._train_settings)}")

    @cached_property
    def steps(self) -> list[Step]:
        """The steps in their order."""
        config, evaluation_s = self.config, self._durations.evaluation_s
        num_networks = self._num_limits * len(self.devices) + 1
        networks_s = num_networks * (SEARCH_S + EXPORT_S + evaluation_s)
        report_s = (num_networks + RANDOM_NETWORKS) * evaluation_s + TIMING_S
        names = ", ".join(self.devices)
        return [
            Step(f"train a supernet on {self.data.info.name}", self._durations.training_s, self._train),
            Step(f"evaluate {config.count} sub-networks", config.count * evaluation_s, self._collect),
            Step("fit the accuracy predictor", FIT_S, self._fit),
            Step(f"measure latency tables: {names}", sum(self._tables_s.values()), self._measure),
            Step(f"search and export {num_networks} networks", networks_s, self._search_and_export),
            Step("measure them on test images", report_s * len(self.devices), self._report),
        ]

    @property
    def _num_limits(self) -> int:
        limits = self.config.limits.latency_ms
        if limits is None:
            return len(LIMIT_SHARES)
        return len(limits) if isinstance(limits, tuple) else 1

    @property
    def _train_settings(self) -> dict[str, object]:
        """The settings of `ofa train` that the plan comes to."""
        config, plan = self.config, self._start.plan
        recipe = {"phases": plan.recipe, "training": plan.recipe, "init": config.init}
        data = preset_settings("data", config.data)
        more = flattened(config.stages.get("train", {}))
        own = {**recipe, **plan.settings, "threads": config.threads, **more}
        return {**self._run_settings, **data, **self._start.settings, **own}

    @property
    def _run_settings(self) -> dict[str, object]:
        return dict(run_settings(self.run.name, self.config.runs_dir))

    def _go(self, stage: str, step: Command[Any, Result], settings: Mapping[str, object]) -> Result:
        """Run a step's command for this run, with the user's own settings for it last."""
        more = flattened(self.config.stages.get(stage, {}))
        given = {**self._run_settings, **settings, "threads": self.config.threads}
        return step.run(*assignments({**given, **more}))

    def _train(self) -> None:
        train = Command(
            train_supernet.name,
            train_supernet.schema,
            partial(train_converted, conversion=self._start.conversion),
        )
        train.run(*assignments({**self._train_settings, "accelerator": self.config.accelerator}))

    def _collect(self) -> None:
        images = {"count": self.config.count, "calibration_images": self.config.calibration_images}
        self._go("collect", collect_accuracy, images)

    def _fit(self) -> None:
        self._go("fit", fit_predictor, {})

    def _measure(self) -> None:
        for name in self.devices:
            try:
                self._go("measure", build_latency_table, self._table_settings(name))
            except UserError as error:
                self._leave_out(name, name, error)

    def _search_and_export(self) -> None:
        self._export("largest", "fp32")
        for name in [name for name in self.devices if name not in self.left_out]:
            self.left_out[name] = "every limit was left out"
            for limit in self._limits(name):
                settings = {**self._table_settings(name), "limits.latency_ms": limit}
                try:
                    subnet, _ = self._go("search", search_for_device, settings)
                except UserError as error:
                    self._leave_out(name, f"{name}, {limit:g} ms", error)
                    continue
                self._export(subnet, self.devices[name].precision)
                self.left_out.pop(name, None)

    def _leave_out(self, device_name: str, what: str, error: UserError) -> None:
        """Go on without it and say why; the end says it again if the device gets nothing else."""
        Console().print(f"[bold]left out {what}:[/] {escape(str(error))}", soft_wrap=True)
        self.left_out.setdefault(device_name, str(error))

    def _export(self, subnet: str, precision: str) -> None:
        formats = f"[{','.join(self._formats)}]"
        settings = {"subnet": subnet, "formats": formats, "precision": precision}
        images = {"calibration_images": self.config.calibration_images}
        self._go("export", export_subnet, {**settings, **images})

    def _report(self) -> None:
        for name in (name for name in self.devices if self.run.table(name).exists()):
            figure = {"figure": "pareto.png" if len(self.devices) == 1 else f"pareto-{name}.png"}
            images = {"calibration_images": self.config.calibration_images}
            self._go("report", report_run, {**self._device_settings(name), **figure, **images})

    def _device_settings(self, name: str) -> dict[str, object]:
        return preset_settings("device", self.devices[name])

    def _table_settings(self, name: str) -> dict[str, object]:
        return {**self._device_settings(name), "max_table_error": self.config.max_table_error}

    def _limits(self, device_name: str) -> Sequence[float]:
        """Return the limits that the user gave, or some between the extremes of the device's table."""
        limits = self.config.limits.latency_ms
        if limits is not None:
            return limits if isinstance(limits, tuple) else (limits,)
        table = load_table(self.run.table(device_name))
        return limits_between(table, self._space, LIMIT_SHARES)


def _devices(config: FindConfig) -> list[DeviceSpec]:
    """Return the devices with the effort that their tables are measured with."""
    from ofa.export.formats import FORMATS
    from ofa.runtimes.base import missing_packages

    default = "my_cpu" if missing_packages(FORMATS["onnx"].packages) else "my_cpu_onnx"
    names = [*([] if config.device else [default]), *config.more_devices]
    specs = [build(DeviceSpec, read_preset("device", name), f"device {name}") for name in names]
    return [
        dataclasses.replace(spec, processes=1, minutes=config.table_minutes)
        for spec in [*([config.device] if config.device else []), *specs]
    ]


if __name__ == "__main__":
    find_networks()
