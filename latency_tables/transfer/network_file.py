"""CSV files of networks: those to measure on a device, and their latencies once they are filled in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from latency_tables.transfer.columns import columns_of
from latency_tables.transfer.fitted_table import NetworkLatency, Origin, table_of_networks
from latency_tables.transfer.sources import NO_SOURCES, Sources
from ofa.common.display import short_repr
from ofa.common.errors import UserError
from ofa.common.files import sha256
from ofa.common.plain_values import checked_object, parse_json
from ofa.common.reading import read_bytes, read_text
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

NETWORK, CONFIG, MODEL, LATENCY = "network", "config", "model", "latency_ms"
LIST_FILE = "networks.csv"
"""Name of the list in the folder of a kit."""

WHAT = "file of network latencies"


def network_list(configs: Sequence[SubnetConfig], models: Sequence[str]) -> str:
    """Return the text of a CSV file with a row for each network, whose latency is still empty.

    Args:
        configs: the networks.
        models: path of the model file of each.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([NETWORK, CONFIG, MODEL, LATENCY])
    for config, model in zip(configs, models, strict=True):
        writer.writerow([config.id, json.dumps(config.to_dict()), model, ""])
    return file.getvalue()


def read_network_latencies(path: Path, space: StagedSpace) -> tuple[NetworkLatency, ...]:
    """Return the networks of a filled-in file; only the columns `config` and `latency_ms` are read.

    Args:
        path: CSV file in UTF-8, with commas.
        space: space that reads the configs.

    Raises:
        UserError: if the file is missing or lacks a column, or naming each line that is wrong.
    """
    text = read_text(path, WHAT).removeprefix("\ufeff")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    networks, problems = [], []
    try:
        missing_names = sorted({CONFIG, LATENCY} - set(reader.fieldnames or ()))
        if missing_names:
            raise UserError(
                f"The {WHAT} {path} lacks the columns {', '.join(missing_names)}; expected {CONFIG} and "
                f"{LATENCY}, as in {LIST_FILE} of a kit of networks."
            )
        for row in reader:
            try:
                networks.append(_network(row, space))
            except ValueError as error:
                problems.append(f"line {reader.line_num}: {error}")
    except csv.Error as error:
        raise UserError(f"The {WHAT} {path} is no CSV file: line {reader.line_num}: {error}.") from error
    if not problems and not networks:
        problems.append("there are none; expected a line for each network.")
    if problems:
        raise UserError(f"The {WHAT} {path} cannot be used:\n" + "\n".join(problems))
    return tuple(networks)


def _network(row: dict[str | Any, str | Any], space: StagedSpace) -> NetworkLatency:
    """Return the network of a row.

    Raises:
        ValueError: for a wrong row.
    """
    if None in row:
        raise UserError("there are more cells than columns; decimals begin with a point.")
    config_text, latency_text = row[CONFIG] or "", (row[LATENCY] or "").strip()
    if not latency_text:
        raise UserError(f"{LATENCY} is empty; expected milliseconds.")
    try:
        latency_ms = float(latency_text)
    except ValueError:
        raise UserError(
            f"{LATENCY} is {short_repr(latency_text)}; expected milliseconds, with a point before decimals."
        ) from None
    return NetworkLatency(space.read(checked_object(parse_json(config_text), CONFIG)), latency_ms)


def table_from_file(
    path: Path, space: StagedSpace, device: DeviceSpec, sources: Sources = NO_SOURCES
) -> LatencyTable:
    """Return the table that follows from a file with the latencies of networks; it is not written.

    It covers the resolutions from the smallest to the largest of the networks.

    Args:
        path: filled-in list of networks, or a latency table (.json), of which all measured networks are
            taken.
        space: the (restricted) space.
        device: the device of a list's latencies; a table has its own.
        sources: tables of other devices or engines, or the same table, whose layers are then weighted anew.

    Raises:
        UserError: for the reasons of `read_network_latencies`, `LatencyTable.load` and `table_of_networks`.
    """
    checksum = sha256(read_bytes(path, WHAT))
    if path.suffix == ".json":
        table = LatencyTable.load(path)
        networks = _networks_of(table, space)
        repeatability = None if table.validation is None else table.validation.repeatability_percent
        origin = Origin(table.device, table.engine, table.seed, checksum, repeatability)
    else:
        networks = read_network_latencies(path, space)
        origin = Origin(device, {"engine": device.engine}, None, checksum)
    columns = columns_of(space, sources)
    sides = [network.config.resolution for network in networks]
    covered = [side for side in columns.space.allowed_resolutions if min(sides) <= side <= max(sides)]
    if covered:
        columns = replace(columns, space=columns.space.restrict({"resolution": covered}))
    return table_of_networks(columns, networks, origin)


def _networks_of(table: LatencyTable, space: StagedSpace) -> tuple[NetworkLatency, ...]:
    """Return the networks of the (restricted) space that a table was calibrated and validated with.

    Raises:
        UserError: if there are none.
    """
    validated = () if table.validation is None else table.validation.networks
    networks = {space.read(n.config): n for n in (*table.calibration.networks, *validated)}
    if not any(space.contains(config) for config in networks):
        raise UserError(
            f"The latency table of device {table.device.name!r} has no measured networks of space "
            f"{space.name!r} at {', '.join(map(str, space.allowed_resolutions))} px."
        )
    return tuple(
        NetworkLatency(config, network.measured_ms, network.spread_ms)
        for config, network in networks.items()
        if space.contains(config)
    )
