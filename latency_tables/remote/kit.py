"""Kits: folders to copy to another device, measure there without PyTorch, and copy back.

A kit contains the programs as ONNX models, a manifest with their checksums, and `measure.py`, which needs
Python 3.8, numpy and an engine. Random weights do not compress; therefore the values of each weight repeat
with period `PERIOD`. This does not affect latencies: computation, memory layout and time depend on shapes,
not on values.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latency_tables.measuring.methods import Workload
from latency_tables.measuring.plan import TablePlan, network_workload
from latency_tables.table.device import DeviceSpec
from latency_tables.transfer.network_file import LIST_FILE, network_list
from ofa.common.errors import UserError
from ofa.common.files import new_folder, sha256
from ofa.common.locks import sole_writer
from ofa.common.progress import ProgressCallback, silent
from ofa.common.reading import read_json
from ofa.compression.quantisation.registry import quantised
from ofa.runtimes.base import INT8, Files, Runtime, check_packages
from ofa.runtimes.onnx_export import export_onnx, exporter_facts
from ofa.runtimes.registry import RUNTIMES
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

KIT_SCHEMA_VERSION = 1
MANIFEST_FILE, RESULT_FILE, PROGRAM_FILE = "manifest.json", "measurements.json", "measure.py"
TABLE, VERIFICATION, NETWORKS = "table", "verification", "networks"
PERIOD = 512
_ONNX_FILE = "model.onnx"
_FILES = Path(__file__).with_name("kit_files")


def kit_runtimes_of(runtimes: Iterable[Runtime]) -> dict[str, Runtime]:
    """Return, by name, the engines that `measure.py` supports."""
    return {runtime.name: runtime for runtime in runtimes if runtime.kit_precisions}


KIT_RUNTIMES = kit_runtimes_of(RUNTIMES)


@dataclass(frozen=True)
class KitInfo:
    """A written kit: its folder, number of programs and size in bytes."""

    path: Path
    num_programs: int
    size: int


def make_table_kit(plan: TablePlan, folder: Path, progress: ProgressCallback = silent) -> KitInfo:
    """Write the kit that measures all programs of a latency table.

    Args:
        plan: plan of the table; its device names engine, threads, precision and effort.
        folder: new folder; it appears only when the kit is complete. One that holds this very kit already
            stays as it is.
        progress: called per program.

    Raises:
        UserError: if kits do not support the engine or precision, a package is missing, or the folder
            holds something else, cannot be written, or is written by another process.
    """
    description = {
        "purpose": TABLE,
        "num_calibration": len(plan.calibration),
        "num_validation": len(plan.validation),
    }
    return _write_kit(folder, plan.workloads, plan.space, plan.device, plan.seed, description, progress)


def make_verification_kit(
    space: StagedSpace,
    configs: Sequence[SubnetConfig],
    device: DeviceSpec,
    seed: int,
    folder: Path,
    progress: ProgressCallback = silent,
) -> KitInfo:
    """Write the kit that measures whole networks of `space` end to end; see `make_table_kit`."""
    programs = [network_workload(space.unrestricted, config) for config in configs]
    description = _of_networks(VERIFICATION, space, configs)
    return _write_kit(folder, programs, space, device, seed, description, progress)


def make_network_kit(
    space: StagedSpace,
    configs: Sequence[SubnetConfig],
    device: DeviceSpec,
    seed: int,
    folder: Path,
    progress: ProgressCallback = silent,
) -> KitInfo:
    """Write the kit that measures the whole networks of a table; see `make_table_kit`.

    `LIST_FILE` in it lists the networks and their models for devices without Python: latencies are filled in.
    """
    programs = [network_workload(space.unrestricted, config) for config in configs]
    description = _of_networks(NETWORKS, space, configs)
    return _write_kit(
        folder, programs, space, device, seed, description, progress, partial(network_list, configs)
    )


def is_verification_kit(
    folder: Path, space: StagedSpace, configs: Sequence[SubnetConfig], device: DeviceSpec, seed: int
) -> bool:
    """Return whether a folder is the kit that `make_verification_kit` makes of the same arguments."""
    return _is_kit(folder, _identity(space, device, seed, _of_networks(VERIFICATION, space, configs)))


def _of_networks(purpose: str, space: StagedSpace, configs: Sequence[SubnetConfig]) -> dict[str, Any]:
    networks = {network_workload(space.unrestricted, config).key: config.to_dict() for config in configs}
    return {"purpose": purpose, "networks": networks}


def _write_kit(
    folder: Path,
    programs: Sequence[Workload],
    space: StagedSpace,
    device: DeviceSpec,
    seed: int,
    description: Mapping[str, Any],
    progress: ProgressCallback,
    list_of: Callable[[Sequence[str]], str] | None = None,
) -> KitInfo:
    """Write a kit; `list_of` returns the text of its `LIST_FILE` from the paths of the models."""
    convert, identity = _converter(device), _identity(space, device, seed, description)
    with sole_writer(folder, "kit", setting="output"):
        if _is_kit(folder, identity):
            return KitInfo(folder, len(programs), _size(folder))
        if folder.exists():
            raise UserError(
                f"{folder} exists already; a kit needs a new folder. Remove it, or choose another output."
            )
        with new_folder(folder, "kit") as work_path:
            (work_path / "models").mkdir()
            entries = []
            for index, program in enumerate(programs):
                progress(index, len(programs), program.key)
                entries.append(_write_program(work_path, index, program, device, seed, convert))
            for source in sorted(_FILES.glob("*.*")):
                (work_path / source.name).write_bytes(source.read_bytes())
            if list_of is not None:
                models = [entry["files"][0]["file"] for entry in entries]
                (work_path / LIST_FILE).write_text(list_of(models), encoding="utf-8")
            manifest = json.dumps({**identity, "programs": entries}, indent=1) + "\n"
            (work_path / MANIFEST_FILE).write_text(manifest, encoding="utf-8")
            size = _size(work_path)
    progress(len(programs), len(programs), "")
    return KitInfo(folder, len(programs), size)


def _identity(
    space: StagedSpace, device: DeviceSpec, seed: int, description: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the entries of a manifest that decide which programs a kit has and how it measures them."""
    return {
        "schema_version": KIT_SCHEMA_VERSION,
        **description,
        "space": space.to_dict(),
        "space_fingerprint": space.fingerprint,
        "restriction": space.restriction,
        "device": dataclasses.asdict(device),
        "seed": seed,
        "exporter": exporter_facts(),
        "files": {source.name: sha256(source.read_bytes()) for source in sorted(_FILES.glob("*.*"))},
    }


