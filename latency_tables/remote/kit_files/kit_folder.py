"""The files of this kit and their checksums, and facts about this device."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
FOLDER = Path(__file__).resolve().parent
MANIFEST, RUNS, RESULT = FOLDER / "manifest.json", FOLDER / "runs.jsonl", FOLDER / "measurements.json"


class KitError(Exception):
    """A reason why this kit cannot be measured here; printed without a traceback."""


def sha256(content: bytes) -> str:
    """Return the checksum of a file's content."""
    return hashlib.sha256(content).hexdigest()


def read_manifest() -> tuple[dict[str, Any], str]:
    """Return the manifest and its checksum."""
    if not MANIFEST.is_file():
        raise KitError(f"{MANIFEST} is missing. Copy the whole folder of the kit again.")
    content = MANIFEST.read_bytes()
    try:
        manifest = json.loads(content.decode())
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KitError(f"{MANIFEST} is damaged ({error}). Copy the whole folder of the kit again.") from error
    if version != SCHEMA_VERSION:
        raise KitError(f"The kit has schema version {version}; this program reads {SCHEMA_VERSION}.")
    return manifest, sha256(content)


def check_files(manifest: dict[str, Any]) -> None:
    """Raise if files are missing or changed; all of them are named."""
    checksums = dict(manifest["files"])
    checksums.update({f["file"]: f["sha256"] for program in manifest["programs"] for f in program["files"]})
    missing_names = [name for name in checksums if not (FOLDER / name).is_file()]
    present_names = [name for name in checksums if name not in missing_names]
    changed_names = [
        name for name in present_names if sha256((FOLDER / name).read_bytes()) != checksums[name]
    ]
    if missing_names or changed_names:
        parts = [f"missing: {', '.join(missing_names)}"] if missing_names else []
        parts += [f"changed: {', '.join(changed_names)}"] if changed_names else []
        raise KitError(f"Files of the kit are {'; '.join(parts)}. Copy the whole folder of the kit again.")


def pin(cores: list[int] | None) -> None:
    """Pin this process to these cores, if the kit names any."""
    if not cores:
        return
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError) as error:
        raise KitError(f"This device cannot pin the measurement to the cores {cores} ({error}).") from error


def processor_name() -> str:
    """Return the name of this device's processor."""
    names = {"model name", "hardware", "model"}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    reported_names = [
        line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip().lower() in names
    ]
    return next(
        (name for name in reported_names if name and not name.isdigit()),
        platform.processor() or platform.machine(),
    )
