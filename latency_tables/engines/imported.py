"""The engine of a device that has an imported table only and cannot be measured here."""

from __future__ import annotations

from latency_tables.engines.base import Engine
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError


def refuse_imported(device: DeviceSpec) -> Engine:
    """Refuse to measure on an imported device.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"Device {device.name!r} has an imported latency table only; it cannot be measured "
        "from here. Search with that table, or choose a device of this machine, for instance device=my_cpu."
    )
