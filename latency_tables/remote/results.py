"""The results of a kit: its checked measurements, as a latency table or latencies of networks."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from latency_tables.engines.base import Description
from latency_tables.measuring.drift import WINDOW_S, runs_without_drift
from latency_tables.measuring.journal import refuse_other
from latency_tables.measuring.plan import assemble_table, plan_table
from latency_tables.remote.kit import (
    KIT_RUNTIMES,
    KIT_SCHEMA_VERSION,
    MANIFEST_FILE,
    PROGRAM_FILE,
    RESULT_FILE,
    TABLE,
    VERIFICATION,
)
from latency_tables.table.device import DEVICE_FIELDS, DeviceSpec, device_differences
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import process_latency_ms
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.files import read_json, sha256
from ofa.common.locks import sole_writer
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

MAKING_STAGES = {TABLE: "kit", VERIFICATION: "search"}
"""By the purpose of a kit, the sub-command that makes such kits; a search does where it is verified."""

MEASURED_BY_KIT = "kit"
"""Key in the description of an engine for the checksum of the manifest of a measured kit."""

_SHOWN = 12


class KitVisit(NamedTuple):
    """A visit of a process to a program: milliseconds of its runs, and seconds of the visit."""

    process: int
    key: str
    runs_ms: list[float]
    seconds: float


@dataclass(frozen=True)
class KitResults:
    """The measurements of a kit.

    Attributes:
        manifest: manifest of the kit.
        device: device, with the engine and the threads that were used.
        engine: facts about the engine.
        runs_ms: runs in milliseconds by program, one list per process, at a common speed of the machine.
    """

    manifest: dict[str, Any]
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
    restriction = manifest["restriction"] and tuple(map(tuple, manifest["restriction"]))
    if restriction != space.restriction and space.allowed != space.unrestricted.allowed:
        raise UserError(
            f"The kit {folder} measured other choices of space {space.name!r} than requested; leave out "
            "resolutions, or make a kit of these."
        )
    plan = plan_table(
        dataclasses.replace(space, restriction=restriction),
        results.device,
        manifest["seed"],
        manifest["num_calibration"],
        manifest["num_validation"],
    )
    planned_keys = {program.key for program in plan.workloads}
    if differing_keys := sorted(planned_keys ^ set(results.runs_ms)):
        raise UserError(
            f"The kit {folder} was made by another version of this program: its programs differ in "
            f"{_listed(differing_keys)}. Make it again.",
            stage=MAKING_STAGES[TABLE],
        )
    return assemble_table(plan, results.engine, results.runs_ms)


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
    configs = {key: space.read(values) for key, values in results.manifest["networks"].items()}
    return {
        configs[key]: [process_latency_ms(runs) for runs in processes]
        for key, processes in results.runs_ms.items()
    }


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
    manifest = _read_manifest(folder, purpose, space)
    _check_files(folder, manifest)
    advice = f"Make them on the device with: python3 {folder / PROGRAM_FILE}"
    values = read_json(folder / RESULT_FILE, "kit's measurements", advice=advice)
    _check_version(values, f"The measurements {folder / RESULT_FILE}", advice=advice)
    try:
        manifest_sha256 = values["manifest_sha256"]
        visits = [
            KitVisit(int(process), str(key), [float(run) for run in runs_ms], float(seconds))
            for process, key, runs_ms, seconds in values["visits"]
        ]
        device = dataclasses.replace(
            build(DeviceSpec, manifest["device"], "device"),
            engine=str(values["engine"]),
            accelerator="cpu",
            threads=int(values["threads"]),
        )
        engine = {
            "engine": str(values["engine_title"]),
            "version": str(values["engine_version"]),
            "processor": str(values["processor"]),
            "system": str(values["system"]),
            "exporter": str(manifest["exporter"]),
            "clock": "perf_counter",
            MEASURED_BY_KIT: str(manifest_sha256),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"The measurements {folder / RESULT_FILE} are damaged ({reason}). Copy them from the "
            "device again."
        ) from error
    if manifest_sha256 != sha256((folder / MANIFEST_FILE).read_bytes()):
        raise UserError(
            f"The measurements {folder / RESULT_FILE} are not of the kit in that folder: the manifest's "
            "checksum differs. Give the folder of the kit that was measured."
        )
    _check_visits(folder, manifest, visits)
    return KitResults(manifest, device, engine, runs_without_drift(_windows(visits)))


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


def _read_manifest(folder: Path, purpose: str, space: StagedSpace) -> dict[str, Any]:
    stage = MAKING_STAGES[purpose]
    manifest = read_json(folder / MANIFEST_FILE, "kit's manifest", stage)
    _check_version(manifest, f"The kit {folder}", stage)
    names = {"purpose", "space", "space_fingerprint", "restriction", "device", "seed", "exporter", "files"}
    names |= {"programs", *({"num_calibration", "num_validation"} if purpose == TABLE else {"networks"})}
    if manifest.get("purpose") not in (None, purpose):
        raise UserError(
            f"The kit {folder} is for {manifest['purpose']!r}; this needs one for {purpose!r}.", stage=stage
        )
    if missing_names := sorted(names - set(manifest)):
        raise UserError(f"The kit {folder} is damaged: its manifest lacks {', '.join(missing_names)}.")
    if manifest["space_fingerprint"] != space.fingerprint:
        name = manifest["space"].get("name")
        raise UserError(
            f"The kit {folder} was made for space {name!r} ({manifest['space_fingerprint']}); this is space "
            f"{space.name!r} ({space.fingerprint}). Choose that space, or make a kit of this one.",
            stage=stage,
        )
    return manifest


def _check_version(values: dict[str, Any], what: str, stage: str = "", advice: str = "") -> None:
    version = values.get("schema_version")
    if version != KIT_SCHEMA_VERSION:
        raise UserError(
            f"{what} has schema version {version}; this program reads version {KIT_SCHEMA_VERSION}. "
            f"{advice}".rstrip(),
            stage=stage,
        )


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse changed files; the models need not be copied back from the device."""
    checksums = dict(manifest["files"])
    checksums |= {
        file["file"]: file["sha256"] for program in manifest["programs"] for file in program["files"]
    }
    paths = {name: folder / name for name in checksums if (folder / name).is_file()}
    if changed_names := [
        name for name, path in paths.items() if sha256(path.read_bytes()) != checksums[name]
    ]:
        raise UserError(
            f"Files of the kit {folder} were changed: {_listed(changed_names)}. Measurements "
            f"with them are invalid; make the kit again.",
            stage=MAKING_STAGES[manifest["purpose"]],
        )


