"""The supernet of a user's model for a run: converted when it begins, read from its folder afterwards."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from ofa.common.command_line import assignments
from ofa.common.errors import UserError
from ofa.common.progress import Note
from ofa.common.tensors import file_hash
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.graph.adaptation import adapt_to_images
from ofa.graph.from_settings import converted, network_of
from ofa.graph.network_source import NetworkSource
from ofa.graph.settings import ModelSettings
from ofa.graph.supernet import GraphSupernet
from ofa.runs.config import TrainConfig, has_begun
from ofa.runs.directory import RunDirectory
from ofa.runs.start import StartRecord, check_teacher, recorded_start
from ofa.runs.supernet_file import load_supernet, save_supernet
from ofa.supernet.transfer import TransferReport

EXAMPLE_BATCH = 2


def model_supernet(
    config: TrainConfig, run: RunDirectory, data: ImageData, note: Note
) -> tuple[GraphSupernet, StartRecord]:
    """Return the supernet of a run of a user's model, and where its weights came from.

    A run that has begun reads the supernet that it began with; nothing is converted again.

    Args:
        config: configuration of the run; `config.model` names the network.
        run: folder of the run.
        data: images of the run.
        note: called with lines for the user.

    Raises:
        UserError: for a network that cannot be loaded, adapted to the images or converted, and for weights
            that are others by now.
    """
    record = recorded_start(run) if has_begun(run) else None
    if record is not None and run.first_supernet.exists():
        if record.kind == "model":
            _check_weights(config.model, record, run)
        supernet, _ = load_supernet(run.first_supernet)
        assert isinstance(supernet, GraphSupernet)
        return supernet, record
    note(f"converting {config.model.name}; large networks and images take minutes")
    supernet, report = convert_for(config.model, data, config.data, config.training.seed)
    weights = config.model.weights
    record = StartRecord(
        source=str(config.model.name),
        kind="model",
        sha256="" if weights is None else file_hash(Path(weights)),
        text=report.text,
        num_taken=len(report.taken_names),
        adapted_names=_in_supernet(report.adapted_names),
        new_names=_in_supernet(report.new_names),
        has_new_classifier=report.has_new_classifier,
    )
    note(f"network of {config.model.name}: {record.text}")
    if config.init is None:
        check_teacher(config.recipe.phases[0], record)
    return supernet, record


def save_first_supernet(run: RunDirectory, supernet: GraphSupernet) -> None:
    """Keep the supernet that a run begins with, so that it can go on without converting the network again."""
    save_supernet(run.first_supernet, supernet, {})


def convert_for(
    model: ModelSettings, data: ImageData, settings: DataSettings, seed: int
) -> tuple[GraphSupernet, TransferReport]:
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
    side = max(model.resolutions) if model.resolutions else image_side(data, settings)
    info = data.info
    shape: dict[str, Any] = {
        "side": side,
        "in_channels": info.in_channels,
        "num_classes": info.num_classes,
        "task": info.task,
    }
    network = network_of(model, seed)
    report = adapt_to_images(network, **shape, seed=seed)
    supernet = converted(network, model, (EXAMPLE_BATCH, info.in_channels, side, side))
    classifier = report.classifier_names or _classifier_names(network, shape)
    supernet.space = dataclasses.replace(
        supernet.space, in_channels=info.in_channels, num_classes=info.num_classes
    )
    assert model.name is not None
    supernet.source = NetworkSource(model.name, kwargs=model.kwargs, classifier_names=classifier, **shape)
    return supernet, report


def image_side(data: ImageData, settings: DataSettings) -> int:
    """Return the side in pixels at which images are read: their own in memory, else that of the settings."""
    return data.short_side if data.is_in_memory else settings.image_size


def _classifier_names(network: nn.Module, shape: dict[str, Any]) -> tuple[str, ...]:
    """Return the parameters that depend on the classes, which other classes would renew; empty if unknown."""
    trial = copy.deepcopy(network)
    try:
        report = adapt_to_images(trial, **{**shape, "num_classes": shape["num_classes"] + 1})
    except UserError:
        return ()
    return report.classifier_names


def _in_supernet(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"model.{name}" for name in names)


def _check_weights(model: ModelSettings, record: StartRecord, run: RunDirectory) -> None:
    """Raise the error for weights that are not those that a run began with; they need not be there."""
    try:
        digest = "" if model.weights is None else file_hash(Path(model.weights))
    except UserError:
        return  # They are not needed any more.
    if digest != record.sha256:
        given = " ".join(assignments({"model.weights": model.weights})) or "no model.weights"
        raise UserError(
            f"{run.path} began with other weights than {given}. Give the same as then, or choose another "
            "run_name."
        )
