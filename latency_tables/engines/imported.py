"""The engine of a device that has an imported table only and cannot be measured here."""

from __future__ import annotations

from latency_tables.engines.base import Engine
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError


def refuse_imported(device: DeviceSpec) -> Engine:
    """Say that nothing is measured on an imported device.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"Device {device.name!r} is known by its imported latency table alone; nothing can be measured on it "
        "from here. Search with that table, or choose a device of this machine, for instance device=my_cpu."
    )