def _check_visits(folder: Path, manifest: dict[str, Any], visits: Sequence[KitVisit]) -> None:
    """Refuse measurements that are incomplete, or invalid times."""
    counts = Counter((visit.process, visit.key) for visit in visits if visit.runs_ms)
    keys = dict.fromkeys(visit.key for visit in visits)
    kit_keys = {program["key"]: None for program in manifest["programs"]}
    processes = manifest["device"]["processes"]
    problems = []
    if missing_keys := [key for key in kit_keys if key not in keys]:
        problems.append(f"programs are missing: {_listed(missing_keys)}")
    if unknown_keys := [key for key in keys if key not in kit_keys]:
        problems.append(f"programs are not of the kit: {_listed(unknown_keys)}")
    if incomplete_keys := [
        key for key in keys if not all(counts[process, key] for process in range(processes))
    ]:
        problems.append(f"processes without runs ({processes} are expected): {_listed(incomplete_keys)}")
    wrong_keys = dict.fromkeys(v.key for v in visits if not all(0 < run < math.inf for run in v.runs_ms))
    if wrong_keys:
        problems.append(f"times that are not finite or not above 0: {_listed(list(wrong_keys))}")
    if problems:
        raise UserError(
            f"The measurements {folder / RESULT_FILE} cannot be used: {'; '.join(problems)}. "
            "Start measure.py on the device again, and copy the file when it reports that it is done."
        )


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
