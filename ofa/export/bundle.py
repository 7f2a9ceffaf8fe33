"""Bundles: what stands in an exported folder, and getting the network back from it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ofa.architecture.lowering import lower
from ofa.common.config import ConfigError, build
from ofa.common.errors import UserError
from ofa.common.files import read_json, sha256
from ofa.compression.quantisation.registry import packages_of
from ofa.data.preprocessing import Preprocessing
from ofa.export.record import HOW_TO_MAKE, ExportedFile
from ofa.modules.static import StaticNetwork
from ofa.runtimes.registry import RUNTIMES
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig

BUNDLE_SCHEMA = 1
DESCRIPTION_FILE = "subnet.json"
WEIGHTS_FILE = "weights.safetensors"
_PACKAGES = ("once-for-all-search", "torch", "torchvision")


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle says about its network.

    Attributes:
        space: the space of the supernet that the network comes from.
        config: the network.
        preprocessing: how pixels become its input.
        class_names: name of each output.
        expected_top1: top-1 accuracy (0..1) that its maker expects; None if unknown.
        expected_latency_ms: estimated milliseconds by the name of the limit that the search kept.
        provenance: plain JSON values: how the network was made.
    """

    space: StagedSpace
    config: SubnetConfig
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    expected_top1: float | None = None
    expected_latency_ms: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that config, channels and classes fit the space; all misfits are reported at once."""
        errors = []
        try:
            self.space.unrestricted.genome(self.config)
        except UserError as error:
            errors.append(str(error))
        if self.preprocessing.in_channels != self.space.in_channels:
            errors.append(
                f"mean and std are of {self.preprocessing.in_channels} channels; "
                f"space {self.space.name!r} has {self.space.in_channels}."
            )
        if len(self.class_names) != self.space.num_classes:
            errors.append(
                f"There are {len(self.class_names)} class names; "
                f"space {self.space.name!r} has {self.space.num_classes} classes."
            )
        if self.expected_top1 is not None and not 0 <= self.expected_top1 <= 1:
            errors.append(f"expected_top1 is {self.expected_top1}; expected a share from 0 to 1.")
        if errors:
            raise UserError("\n".join(errors))


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        path: its folder.
        network: in eval mode, on the CPU, with the bundle's weights.
        info: what the bundle says about the network.
        files: the exported files by format: weights, and those asked for.
        versions: of Python and of the packages that wrote the bundle.
        date: when it was written, UTC.
    """

    path: Path
    network: StaticNetwork
    info: BundleInfo
    files: Mapping[str, ExportedFile]
    versions: Mapping[str, str]
    date: str

    def preprocess(self, images: Tensor) -> Tensor:
        """Return the network's input for images (n, channels, h, w) of pixels 0..255."""
        return self.info.preprocessing.apply(images, self.info.config.resolution)

    def file(self, name: str) -> Path:
        """Return the path of the (first) file of format `name`.

        Raises:
            UserError: if the bundle has no such format, or one of its files is gone or is not as it was
                exported.
        """
        if name not in self.files:
            raise UserError(
                f"The bundle {self.path} has no format {name!r}; it has: {', '.join(self.files)}."
            )
        return self.files[name].checked(self.path)


@dataclass(frozen=True)
class _Description:
    """The content of `subnet.json`; the sub-network itself is read by `SubnetConfig.from_dict`."""

    schema_version: int
    id: str
    subnet: dict[str, Any]
    space: StagedSpace
    fingerprint: str
    in_channels: int
    resolution: int
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    expected_top1: float | None
    expected_latency_ms: dict[str, float]
    provenance: dict[str, Any]
    versions: dict[str, str]
    date: str
    files: dict[str, ExportedFile]


