"""`convert_for`: a user's network as a supernet for a set of images, and the file that keeps it."""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ofa.common.config import completed
from ofa.common.errors import UserError
from ofa.common.progress import Note
from ofa.common.tensors import file_hash
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.evaluation.tasks import output_kind
from ofa.graph.adaptation import adapt_to_images
from ofa.graph.from_settings import converted, network_of
from ofa.graph.genes import ChoiceRule
from ofa.graph.network_source import NetworkSource
from ofa.graph.settings import ModelSettings
from ofa.graph.supernet import GraphSupernet
from ofa.runs.supernet_file import load_supernet, save_supernet
from ofa.runs.supernet_info import read_supernet_info
from ofa.supernet.transfer import TransferReport

EXAMPLE_BATCH = 2


@dataclass(frozen=True)
class ConvertedModel:
    """A user's network as a supernet.

    Attributes:
        supernet: its sub-networks; the largest is the network itself.
        report: the weights of the network that were taken, and the new ones.
        record: plain values that decide the result; see `conversion_record`.
    """

    supernet: GraphSupernet
    report: TransferReport
    record: dict[str, Any]


def convert_for(model: ModelSettings, data: ImageData, settings: DataSettings, seed: int) -> ConvertedModel:
    """Load a network, fit it to the channels and classes of images, and convert it.

    Without `model.resolutions` it has one resolution: that of the images.

    Args:
        model: the network, and what of it may vary.
        data: the images.
        settings: settings of these images.
        seed: seed of new weights.

    Raises:
        UserError: see `network_of`, `adapt_to_images` and `make_elastic`.
    """
    record = conversion_record(model, data, settings, seed)
    side, info = record["side"], data.info
    shape: dict[str, Any] = {
        "side": side,
        "in_channels": info.in_channels,
        "num_classes": info.num_classes,
        "task": record["task"],
    }
    network = network_of(model, seed)
    report = adapt_to_images(network, **shape, seed=seed)
    classifier = report.classifier_names or _classifier_names(network, shape)
    # Other classes renew the classifier, so it stays one layer.
    layers = dict.fromkeys(name.rpartition(".")[0] for name in classifier)
    rules = (*model.rules, *(ChoiceRule(layer, ranks=()) for layer in layers))
    choices = dataclasses.replace(model, rules=rules)
    supernet = converted(network, choices, (EXAMPLE_BATCH, info.in_channels, side, side))
    supernet.space = dataclasses.replace(
        supernet.space, in_channels=info.in_channels, num_classes=info.num_classes
    )
    assert model.name is not None
    supernet.source = NetworkSource(model.name, kwargs=model.kwargs, classifier_names=classifier, **shape)
    return ConvertedModel(supernet, report, record)


def noted_conversion(
    model: ModelSettings,
    data: ImageData,
    settings: DataSettings,
    seed: int,
    *,
    note: Note,
    earlier: ConvertedModel | None = None,
) -> ConvertedModel:
    """Convert a network as `convert_for` does, unless that was done before.

    Args:
        model: the network, and what of it may vary.
        data: the images.
        settings: settings of these images.
        seed: seed of new weights.
        note: called with lines for the user: before a conversion, and what was taken of the network.
        earlier: a conversion whose supernet was not changed since; returned if it has the same record.
    """
    if earlier is None or earlier.record != conversion_record(model, data, settings, seed):
        note(f"converting {model.name}; large networks and images take minutes")
        earlier = convert_for(model, data, settings, seed)
    note(f"network of {model.name}: {earlier.report.text}")
    return earlier


def conversion_record(
    model: ModelSettings, data: ImageData, settings: DataSettings, seed: int
) -> dict[str, Any]:
    """Return the plain values that decide a conversion; see `convert_for`.

    Weights count by the hash of their file, which is None where it cannot be read.
    """
    values = dataclasses.asdict(model)
    del values["weights"]
    try:
        digest: str | None = weights_hash(model)
    except UserError:
        digest = None
    record = {
        "model": values,
        "weights_sha256": digest,
        "side": max(model.resolutions) if model.resolutions else image_side(data, settings),
        "in_channels": data.info.in_channels,
        "num_classes": data.info.num_classes,
        "task": output_kind(data.info.task),
        "seed": seed,
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def weights_hash(model: ModelSettings) -> str:
    """Return the hash of a model's file of weights; empty without such a file.

    Raises:
        UserError: if the file cannot be read.
    """
    return "" if model.weights is None else file_hash(Path(model.weights))


def image_side(data: ImageData, settings: DataSettings) -> int:
    """Return the side in pixels at which images are read: their own in memory, else that of the settings."""
    return data.short_side if data.is_in_memory else settings.image_size


def save_conversion(path: Path, conversion: ConvertedModel) -> None:
    """Write a converted network, which has not been changed since, for `kept_supernet`.

    Raises:
        UserError: if a file cannot be written, or the graph of the network cannot be saved.
    """
    save_supernet(path, conversion.supernet, {"conversion": conversion.record})


def kept_supernet(path: Path, record: dict[str, Any]) -> GraphSupernet | None:
    """Return the supernet that `save_conversion` wrote; None if there is none, or it has another record.

    None as well where the two files do not belong together: their writer was killed between them. Weights
    that cannot be read are not compared: they are not needed any more.

    Args:
        path: file of the weights, with a JSON file beside it.
        record: plain values that decide the conversion; see `conversion_record`.

    Raises:
        UserError: if the JSON file is damaged, or the network's function may not be called; see
            `load_supernet`.
    """
    if not (path.exists() and path.with_suffix(".json").exists()):
        return None
    try:
        info = read_supernet_info(path)
        kept = info.provenance.get("conversion")
        if isinstance(kept, dict) and record["weights_sha256"] is None:
            record = {**record, "weights_sha256": kept.get("weights_sha256")}
        if isinstance(kept, dict) and isinstance(kept_model := kept.get("model"), dict):
            kept = {**kept, "model": completed(kept_model, record["model"], ModelSettings)}
        if kept != record or file_hash(path) != info.sha256:
            return None
        supernet, _ = load_supernet(path)
    except UserError as error:
        raise UserError(f"{error} Delete {path} to convert the network again.") from error
    assert isinstance(supernet, GraphSupernet)
    return supernet


def _classifier_names(network: nn.Module, shape: dict[str, Any]) -> tuple[str, ...]:
    """Return the parameters that depend on the classes, which other classes would renew; empty if unknown."""
    trial = copy.deepcopy(network)
    try:
        report = adapt_to_images(trial, **{**shape, "num_classes": shape["num_classes"] + 1})
    except UserError:
        return ()
    return report.classifier_names
