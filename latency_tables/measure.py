"""`build_table`: measure every layer of a space on a device, calibrate and validate, resumably."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from latency_tables.calibration import calibrate, choose_networks, validate
from latency_tables.device import DeviceSpec
from latency_tables.engines.base import Engine
from latency_tables.engines.registry import create_engine
from latency_tables.entry import NETWORK_VISITS_PER_ROUND, IsolatedLayers, MeasuringMethod, Program
from latency_tables.partial import Identity, PartialMeasurements, refuse_other
from latency_tables.table import LatencyTable, table_identity
from latency_tables.timing import Timing, summarize, time_programs
from ofa.errors import UserError
from ofa.lowering import distinct_layers, lower
from ofa.progress import ProgressCallback, silent
from ofa.space import SearchSpace
from ofa.static import StaticNetwork
from ofa.subnet import SubnetConfig


def build_table(
    space: SearchSpace,
    device: DeviceSpec,
    path: Path,
    seed: int,
    progress: ProgressCallback = silent,
    num_calibration: int = 5,
    num_validation: int = 16,
    engine: Engine | None = None,
    method: MeasuringMethod | None = None,
) -> LatencyTable:
    """Measure what is missing of the table of `space` on `device`, and save it at `path`.

    Layers, calibration networks and validation networks are timed together in shuffled rounds. Every
    visit is appended to `partial_path(path)`, so an interrupted build continues where it was; the file
    goes when the table is saved. Entries of a table that lies at `path` already are kept, if they belong
    to the space; if none is missing, that table is returned as it is.

    Args:
        space: its restriction, if any, limits what is measured.
        device: where and how thoroughly.
        path: the table, a JSON file.
        seed: of the networks, orders, weights and inputs.
        progress: called per prepared program and per round.
        num_calibration: networks that the affine map is fitted on, at least 2.
        num_validation: other networks that the table's error is measured on, at least 2.
        engine: what times; by default the engine that `device` names.
        method: how an entry is measured; by default `IsolatedLayers`.

    Raises:
        UserError: if the engine is unknown or not installed, a table or an unfinished one at `path` was
            measured differently, the space is too small, or a file cannot be written.
    """
    if num_calibration < 2 or num_validation < 2:
        raise UserError(
            f"num_calibration and num_validation are {num_calibration} and {num_validation}; "
            "expected at least 2 of each."
        )
    engine, method = engine or create_engine(device), method or IsolatedLayers()
    identity = table_identity(device, engine.describe(), method.name)
    existing = _existing(path, identity)
    if existing and existing.space_fingerprint == space.fingerprint and not existing.missing_entries(space):
        return existing
    chosen = choose_networks(space, num_calibration, num_validation, np.random.default_rng(seed))
    specs = distinct_layers(space)
    known = existing.entries if existing else {}
    entries = {s.key: timing for s in specs if isinstance(timing := known.get(s.key), Timing)}
    layers = [method.program(spec) for spec in specs if spec.key not in entries]
    networks = [[_network_program(space, config) for config in configs] for configs in chosen]
    baseline = method.baseline()
    with PartialMeasurements(partial_path(path), identity) as partial:
        visits = {key: len(runs) for key, runs in partial.visits.items()}
        programs = [baseline, *layers, *networks[0], *networks[1]]
        time_programs(engine, programs, device, seed, partial.append, visits, progress)
        overhead_ms = summarize(partial.runs_ms(baseline.key)).latency_ms
        entries |= {p.key: summarize(partial.runs_ms(p.key), overhead_ms) for p in layers}
        timings: list[list[Timing]] = [[summarize(partial.runs_ms(p.key)) for p in n] for n in networks]
    calibration = calibrate(space, chosen[0], entries, timings[0])
    table = LatencyTable(
        device=device,
        engine=engine.describe(),
        method=method.name,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        seed=seed,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        calibration=calibration,
        validation=validate(space, chosen[1], entries, timings[1], calibration),
        entries={spec.key: entries[spec.key] for spec in specs},
    )
    table.save(path)
    partial.path.unlink()
    return table


def partial_path(path: Path) -> Path:
    """Return where the measurements of the unfinished table `path` lie."""
    return path.with_name(f"{path.stem}.partial.jsonl")


def _existing(path: Path, identity: Identity) -> LatencyTable | None:
    """Return the table at `path` if there is one; it must have been measured in the same way."""
    if not path.exists():
        return None
    try:
        table = LatencyTable.load(path)
    except UserError as error:
        raise UserError(f"{path} is in the way; delete it to measure anew. {error}") from error
    refuse_other(path, "latency table", table.identity, identity)
    return table


def _network_program(space: SearchSpace, config: SubnetConfig) -> Program:
    """Return the whole network; its key names the space, because equal ids of two spaces differ."""
    shape = (space.in_channels, config.resolution, config.resolution)
    key = f"network-{space.fingerprint}-{config.id}"
    return Program(key, lambda: StaticNetwork(lower(space, config)), shape, NETWORK_VISITS_PER_ROUND)
