"""Checkpoints: written atomically, checked on load, with a JSON twin for trained supernets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa.config import build
from ofa.distributed import World
from ofa.errors import UserError
from ofa.files import read_json, write_atomic, write_json
from ofa.space import SearchSpace
from ofa.supernet import Supernet

_STEP_FILE = re.compile(r"step_(\d+)\.pt")
SUPERNET_SCHEMA = 1


def save_tensors(path: Path, values: Mapping[str, Any]) -> None:
    """Save tensors and plain values atomically; equal values give equal bytes."""

    def write(temporary: Path) -> None:
        # Given a path, torch.save would put the name of the temporary file into the content.
        with temporary.open("wb") as file:
            torch.save(dict(values), file)

    write_atomic(path, write)


def load_tensors(path: Path, what: str) -> dict[str, Any]:
    """Load what `save_tensors` wrote, onto the CPU; nothing but tensors and plain values is unpickled.

    Raises:
        UserError: if the file is missing, truncated or of another kind.
    """
    if not path.is_file():
        raise UserError(f"No {what} at {path}.")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # On a damaged file the unpickler raises whatever it runs into.
        raise UserError(
            f"The {what} {path} cannot be read; it is truncated or not such a file. "
            "Use an intact copy or make it again."
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"The {what} {path} holds a {type(values).__name__}; expected named entries.")
    return values


def content_digest(values: object) -> str:
    """Return the SHA-256 of all tensors, names and plain values of a nested structure."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, Mapping):
            for name, entry in value.items():
                digest.update(repr(name).encode())
                add(entry)
        elif isinstance(value, list | tuple):
            for entry in value:
                add(entry)
        else:
            digest.update(repr(value).encode())

    add(values)
    return digest.hexdigest()


def check_fingerprint(found: object, space: SearchSpace, what: str) -> None:
    """Raise the error for an artefact that belongs to another space."""
    if found != space.fingerprint:
        raise UserError(
            f"The {what} was made for the space with fingerprint {found}; this space, {space.name!r}, has "
            f"{space.fingerprint}. Use the same space (and number of classes and channels) for both."
        )


class TrainingCheckpoints:
    """The latest checkpoints of a run, `step_<n>.pt` in one folder."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        """Use `folder` and keep the newest `keep` files."""
        self._folder, self._keep = folder, keep

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, ascending."""
        if not self._folder.is_dir():
            return []
        matches = (_STEP_FILE.fullmatch(file.name) for file in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, values: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`, then delete the oldest beyond those kept."""
        save_tensors(self._path(step), {**values, "digest": content_digest(values)})
        for old in self.steps()[: -self._keep]:
            self._path(old).unlink(missing_ok=True)

    def load_latest(self, space: SearchSpace) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest readable checkpoint (None: there is none) and the damaged files passed over.

        Raises:
            UserError: if it belongs to another space, or all files are damaged.
        """
        for leftover in self._folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        damaged = []
        for step in reversed(self.steps()):
            try:
                values = load_tensors(self._path(step), "checkpoint")
            except UserError:
                values = {}
            if values.pop("digest", None) != content_digest(values):
                damaged.append(str(self._path(step)))
                continue
            check_fingerprint(values.get("fingerprint"), space, f"checkpoint {self._path(step)}")
            return values, damaged
        if damaged:
            raise UserError(
                f"No checkpoint of {self._folder} can be read: {', '.join(damaged)}. "
                "Remove the run's directory to start the training anew."
            )
        return None, []

    def check_equal_starts(self, step: int, world: World) -> None:
        """Raise unless all processes go on from the same step: only the first one writes checkpoints."""
        found = world.share({str(world.rank): float(step)})
        if len(set(found.values())) > 1:
            steps = ", ".join(f"{step:.0f} of process {rank}" for rank, step in found.items())
            raise UserError(
                f"The processes would go on from different steps: {steps}. All need the same checkpoints in "
                f"{self._folder}; with several machines runs_dir has to be on storage that they share."
            )

    def _path(self, step: int) -> Path:
        return self._folder / f"step_{step:08d}.pt"


@dataclass(frozen=True)
class SupernetInfo:
    """What stands beside a trained supernet: its space and how it was made."""

    schema_version: int
    space: SearchSpace
    fingerprint: str
    sha256: str
    date: str
    provenance: dict[str, Any]


def save_supernet(path: Path, supernet: Supernet, provenance: Mapping[str, Any]) -> None:
    """Write `path` (weights) and its JSON twin (space, fingerprint, hash of the weights, provenance)."""
    space = supernet.space
    save_tensors(path, {"state": supernet.state_dict(), "fingerprint": space.fingerprint})
    twin = {
        "schema_version": SUPERNET_SCHEMA,
        "space": space.to_dict(),
        "fingerprint": space.fingerprint,
        "sha256": file_hash(path),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": {**provenance, "torch": torch.__version__},
    }
    write_json(path.with_suffix(".json"), twin)


def load_supernet(path: Path, space: SearchSpace | None = None) -> tuple[Supernet, SupernetInfo]:
    """Load a trained supernet and what stands beside it.

    Args:
        path: weights written by `save_supernet`.
        space: the space it must have; None accepts the one beside the weights.

    Raises:
        UserError: if a file is missing or damaged, or belongs to another space.
    """
    command = "python scripts/train_supernet.py"
    twin = read_json(path.with_suffix(".json"), "supernet description", command)
    if twin.get("schema_version") != SUPERNET_SCHEMA:
        raise UserError(
            f"{path.with_suffix('.json')} has schema version {twin.get('schema_version')}; this version "
            f"reads {SUPERNET_SCHEMA}. Train again or use the version that wrote it."
        )
    info = build(SupernetInfo, twin, str(path.with_suffix(".json")))
    check_fingerprint(info.fingerprint, space or info.space, f"supernet {path}")
    values = load_tensors(path, "supernet")
    check_fingerprint(values.get("fingerprint"), info.space, f"supernet {path}")
    if file_hash(path) != info.sha256:
        raise UserError(
            f"{path} is not the file that {path.with_suffix('.json').name} describes (SHA-256 differs). "
            f"Use the pair that was saved together, or finish the training again with: {command}"
        )
    supernet = Supernet(info.space)
    supernet.load_state_dict(values["state"])
    return supernet.eval(), info


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of the file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
