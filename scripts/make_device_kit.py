"""Write a kit that measures a table on another device, e.g. `ofa kit device.name=raspberry_pi`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_latency_table import refuse_layer_settings

from latency_tables.table.device import DeviceSpec
from latency_tables.transfer.choice import NUM_NETWORKS
from latency_tables.transfer.network_file import LIST_FILE
from latency_tables.transfer.sources import read_sources
from ofa.common.command_line import flattened
from ofa.common.progress import ProgressCallback, progress_bar
from ofa.common.text_settings import PathText
from ofa.launch import command
from ofa.runs.config import RunConfig, next_command
from ofa.space.staged import StagedSpace

if TYPE_CHECKING:
    from latency_tables.remote.kit import KitInfo


@dataclass(frozen=True, kw_only=True)
class KitConfig(RunConfig):
    """Settings of `conf/make_device_kit.yaml`."""

    device: DeviceSpec
    space: StagedSpace | None
    resolutions: tuple[int, ...] | None
    calibration_networks: int | None
    validation_networks: int | None
    networks: int | None
    from_table: PathText | tuple[PathText, ...] | None
    output: PathText | None
    seed: int

    def __post_init__(self) -> None:
        """Check that the settings are those of one kind of kit."""
        if self.is_of_networks:
            refuse_layer_settings(self.calibration_networks, self.validation_networks)

    @property
    def is_of_networks(self) -> bool:
        """Whether the kit measures whole networks alone."""
        return self.networks is not None or bool(self.from_table)


@command("make_device_kit", KitConfig)
def make_device_kit(config: KitConfig) -> KitInfo:
    """Write the kit and say how to go on."""
    from ofa.common.accelerator import threads_set

    device = config.device
    space = (config.space or config.trained_family).restrict({"resolution": config.resolutions})
    kits = Path(config.runs_dir) / "kits" / space.name / device.name
    path = Path(config.output or (kits if config.space else config.directory.kit(device.name)))
    with threads_set(config.threads), progress_bar(f"writing the kit for {device.name}") as progress:
        kit = _kit(config, space, path, progress)
    settings: dict[str, object] = {"space": space.name if config.space else None, "from_kit": path}
    if config.from_table:
        settings |= flattened({"from_table": config.from_table})
    print(
        f"kit: {path}, {kit.num_programs} programs, {kit.size / 1e6:.1f} MB. Copy it to the device, run "
        "there: python3 measure.py\nIt needs Python 3.8, numpy and the engine. Bring measurements.json back, "
        "then:\n"
        f"{next_command(config, 'measure', settings)}"
    )
    if config.is_of_networks:
        print(
            f"Or, without Python on the device: {path / LIST_FILE} lists the networks and their files (.gz); "
            "fill in latency_ms, and give network_latencies=FILE device=imported in place of from_kit."
        )
    return kit


def _kit(config: KitConfig, space: StagedSpace, path: Path, progress: ProgressCallback) -> KitInfo:
    from latency_tables.measuring.plan import NUM_VALIDATION, plan_table
    from latency_tables.remote.kit import make_table_kit
    from latency_tables.remote.network_kit import make_few_networks_kit

    if config.is_of_networks:
        return make_few_networks_kit(
            space,
            config.device,
            path,
            NUM_NETWORKS if config.networks is None else config.networks,
            sources=read_sources(config.from_table, space),
            seed=config.seed,
            progress=progress,
        )
    num_validation = NUM_VALIDATION if config.validation_networks is None else config.validation_networks
    plan = plan_table(space, config.device, config.seed, config.calibration_networks, num_validation)
    return make_table_kit(plan, path, progress)


if __name__ == "__main__":
    make_device_kit()