def describe(info: BundleInfo, files: Mapping[str, ExportedFile]) -> dict[str, Any]:
    """Return the content of `subnet.json` as plain JSON values."""
    return {
        "schema_version": BUNDLE_SCHEMA,
        "id": info.config.id,
        "subnet": info.config.to_dict(),
        "in_channels": info.space.in_channels,
        "resolution": info.config.resolution,
        "preprocessing": vars(info.preprocessing),
        "class_names": list(info.class_names),
        "expected_top1": info.expected_top1,
        "expected_latency_ms": dict(info.expected_latency_ms),
        "files": {name: dataclasses.asdict(file) for name, file in files.items()},
        "provenance": dict(info.provenance),
        "versions": _versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "space": info.space.unrestricted.to_dict(),
        "fingerprint": info.space.fingerprint,
    }


def load_bundle(path: Path | str) -> Bundle:
    """Load a bundle; `load_bundle(path).network` is the network in eval mode.

    Raises:
        UserError: if the folder or one of its files is missing, damaged, or does not fit the others.
    """
    path = Path(path)
    file = path / DESCRIPTION_FILE
    values = read_json(file, "bundle", HOW_TO_MAKE)
    if values.get("schema_version") != BUNDLE_SCHEMA:
        raise UserError(
            f"{file} has schema version {values.get('schema_version')!r}; this version reads "
            f"{BUNDLE_SCHEMA}. Export it again with: {HOW_TO_MAKE}"
        )
    description = build(_Description, values, str(file))
    info = _read_info(file, description)
    if "weights" not in description.files:
        raise UserError(f"{file} lists no weights. Export the bundle again with: {HOW_TO_MAKE}")
    network = _load_network(path, description.files["weights"], info)
    return Bundle(path, network, info, description.files, description.versions, description.date)


def _read_info(file: Path, description: _Description) -> BundleInfo:
    if description.space.fingerprint != description.fingerprint:
        raise UserError(
            f"The space in {file} has fingerprint {description.space.fingerprint}; {description.fingerprint} "
            f"is recorded, so the file was changed. Export it again with: {HOW_TO_MAKE}"
        )
    try:
        return BundleInfo(
            description.space,
            SubnetConfig.from_dict(description.subnet),
            description.preprocessing,
            description.class_names,
            description.expected_top1,
            description.expected_latency_ms,
            description.provenance,
        )
    except (UserError, TypeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _load_network(path: Path, weights: ExportedFile, info: BundleInfo) -> StaticNetwork:
    file = path / weights.file
    if not file.is_file():
        raise UserError(f"No weights at {file}. Export the bundle again with: {HOW_TO_MAKE}")
    content = file.read_bytes()
    damaged = f"Use an intact copy or export it again with: {HOW_TO_MAKE}"
    try:
        state = read_weights(content)
    except safetensors.SafetensorError as error:
        raise UserError(f"The weights {file} cannot be read ({error}); truncated? {damaged}") from error
    network = network_of(info)
    errors = _misfits(network.state_dict(), state)
    if errors:
        shown = "; ".join(errors[:5]) + (f" and {len(errors) - 5} more" if len(errors) > 5 else "")
        raise UserError(f"The weights {file} are not those of this sub-network: {shown}. {damaged}")
    if sha256(content) != weights.sha256:
        raise UserError(f"The weights {file} differ from those that were exported (SHA-256). {damaged}")
    network.load_state_dict(state, assign=True)
    return network.eval()


def read_weights(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a file of weights, each in memory of its own.

    As read they lie in one buffer, at addresses that are no multiples of a cache line; a network with these
    took 5 to 9 % longer.

    Raises:
        safetensors.SafetensorError: if the content is not such a file.
    """
    return {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}


def network_of(info: BundleInfo) -> StaticNetwork:
    """Return the network of `info` without memory for its weights (on the meta device)."""
    with torch.device("meta"):
        return StaticNetwork(lower(info.space.unrestricted, info.config))


def _misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    errors = [f"{name} is missing" for name in expected if name not in found]
    errors += [f"{name} is superfluous" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        if found[name].shape != expected[name].shape:
            errors.append(
                f"{name} has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
            )
    return sorted(errors)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    of_engines = chain.from_iterable(packages_of(RUNTIMES).values())
    for package in dict.fromkeys((*_PACKAGES, *of_engines)):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
