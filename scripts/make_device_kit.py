"""Write a kit that measures a table on another device, e.g. `ofa kit device.name=raspberry_pi`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency_tables.table.device import DeviceSpec
from ofa.common.progress import progress_bar
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
    calibration_networks: int
    validation_networks: int
    output: PathText | None
    seed: int


@command("make_device_kit", KitConfig)
def make_device_kit(config: KitConfig) -> KitInfo:
    """Write the kit and say how to go on."""
    from latency_tables.measuring.plan import plan_table
    from latency_tables.remote.kit import make_table_kit
    from ofa.common.accelerator import threads_set

    device = config.device
    space = (config.space or config.trained_family).restrict({"resolution": config.resolutions})
    networks = config.calibration_networks, config.validation_networks
    kits = Path(config.runs_dir) / "kits" / space.name / device.name
    path = Path(config.output or (kits if config.space else config.directory.kit(device.name)))
    with threads_set(config.threads), progress_bar(f"writing the kit for {device.name}") as progress:
        kit = make_table_kit(plan_table(space, device, config.seed, *networks), path, progress)
    settings = {"space": space.name if config.space else None, "from_kit": path}
    print(
        f"kit: {path}, {kit.num_programs} programs, {kit.size / 1e6:.1f} MB. Copy it to the device, run "
        "there: python3 measure.py\nIt needs Python 3.8, numpy and the engine. Bring measurements.json back, "
        "then:\n"
        f"{next_command(config, 'measure', settings)}"
    )
    return kit


if __name__ == "__main__":
    make_device_kit()
