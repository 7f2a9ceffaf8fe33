"""`subnet.json`: the description of a bundle as plain JSON values, and readers for all schemas."""

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

from ofa.common.config import ConfigError, build
from ofa.common.display import short_repr
from ofa.common.errors import UserError
from ofa.common.expectation import MetricValue, measured_value
from ofa.common.latency_target import LatencyTarget
from ofa.common.metric import TOP1
from ofa.common.reading import read_json
from ofa.compression.facts import CompressionFacts
from ofa.compression.quantisation.registry import packages_of
from ofa.data.preprocessing import Preprocessing
from ofa.data.settings import CLASSIFICATION
from ofa.data.target_scale import TargetScale
from ofa.export.card import ModelCard, SubnetFacts, subnet_name
from ofa.export.record import ExportedFile
from ofa.graph.network_source import NetworkSource
from ofa.graph.space import ImageSpace
from ofa.runtimes.registry import RUNTIMES

DESCRIPTION_FILE = "subnet.json"
BUNDLE_SCHEMA = 2
_PACKAGES = ("once-for-all-search", "torch", "torchvision")


@dataclass(frozen=True)
class SubnetRecord:
    """A sub-network in a description; its space reads the config."""

    id: str
    config: dict[str, Any]
    space: ImageSpace
    fingerprint: str
    network: NetworkSource | None = None
    graph: dict[str, Any] | None = None
    compression: CompressionFacts | None = None


@dataclass(frozen=True)
class Description:
    """The content of `subnet.json`."""

    schema_version: int
    name: str
    task: str
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    expected_metric: MetricValue | None
    expected_latency_ms: dict[str, float]
    provenance: dict[str, Any]
    versions: dict[str, str]
    date: str
    files: dict[str, ExportedFile]
    subnet: SubnetRecord | None
    latency_targets: dict[str, LatencyTarget] = field(default_factory=dict)
    target_scale: TargetScale | None = None


def describe(card: ModelCard, files: Mapping[str, ExportedFile]) -> dict[str, Any]:
    """Return the content of `subnet.json` as plain JSON values."""
    metric = card.expected_metric
    return {
        "schema_version": BUNDLE_SCHEMA,
        "name": card.name,
        "task": card.task,
        "input_shape": list(card.input_shape),
        "preprocessing": dataclasses.asdict(card.preprocessing),
        "class_names": list(card.class_names),
        "expected_metric": None if metric is None else _known_values(metric),
        "expected_latency_ms": dict(card.expected_latency_ms),
        "latency_targets": {
            name: dataclasses.asdict(target) for name, target in card.latency_targets.items()
        },
        "files": {name: dataclasses.asdict(file) for name, file in files.items()},
        "provenance": dict(card.provenance),
        "versions": _versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "subnet": None if card.subnet is None else _subnet_values(card.subnet),
        # Left out for other tasks, so that earlier versions read their bundles.
        **({} if card.target_scale is None else {"target_scale": dataclasses.asdict(card.target_scale)}),
    }


def _known_values(metric: MetricValue) -> dict[str, Any]:
    """Return the plain values of a metric's value, those that are not known left out."""
    defaults = {field.name: field.default for field in dataclasses.fields(metric)}
    return {name: value for name, value in dataclasses.asdict(metric).items() if value != defaults[name]}


def _subnet_values(subnet: SubnetFacts) -> dict[str, Any]:
    values = {
        "id": subnet.config.id,
        "config": subnet.config.to_dict(),
        "space": subnet.space.unrestricted.to_dict(),
        "fingerprint": subnet.space.fingerprint,
    }
    if subnet.network is not None:
        values |= {"network": dataclasses.asdict(subnet.network), "graph": subnet.graph}
    if subnet.compression is not None:
        values["compression"] = dataclasses.asdict(subnet.compression)
    return values


def read_description(file: Path) -> tuple[Description, ModelCard]:
    """Read a description of this or an earlier schema, and return it with its card.

    Raises:
        UserError: if it is missing, damaged, of a later schema, or inconsistent.
    """
    values = read_json(file, "bundle", "export")
    schema = values.get("schema_version")
    if schema == 1:
        values = _from_schema_1(values)
    elif schema != BUNDLE_SCHEMA:
        raise UserError(
            f"{file} has schema version {short_repr(schema)}; this version reads 1 and {BUNDLE_SCHEMA}.",
            stage="export",
        )
    description = build(Description, _with_metrics(values), str(file))
    if "weights" not in description.files:
        raise UserError(f"{file} lists no weights.", stage="export")
    return description, _card(file, description)


def _with_metrics(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a description whose files name their metric; earlier versions knew one."""
    files = values.get("files")
    if not isinstance(files, Mapping):
        return values
    return {**values, "files": {name: _with_metric(file) for name, file in files.items()}}


def _with_metric(file: Any) -> Any:
    if not isinstance(file, Mapping) or "validation_top1" not in file:
        return file
    values = dict(file)
    count = values.pop("num_validation_images", 0)
    for prefix in ("", "fp32_"):
        value = values.pop(f"{prefix}validation_top1", None)
        metric = None if value is None else measured_value(TOP1, value, "validation", count, "")
        values[f"{prefix}validation_metric"] = None if metric is None else dataclasses.asdict(metric)
    return values


def _from_schema_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a description of schema 1, in which every network was a sub-network, to the current schema."""
    subnet = {name: values[name] for name in ("id", "space", "fingerprint") if name in values}
    if "subnet" in values:
        subnet["config"] = values["subnet"]
    space, top1, side = values.get("space"), values.get("expected_top1"), values.get("resolution")
    space_name = space.get("name") if isinstance(space, Mapping) else None
    moved = {*subnet, "subnet", "in_channels", "resolution", "expected_top1", "schema_version"}
    return {
        **{name: value for name, value in values.items() if name not in moved},
        "schema_version": BUNDLE_SCHEMA,
        "name": subnet_name(str(space_name), str(values.get("id"))),
        "task": CLASSIFICATION,
        "input_shape": [values.get("in_channels"), side, side],
        "expected_metric": None if top1 is None else dataclasses.asdict(MetricValue(TOP1.name, top1)),
        "subnet": subnet,
    }


def _card(file: Path, description: Description) -> ModelCard:
    subnet = description.subnet
    try:
        return ModelCard(
            name=description.name,
            input_shape=description.input_shape,
            preprocessing=description.preprocessing,
            class_names=description.class_names,
            task=description.task,
            expected_metric=description.expected_metric,
            expected_latency_ms=description.expected_latency_ms,
            latency_targets=description.latency_targets,
            provenance=description.provenance,
            target_scale=description.target_scale,
            subnet=None if subnet is None else _subnet_facts(file, subnet),
        )
    except (UserError, TypeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _subnet_facts(file: Path, subnet: SubnetRecord) -> SubnetFacts:
    if subnet.space.fingerprint != subnet.fingerprint:
        raise UserError(
            f"The space in {file} has fingerprint {subnet.space.fingerprint}; {subnet.fingerprint} "
            f"is recorded, so the file was changed.",
            stage="export",
        )
    config = subnet.space.read(subnet.config)
    return SubnetFacts(subnet.space, config, subnet.network, subnet.graph, subnet.compression)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    of_engines = chain.from_iterable(packages_of(RUNTIMES).values())
    for package in dict.fromkeys((*_PACKAGES, *of_engines)):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
