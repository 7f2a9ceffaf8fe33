"""The manifest of a kit: what it measures, and the checksums of its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency_tables.remote.kit import KIT_SCHEMA_VERSION, MANIFEST_FILE, NETWORKS, TABLE, VERIFICATION
from latency_tables.table.device import DeviceSpec
from ofa.common.config import build
from ofa.common.display import listed_names, short_repr
from ofa.common.errors import UserError
from ofa.common.reading import is_file, path_inside, read_json
from ofa.common.tensors import file_sha256
from ofa.space.staged import StagedSpace

MAKING_STAGES = {TABLE: "kit", VERIFICATION: "search", NETWORKS: "kit"}
"""By the purpose of a kit, the sub-command that makes such kits; a search does where it is verified."""


@dataclass(frozen=True)
class KitFile:
    """A file of a kit: its path in the folder, and its hash."""

    file: str
    sha256: str


@dataclass(frozen=True)
class KitProgram:
    """A program of a kit.

    Attributes:
        key: key of the workload.
        files: files of its model.
        bytes: size of the model in bytes, unpacked.
        input_shape: shape of its input: (images, channels, height, width).
        visits_per_round: how often it is visited in a round.
    """

    key: str
    files: tuple[KitFile, ...]
    bytes: int
    input_shape: tuple[int, ...]
    visits_per_round: int


@dataclass(frozen=True)
class KitManifest:
    """What a kit measures, as `manifest.json` says.

    Attributes:
        schema_version: schema version of the kit.
        purpose: `TABLE`, `VERIFICATION` or `NETWORKS`.
        space: plain values of the space.
        space_fingerprint: fingerprint of the space.
        restriction: allowed choices of the space; None for all.
        device: device, and the measuring effort.
        seed: seed of networks, orders and inputs.
        exporter: versions that made the models.
        files: SHA-256 of the kit's programs by name.
        programs: models to measure.
        num_calibration: number of networks for calibrating a table.
        num_validation: number of networks for validating it.
        networks: plain values of the networks of a kit without layers by the key of their program.
    """

    schema_version: int
    purpose: str
    space: dict[str, Any]
    space_fingerprint: str
    restriction: tuple[tuple[int, ...], ...] | None
    device: DeviceSpec
    seed: int
    exporter: str
    files: dict[str, str]
    programs: tuple[KitProgram, ...]
    num_calibration: int = 0
    num_validation: int = 0
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UserError: for a negative seed.
        """
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; expected 0 or more.")

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file by its path in the folder."""
        return self.files | {file.file: file.sha256 for program in self.programs for file in program.files}


def read_manifest(folder: Path, purpose: str, space: StagedSpace) -> KitManifest:
    """Return the manifest of the kit in `folder`, whose files are unchanged as far as they are there.

    The models need not be copied back from the device.

    Args:
        folder: folder of the kit.
        purpose: `TABLE`, `VERIFICATION` or `NETWORKS`.
        space: space that the kit has to be for.

    Raises:
        UserError: if it is missing, damaged, of another purpose, space or version, or names a file outside
            the folder; or if a file differs from its checksum.
    """
    stage = MAKING_STAGES[purpose]
    values = read_json(folder / MANIFEST_FILE, "kit's manifest", stage)
    check_version(values, f"The kit {folder}", stage)
    if values.get("purpose") not in (None, purpose):
        raise UserError(
            f"The kit {folder} is for {short_repr(values['purpose'])}; this needs one for {purpose!r}.",
            stage=stage,
        )
    names = {"purpose", "space", "space_fingerprint", "restriction", "device", "seed", "exporter", "files"}
    names |= {"programs", *({"num_calibration", "num_validation"} if purpose == TABLE else {"networks"})}
    if missing_names := sorted(names - set(values)):
        raise UserError(f"The kit {folder} is damaged: its manifest lacks {', '.join(missing_names)}.")
    manifest = build(KitManifest, values, str(folder / MANIFEST_FILE))
    _check_space(folder, manifest, space)
    _check_files(folder, manifest)
    return manifest


def measures_networks(folder: Path) -> bool:
    """Return whether a kit is for a table from whole networks.

    Raises:
        UserError: if its manifest is missing or damaged.
    """
    values = read_json(folder / MANIFEST_FILE, "kit's manifest", MAKING_STAGES[NETWORKS])
    return values.get("purpose") == NETWORKS


def check_version(values: dict[str, Any], what: str, stage: str = "", advice: str = "") -> None:
    """Raise `UserError` unless the plain values of a kit's file are of the version that is read here.

    Args:
        values: values of the file.
        what: name of the file in the error.
        stage: sub-command that makes such a file.
        advice: sentence that ends the error.
    """
    version = values.get("schema_version")
    if version != KIT_SCHEMA_VERSION:
        raise UserError(
            f"{what} has schema version {short_repr(version)}; this program reads version "
            f"{KIT_SCHEMA_VERSION}. {advice}".rstrip(),
            stage=stage,
        )


def _check_space(folder: Path, manifest: KitManifest, space: StagedSpace) -> None:
    if manifest.space_fingerprint != space.fingerprint:
        raise UserError(
            f"The kit {folder} was made for space {short_repr(manifest.space.get('name'))} "
            f"({manifest.space_fingerprint}); this is space {space.name!r} ({space.fingerprint}). Choose "
            "that space, or make a kit of this one.",
            stage=MAKING_STAGES[manifest.purpose],
        )
    restriction = manifest.restriction
    if restriction is None:
        return
    is_valid = len(restriction) == len(space.genes) and all(
        allowed and list(allowed) == sorted(set(allowed)) and set(allowed) <= set(range(len(gene.choices)))
        for allowed, gene in zip(restriction, space.genes, strict=False)
    )
    if not is_valid:
        raise UserError(f"The kit {folder} is damaged: its restriction is none of space {space.name!r}.")


def _check_files(folder: Path, manifest: KitManifest) -> None:
    changed_names = []
    for name, checksum in manifest.checksums.items():
        path = path_inside(folder, name, "kit")
        if is_file(path) and file_sha256(path) != checksum:
            changed_names.append(name)
    if changed_names:
        raise UserError(
            f"Files of the kit {folder} were changed: {listed_names(changed_names)}. Measurements "
            "with them are invalid; make the kit again.",
            stage=MAKING_STAGES[manifest.purpose],
        )
