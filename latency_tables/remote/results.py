"""The results of a kit: its checked measurements, as a latency table or latencies of networks."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from latency_tables.engines.base import Description
from latency_tables.measuring.drift import WINDOW_S, runs_without_drift
from latency_tables.measuring.journal import refuse_other
from latency_tables.measuring.plan import assemble_table, plan_table
from latency_tables.remote.kit import (
    KIT_RUNTIMES,
    MANIFEST_FILE,
    PROGRAM_FILE,
    RESULT_FILE,
    TABLE,
    VERIFICATION,
)
from latency_tables.remote.manifest import (
    MAKING_STAGES,
    KitManifest,
    check_version,
    read_manifest,
)
from latency_tables.table.calibration import Runs
from latency_tables.table.device import DEVICE_FIELDS, DeviceSpec, device_differences
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import process_latency_ms
from ofa.common.display import listed_names, short_repr
from ofa.common.errors import UserError, unknown_name
from ofa.common.files import sha256
from ofa.common.locks import sole_writer
from ofa.common.plain_values import checked_integer, checked_number, checked_text
from ofa.common.reading import read_json
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

MEASURED_BY_KIT = "kit"
"""Key in the description of an engine for the checksum of the manifest of a measured kit."""


class KitVisit(NamedTuple):
    """A visit of a process to a program: milliseconds of its runs, and seconds of the visit."""

    process: int
    key: str
    runs_ms: list[float]
    seconds: float


_ENGINE_FACTS = {
    "engine": "engine_title",
    "version": "engine_version",
    "processor": "processor",
    "system": "system",
}
"""Facts about an engine and their names in the measurements."""


@dataclass(frozen=True)
class KitResults:
    """The measurements of a kit.

    Attributes:
        manifest: manifest of the kit.
        device: device, with the engine and the threads that were used.
        engine: facts about the engine.
        runs_ms: runs in milliseconds by program, one list per process, at a common speed of the machine.
    """

    manifest: KitManifest
    device: DeviceSpec
    engine: Description
    runs_ms: dict[str, list[list[float]]]


def table_from_kit(folder: Path, space: StagedSpace) -> LatencyTable:
    """Return the latency table of a measured kit; the file is not written.

    Args:
        folder: folder of the kit, with its measurements.json.
        space: space of the table; its restriction must be the kit's.

    Raises:
        UserError: if manifest or measurements are missing, damaged, incomplete, of another kit, space or
            schema version, or contain invalid times.
    """
    results = read_kit(folder, TABLE, space)
    manifest = results.manifest
    plan = plan_table(
        measured_space(folder, manifest, space),
        results.device,
        manifest.seed,
        manifest.num_calibration,
        manifest.num_validation,
    )
    planned_keys = {program.key for program in plan.workloads}
    if differing_keys := sorted(planned_keys ^ set(results.runs_ms)):
        raise UserError(
            f"The kit {folder} was made by another version of this program: its programs differ in "
            f"{listed_names(differing_keys)}. Make it again.",
            stage=MAKING_STAGES[TABLE],
        )
    return assemble_table(plan, results.engine, results.runs_ms)


def measured_space(folder: Path, manifest: KitManifest, space: StagedSpace) -> StagedSpace:
    """Return the space with the restriction of a kit.

    Raises:
        UserError: if other choices are requested.
    """
    restriction = manifest.restriction
    if restriction != space.restriction and space.allowed != space.unrestricted.allowed:
        raise UserError(
            f"The kit {folder} measured other choices of space {space.name!r} than requested; leave out "
            "resolutions, or make a kit of these."
        )
    return dataclasses.replace(space, restriction=restriction)


def save_table(table: LatencyTable, path: Path) -> None:
    """Write the table of a kit, replacing an earlier one of the same kit.

    Raises:
        UserError: if the table at `path` was measured differently, or the file cannot be written.
    """
    with sole_writer(path, "latency table", setting="output"):
        if path.exists():
            refuse_other(path, "latency table", LatencyTable.load(path).identity, table.identity)
        table.save(path)


def networks_from_kit(
    folder: Path, space: StagedSpace, table: LatencyTable
) -> dict[SubnetConfig, list[float]]:
    """Return the latency (ms) of each network in a verification kit, in each process.

    Raises:
        UserError: for the reasons of `table_from_kit`, or if the kit was measured on another device or with
            other settings than `table`.
    """
    results = read_kit(folder, VERIFICATION, space)
    _check_device(folder, results, table)
    return {
        config: [process_latency_ms(runs) for runs in processes]
        for config, processes in runs_of_networks(folder, results, space).items()
    }


def runs_of_networks(folder: Path, results: KitResults, space: StagedSpace) -> dict[SubnetConfig, Runs]:
    """Return the runs (ms) of each network of a kit that measures no layers, one list per process.

    Raises:
        UserError: if the manifest does not name a network, or names none of the space.
    """
    configs = {key: space.read(values) for key, values in results.manifest.networks.items()}
    if unknown_keys := [key for key in results.runs_ms if key not in configs]:
        key = short_repr(unknown_keys[0])
        raise UserError(f"The kit {folder} is damaged: it does not name the network {key}.")
    return {config: results.runs_ms[key] for key, config in configs.items() if key in results.runs_ms}


def _check_device(folder: Path, results: KitResults, table: LatencyTable) -> None:
    """Refuse a kit of another device or other settings than the table; imported tables only have a name."""
    names = ("name", *DEVICE_FIELDS) if table.device.engine in KIT_RUNTIMES else ("name",)
    changes = device_differences(names, table.device, results.device)
    processor, expected = results.engine["processor"], table.engine.get("processor")
    if expected is not None and processor != expected:
        changes.append(f"processor was {expected!r} and is {processor!r}")
    if changes:
        raise UserError(
            f"The kit {folder} was measured on another device or with other settings than the table: "
            f"{'; '.join(changes)}. Give the table of the kit's device, or measure it as the table was."
        )


def read_kit(folder: Path, purpose: str, space: StagedSpace) -> KitResults:
    """Return the measurements in `folder`; see `table_from_kit`."""
    manifest = read_manifest(folder, purpose, space)
    path = folder / RESULT_FILE
    advice = f"Make them on the device with: python3 {shlex.quote(str(folder / PROGRAM_FILE))}"
    values = read_json(path, "kit's measurements", advice=advice)
    check_version(values, f"The measurements {path}", advice=advice)
    try:
        manifest_sha256 = checked_text(values["manifest_sha256"], "manifest_sha256")
        visits = [_visit(entry) for entry in values["visits"]]
        engine_name = checked_text(values["engine"], "engine")
        threads = checked_integer(values["threads"], "threads", 1)
        texts = {name: checked_text(values[key], key) for name, key in _ENGINE_FACTS.items()}
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"The measurements {path} are damaged ({reason}). Copy them from the device again."
        ) from error
    if manifest_sha256 != sha256((folder / MANIFEST_FILE).read_bytes()):
        raise UserError(
            f"The measurements {path} are not of the kit in that folder: the manifest's "
            "checksum differs. Give the folder of the kit that was measured."
        )
    if engine_name not in KIT_RUNTIMES:
        raise unknown_name(f"engine in {path}", engine_name, KIT_RUNTIMES)
    device = dataclasses.replace(manifest.device, engine=engine_name, accelerator="cpu", threads=threads)
    facts = {"exporter": manifest.exporter, "clock": "perf_counter", MEASURED_BY_KIT: manifest_sha256}
    _check_visits(folder, manifest, visits)
    return KitResults(manifest, device, texts | facts, runs_without_drift(_windows(visits)))


def _visit(values: object) -> KitVisit:
    """Return a visit from its plain values.

    Raises:
        ValueError: for wrong values.
    """
    if not isinstance(values, list) or len(values) != 4 or not isinstance(values[2], list):
        raise ValueError(f"a visit is {short_repr(values)}; expected process, program, runs and seconds")
    process, key, runs_ms, seconds = values
    return KitVisit(
        checked_integer(process, "process of a visit"),
        checked_text(key, "program of a visit"),
        [checked_number(run, "a run") for run in runs_ms],
        checked_number(seconds, "seconds of a visit", 0),
    )


def _windows(visits: Sequence[KitVisit]) -> list[tuple[int, list[tuple[str, list[float]]]]]:
    """Return the visits, in their order, grouped in windows with the number of their process."""
    windows: list[tuple[int, list[tuple[str, list[float]]]]] = []
    spent = math.inf
    for visit in visits:
        if spent >= WINDOW_S or visit.process != windows[-1][0]:
            windows.append((visit.process, []))
            spent = 0.0
        windows[-1][1].append((visit.key, visit.runs_ms))
        spent += visit.seconds
    return windows


def _check_visits(folder: Path, manifest: KitManifest, visits: Sequence[KitVisit]) -> None:
    """Refuse measurements that are incomplete, or invalid times."""
    counts = Counter((visit.process, visit.key) for visit in visits if visit.runs_ms)
    keys = dict.fromkeys(visit.key for visit in visits)
    kit_keys = {program.key: None for program in manifest.programs}
    processes = manifest.device.processes
    problems = []
    if missing_keys := [key for key in kit_keys if key not in keys]:
        problems.append(f"programs are missing: {listed_names(missing_keys)}")
    if unknown_keys := [key for key in keys if key not in kit_keys]:
        problems.append(f"programs are not of the kit: {listed_names(unknown_keys)}")
    if incomplete_keys := [
        key for key in keys if not all(counts[process, key] for process in range(processes))
    ]:
        problems.append(f"processes without runs ({processes} are expected): {listed_names(incomplete_keys)}")
    wrong_keys = dict.fromkeys(v.key for v in visits if not all(0 < run < math.inf for run in v.runs_ms))
    if wrong_keys:
        problems.append(f"times that are not finite or not above 0: {listed_names(list(wrong_keys))}")
    if problems:
        raise UserError(
            f"The measurements {folder / RESULT_FILE} cannot be used: {'; '.join(problems)}. "
            "Start measure.py on the device again, and copy the file when it reports that it is done."
        )
