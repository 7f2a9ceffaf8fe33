"""Prune a trained PyTorch network to a budget and fine-tune it, e.g. `ofa prune model=my:Net macs_share=0.5`.

Its images are settings as in a training: data=image_folder data.root=DIR.
An interrupted run is continued by the same command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from latency_tables.table.device import DeviceSpec, device_values
from ofa.common.command_line import command_line, run_settings
from ofa.common.errors import UserError
from ofa.common.progress import progress_bar
from ofa.common.text_settings import Name, PathText, ShortForm, StandsFor
from ofa.data.settings import DataSettings, task_settings
from ofa.graph.settings import ModelSettings
from ofa.launch import command, job_name
from ofa.runs.directory import RunDirectory
from ofa.runs.pruning_settings import LATENCY, PruningSettings

if TYPE_CHECKING:
    from torch import nn

    from ofa.runs.pruned import PrunedNetwork


@dataclass(frozen=True, kw_only=True)
class PruneModelConfig(PruningSettings):
    """Settings of `conf/prune_model.yaml`."""

    model: Annotated[ModelSettings, ShortForm("name")]
    data: DataSettings
    task: Annotated[None, StandsFor(task_settings)]
    device: DeviceSpec | None
    run_name: Name
    runs_dir: PathText
    formats: tuple[str, ...]
    accelerator: str
    threads: int | None

    def __post_init__(self) -> None:
        """Check that there is a network with one resolution, and a device for a limit of latency."""
        self.model.check_given()
        self.model.check_not_split()
        super().__post_init__()
        if len(self.model.resolutions) > 1:
            raise UserError(
                f"model.resolutions is {list(self.model.resolutions)}; a network is pruned at one resolution."
            )
        if (self.device is None) != (LATENCY not in self.limits.by_cost):
            raise UserError(
                "limits.latency_ms and device are given together, e.g. device=my_cpu, or not at all."
            )


@command(
    "prune_model",
    PruneModelConfig,
    interrupted="What was evaluated and trained so far is kept; the same command goes on from it.",
)
def prune_model(config: PruneModelConfig) -> PrunedNetwork:
    """Prune, fine-tune, write the files and return the network, of several the smallest."""
    from ofa.common.accelerator import choose_accelerator
    from ofa.data.sources import load_data
    from ofa.runs.pruning_run import prune_in

    device = choose_accelerator(config.accelerator, config.threads)
    data = load_data(config.data)
    measure = partial(measured_ms, config.device, config.seed) if config.device else None
    directory = RunDirectory(config.runs_dir, job_name(config.run_name, ["run_name"]))
    results = prune_in(
        directory,
        config.model,
        config.data,
        data,
        config,
        device=device,
        bar=progress_bar,
        note=partial(print, flush=True),
        formats=config.formats,
        measure=measure,
        device_record=device_values(config.device) if config.device else None,
    )
    for _, report in results:
        print(f"bundle: {report.path}; counts and costs: {directory.path / report.path.name}.json")
    pruned, report = results[-1]
    settings = {**run_settings(directory.name, config.runs_dir), "bundle": report.path.name}
    print(f"next: {command_line('evaluate', settings)}")
    return pruned


def measured_ms(
    device: DeviceSpec, seed: int, networks: Sequence[nn.Module], image_shape: tuple[int, int, int]
) -> list[float]:
    """Return the latency of networks on a device, measured together (ms)."""
    from latency_tables.measuring.networks import TimedNetwork, measure_networks

    timed = {str(index): TimedNetwork(network, image_shape) for index, network in enumerate(networks)}
    with progress_bar(f"measuring {len(timed)} networks on {device.name}") as progress:
        timings = measure_networks(timed, device, seed, progress)
    return [timings[name].latency_ms for name in timed]


if __name__ == "__main__":
    prune_model()