def _is_kit(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether a folder holds the kit of that identity."""
    if not (folder / MANIFEST_FILE).is_file():
        return False
    manifest = read_json(folder / MANIFEST_FILE, "kit's manifest")
    plain = json.loads(json.dumps(identity))
    return all(manifest.get(name) == value for name, value in plain.items())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write_program(
    folder: Path,
    index: int,
    program: Workload,
    device: DeviceSpec,
    seed: int,
    convert: Callable[[nn.Module, Tensor], Files],
) -> dict[str, Any]:
    """Write the program's files, compressed, and return its entry of the manifest."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = program.build().eval()
        example = torch.randn(device.batch_size, *program.image_shape)
    repeat_weights(module)
    files, size = [], 0
    for name, content in convert(module, example).items():
        path = f"models/{index:04d}-{name}.gz"
        packed = gzip.compress(content, mtime=0)
        (folder / path).write_bytes(packed)
        files.append({"file": path, "sha256": sha256(packed)})
        size += len(content)
    return {
        "key": program.key,
        "files": files,
        "bytes": size,
        "input_shape": list(example.shape),
        "visits_per_round": program.visits_per_round,
    }


@torch.no_grad()
def repeat_weights(module: nn.Module) -> None:
    """Repeat the values of every parameter of `module` with period `PERIOD`, so that they compress."""
    for parameter in module.parameters():
        values = parameter.flatten()
        repeats = -(-len(values) // PERIOD)
        parameter.copy_(values[:PERIOD].repeat(repeats)[: len(values)].view_as(parameter))


def _converter(device: DeviceSpec) -> Callable[[nn.Module, Tensor], Files]:
    """Return the function from a module to its files; int8 models are quantised on this machine.

    Raises:
        UserError: if kits do not support the engine or precision, or a package is missing.
    """
    runtime = KIT_RUNTIMES.get(device.engine)
    if runtime is None or device.accelerator == "cuda" or device.precision not in runtime.kit_precisions:
        offers_text = "; ".join(f"{name}: {', '.join(r.kit_precisions)}" for name, r in KIT_RUNTIMES.items())
        raise UserError(
            f"Device {device.name!r} asks for {device.precision} on {device.accelerator} by engine "
            f"{device.engine}; a kit measures on a processor with {offers_text}. Start from "
            "device=my_cpu_onnx and give it a name, for instance device.name=raspberry_pi device.threads=4."
        )
    what = f"A kit for {device.engine}"
    if device.precision == INT8:
        check_packages(runtime.packages, what, runtime.extra)
        return lambda module, example: quantised(runtime, module, example)
    check_packages(("onnx",), what, "onnx")
    return lambda module, example: {_ONNX_FILE: export_onnx(module, example)}
