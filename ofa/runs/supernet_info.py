"""`SupernetInfo`: what stands beside the weights of a trained supernet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.files import read_json
from ofa.space.space import check_fingerprint
from ofa.space.staged import StagedSpace
from ofa.training.phases import Phase

SUPERNET_SCHEMA = 1


@dataclass(frozen=True)
class SupernetInfo:
    """What stands beside a trained supernet: its space and how it was made."""

    schema_version: int
    space: StagedSpace
    fingerprint: str
    sha256: str
    date: str
    provenance: dict[str, Any]


def trained_space(info: SupernetInfo) -> StagedSpace:
    """Return the space of a supernet, restricted to the networks that the last phase of its training opened.

    The whole space, if it was not trained here.
    """
    phases = info.provenance.get("config", {}).get("phases", {})
    return build(Phase, [*phases.values()][-1]).space(info.space) if phases else info.space


def read_supernet_info(path: Path) -> SupernetInfo:
    """Read what stands beside the supernet at `path`; its weights are not needed.

    Raises:
        UserError: if the description is missing, damaged or of another version.
    """
    file = path.with_suffix(".json")
    values = read_json(file, "supernet description", "train")
    if values.get("schema_version") != SUPERNET_SCHEMA:
        raise UserError(
            f"{file} has schema version {values.get('schema_version')}; this version reads "
            f"{SUPERNET_SCHEMA}. Train again or use the version that wrote it."
        )
    info = build(SupernetInfo, values, str(file))
    check_fingerprint(info.fingerprint, info.space, f"supernet {path}")
    return info
