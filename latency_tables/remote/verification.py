"""Measuring the candidates of a verified search: at once on this machine, or by a kit on another device."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latency_tables.engines.base import processor_name
from latency_tables.measuring.networks import measure_subnets
from latency_tables.measuring.tables import Networks
from latency_tables.remote.kit import KIT_RUNTIMES, KitInfo, is_verification_kit, make_verification_kit
from latency_tables.remote.results import MEASURED_BY_KIT, networks_from_kit
from latency_tables.table.device import DeviceSpec
from latency_tables.table.measured import MeasuredTable
from latency_tables.table.table import LatencyTable
from ofa.common.command_line import quoted
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.space.config import AnyConfig
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

_MINUTES_PER_PROCESS = 0.5
_ROUNDS, _SPREAD_PERCENT = 4, 0.5
"""Minimum rounds and standard error: a few networks are measured more thoroughly than a table."""


@dataclass(frozen=True)
class MeasureHere:
    """Measures sub-networks on this machine, in `processes` fresh processes, seeded by `seed`."""

    networks: Networks
    device: DeviceSpec
    processes: int
    seed: int = 0
    progress: ProgressCallback = silent
    is_local: bool = True
    known_values: Mapping[AnyConfig, Sequence[float]] = field(default_factory=dict)
    next_step: str = ""

    def __call__(self, configs: Sequence[AnyConfig]) -> dict[AnyConfig, list[float]]:
        """Return the latency (ms) of each network in each process.

        Raises:
            UserError: if the engine is not installed or fails, or a process ends early.
        """
        device = dataclasses.replace(
            self.device,
            min_rounds=min(self.device.rounds, _ROUNDS),
            spread_percent=min(self.device.spread_percent, _SPREAD_PERCENT),
            minutes=min(self.device.minutes, _MINUTES_PER_PROCESS * self.processes),
        )
        networks = self.networks
        if isinstance(networks, StagedSpace):
            networks = networks.unrestricted
        latencies = measure_subnets(networks, configs, device, self.seed, self.progress, self.processes)
        return dict(zip(configs, latencies, strict=True))


class MeasureByKit:
    """Provides measurements of kits from another device; writes a kit for further networks.

    Attributes:
        is_local: always False.
        known_values: milliseconds of each network in each process, from the given kits.
        next_step: instructions for the user on the written kit; empty if none was written.
    """

    is_local = False

    def __init__(
        self,
        space: StagedSpace,
        table: LatencyTable,
        folder: Path,
        kits: Sequence[Path] = (),
        seed: int = 0,
        progress: ProgressCallback = silent,
    ) -> None:
        """Read the measurements of `kits`; a new kit is written to `folder`, or to a free name beside it.

        Raises:
            UserError: if a kit is incomplete or damaged, or belongs to another space or device than the
                table.
        """
        self._space, self._folder, self._kits = space.unrestricted, folder, tuple(kits)
        self._device = table.device
        if self._device.engine not in KIT_RUNTIMES:
            # An imported table has no engine to measure with, so the kit's engine is used.
            name, threads, batch_size = self._device.name, self._device.threads, self._device.batch_size
            self._device = DeviceSpec(name, "onnx_runtime", threads=threads, batch_size=batch_size)
        self._seed, self._progress = seed, progress
        self.known_values: dict[SubnetConfig, list[float]] = {}
        self.next_step = ""
        for kit in kits:
            self.known_values |= networks_from_kit(kit, self._space, table)

    def __call__(self, configs: Sequence[SubnetConfig]) -> dict[SubnetConfig, list[float]]:
        """Write a kit of these networks and return an empty result: it has to be measured elsewhere."""
        folder = self._folder_for(configs)
        info = make_verification_kit(self._space, configs, self._device, self._seed, folder, self._progress)
        self.next_step = self._how_to_go_on(info)
        return {}

    def _folder_for(self, configs: Sequence[SubnetConfig]) -> Path:
        """Return a free folder, or that of the same kit, which an interrupted search has written."""
        for number in range(1000):
            path = self._folder.with_name(f"{self._folder.name}{f'-{number}' if number else ''}")
            is_free = not path.exists()
            if is_free or is_verification_kit(path, self._space, configs, self._device, self._seed):
                break
        return path

    def _how_to_go_on(self, info: KitInfo) -> str:
        kits = ",".join(quoted(str(path)) for path in (*self._kits, info.path))
        setting = shlex.quote(f"from_kit=[{kits}]")
        return (
            f"verification kit: {info.path} ({info.num_programs} networks, {info.size / 1e6:.1f} MB). Copy "
            f"it to {self._device.name}, run there: python3 measure.py, bring measurements.json back into "
            f"the folder, then repeat this command with {setting}"
        )


def choose_measure(
    table: MeasuredTable | None,
    device: DeviceSpec,
    networks: Networks,
    processes: int,
    folder: Path,
    from_kit: str | Sequence[str] | None = None,
    seed: int = 0,
    progress: ProgressCallback = silent,
) -> MeasureHere | MeasureByKit:
    """Return the measuring object for the candidates of a search with `table`.

    Args:
        table: latency table of the target device; None if the search does not limit its latency.
        device: device as described by the user.
        networks: the space of a published family, or the user's model, to search.
        processes: fresh processes per measurement on this machine.
        folder: folder of a new kit, if the table's device is not this machine.
        from_kit: folders of measured kits for this search.
        seed: seed of the orders, weights and inputs.
        progress: called while measuring, or while writing a kit.

    Raises:
        UserError: if there is no table, a kit cannot be read, or the device is another machine and kits do
            not support its engine.
    """
    if table is None:
        raise UserError("verify=true needs a latency to verify; give limits.latency_ms=VALUE.")
    kits = [from_kit] if isinstance(from_kit, str) else list(from_kit or ())
    is_other = _is_other_machine(table, device)
    if not (kits or MEASURED_BY_KIT in table.engine or device.accelerator == "other" or is_other):
        return MeasureHere(networks, device, processes, seed, progress)
    if not isinstance(networks, StagedSpace) or not isinstance(table, LatencyTable):
        raise UserError(
            f"Device {device.name!r} is another machine, where kits measure; they exist for the published "
            "families alone. Verify a user's model on the machine itself, or search without verify=true."
        )
    if is_other and device.engine not in KIT_RUNTIMES:
        raise UserError(
            f"The table of device {device.name!r} was measured on {table.engine['processor']!r}; this "
            f"machine has {processor_name()!r}, and kits cannot measure with {device.engine!r} there. To "
            "verify for this machine, choose a device of another name and give table=PATH of that table."
        )
    return MeasureByKit(networks, table, folder, [Path(kit) for kit in kits], seed, progress)


def _is_other_machine(table: MeasuredTable, device: DeviceSpec) -> bool:
    """Return whether the device is the table's, with another processor than this machine's."""
    if device.accelerator != "cpu" or device.name != table.device.name:
        return False
    return table.engine.get("processor", processor_name()) != processor_name()
