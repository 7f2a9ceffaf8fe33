"""`table_of_networks`: the latency table that follows from a few measured networks of a space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_tables.table.calibration import Calibration, MeasuredNetwork, Validation
from latency_tables.table.device import DeviceSpec
from latency_tables.table.estimate import layers_by_resolution, merged_entries
from latency_tables.table.measured import now_text
from latency_tables.table.regression import LatencyFit, Values, fit_latencies, left_out_ms
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import MAX_MS, ImportedTiming, Timing
from latency_tables.table.transfer import METHOD, Transfer
from latency_tables.transfer.columns import Columns
from ofa.common.errors import UserError
from ofa.space.subnet import SubnetConfig


@dataclass(frozen=True)
class NetworkLatency:
    """A whole network that was measured.

    Attributes:
        config: the network.
        latency_ms: its latency in milliseconds.
        spread_ms: interquartile range of its runs; 0 if unknown.
    """

    config: SubnetConfig
    latency_ms: float
    spread_ms: float = 0.0

    def __post_init__(self) -> None:
        """Check both numbers.

        Raises:
            UserError: naming the network.
        """
        if not (0 < self.latency_ms <= MAX_MS and 0 <= self.spread_ms <= MAX_MS):
            raise UserError(
                f"Network {self.config.id} takes {self.latency_ms} ms with a spread of {self.spread_ms} ms; "
                f"expected numbers up to {MAX_MS:g}, the first one above 0."
            )


@dataclass(frozen=True)
class Origin:
    """Where the latencies of networks come from.

    Attributes:
        device: the device.
        engine: facts about its engine.
        seed: seed of the choice of the networks; None if they were measured elsewhere.
        measurements: SHA-256 of the file with the latencies; empty without one.
        repeatability_percent: median difference of a network between processes; see `Validation`.
    """

    device: DeviceSpec
    engine: dict[str, str]
    seed: int | None
    measurements: str = ""
    repeatability_percent: float | None = None


def table_of_networks(columns: Columns, networks: Sequence[NetworkLatency], origin: Origin) -> LatencyTable:
    """Return the table whose entries are the fitted combination of columns of each layer.

    Its error is that of predicting each network by a fit to the others.

    Args:
        columns: the (restricted) space of the table, and what latencies are composed of.
        networks: measured networks of that space.
        origin: device and engine that they were measured on.

    Raises:
        UserError: if there are too few networks or too many, one is there twice, or is not of the space.
    """
    _check_networks(columns, networks)
    matrix = columns.matrix(columns.space.genomes([network.config for network in networks]))
    measured_ms = np.array([network.latency_ms for network in networks])
    fit = fit_latencies(matrix, columns.num_free, measured_ms)
    predictions_ms = left_out_ms(matrix, columns.num_free, measured_ms)
    validation = Validation.of(
        _records(networks, predictions_ms), origin.repeatability_percent, cross_validated=True
    )
    space = columns.space
    return LatencyTable(
        device=origin.device,
        engine=origin.engine,
        method=METHOD,
        date=now_text(),
        seed=origin.seed,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        calibration=Calibration(1.0, fit.offset_ms, _records(networks, fit.predict(matrix))),
        validation=validation,
        entries=_entries(columns, fit),
        transfer=Transfer(
            columns.sources.records,
            dict(zip(columns.names, fit.weights, strict=True)),
            fit.strength if math.isfinite(fit.strength) else None,
            origin.measurements,
        ),
    )


def _check_networks(columns: Columns, networks: Sequence[NetworkLatency]) -> None:
    configs = [network.config for network in networks]
    twice = next((config for config in configs if configs.count(config) > 1), None)
    if twice is not None:
        raise UserError(f"Network {twice.id} was measured twice ({twice}); give one latency for it.")
    for config in configs:
        if not columns.space.contains(config):
            raise UserError(
                f"Network {config.id} ({config}) is not one of space {columns.space.name!r} at "
                f"{', '.join(map(str, columns.space.allowed_resolutions))} px, which the table is for."
            )


def _records(networks: Sequence[NetworkLatency], predictions_ms: Values) -> tuple[MeasuredNetwork, ...]:
    return tuple(
        MeasuredNetwork(
            network.config.id,
            network.config.to_dict(),
            network.latency_ms,
            float(predicted_ms),
            network.spread_ms,
        )
        for network, predicted_ms in zip(networks, predictions_ms, strict=True)
    )


def _entries(columns: Columns, fit: LatencyFit) -> dict[str, Timing | ImportedTiming]:
    layers = layers_by_resolution(columns.space)
    weights = np.array(fit.weights)
    timings: dict[str, dict[int, ImportedTiming]] = {}
    for resolution, specs in layers.items():
        for spec in specs:
            latency_ms = float(columns.of_layer(spec, resolution) @ weights)
            timings.setdefault(spec.key, {})[resolution] = ImportedTiming(latency_ms)
    return merged_entries(timings, layers)
