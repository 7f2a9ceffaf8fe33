"""`prune_in`: a pruning in a folder of its own, from the user's network to the files of the pruned one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofa.common.config import differences
from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.common.progress import Note
from ofa.common.reading import read_json
from ofa.common.tensors import content_digest
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.graph.adaptation import adapt_to_images
from ofa.graph.from_settings import converted, network_of
from ofa.graph.settings import ModelSettings
from ofa.runs.config import data_record
from ofa.runs.directory import RunDirectory
from ofa.runs.pruned import PrunedNetwork
from ofa.runs.pruned_files import save_pruned
from ofa.runs.pruning import Bar, prune
from ofa.runs.pruning_settings import PruningSettings

ImageShape = tuple[int, int, int]
MeasureShaped = Callable[[Sequence[nn.Module], ImageShape], Sequence[float]]
"""Measures the latency (ms) of networks on the CPU in eval mode, for images (channels, height, width)."""


def prune_in(
    directory: RunDirectory,
    model: ModelSettings,
    data_settings: DataSettings,
    data: ImageData,
    settings: PruningSettings,
    *,
    device: torch.device,
    bar: Bar,
    note: Note,
    measure: MeasureShaped | None = None,
) -> tuple[PrunedNetwork, Path]:
    """Prune a user's network, or go on with it, and return it with the path of its weights.

    Args:
        directory: folder of the run.
        model: the network, and what of it may vary.
        data_settings: settings of the images.
        data: the images.
        settings: method, limits and training.
        device: device of evaluation and training.
        bar: opens progress bars.
        note: called with lines for the user.
        measure: measures latency, for a limit of it.

    Raises:
        UserError: if the folder holds another pruning, the network cannot be loaded, adapted to the images
            or converted, or a limit cannot be reached.
        StoppedError: after a signal, with everything that was scored or trained kept.
    """
    with directory.locked("pruning"):
        side = max(model.resolutions) if model.resolutions else _side(data, data_settings)
        shape = (data.info.in_channels, side, side)
        network = network_of(model)
        report = adapt_to_images(
            network,
            side=side,
            in_channels=data.info.in_channels,
            num_classes=data.info.num_classes,
            seed=settings.seed,
        )
        note(f"network of {model.name}: {report.text}")
        facts = _record(model, data_settings, settings, network)
        _claim(directory, facts)
        note(f"converting for images of {'x'.join(map(str, shape))}; large networks take minutes")
        supernet = converted(network, model, (2, *shape)).to(device).eval()
        pruned = prune(
            supernet,
            data,
            settings,
            _folder(directory),
            bar=bar,
            note=note,
            measure=None if measure is None else lambda networks: measure(networks, shape),
        )
        facts = {**facts, "input_shape": list(shape), "class_names": list(data.info.class_names)}
        return pruned, save_pruned(directory.path, pruned, supernet, facts)


def _folder(directory: RunDirectory) -> Path:
    return directory.path / "pruning"


def _side(data: ImageData, settings: DataSettings) -> int:
    return data.short_side if data.is_in_memory else settings.image_size


def _record(
    model: ModelSettings, data: DataSettings, settings: PruningSettings, network: nn.Module
) -> dict[str, Any]:
    """Return the plain values that decide the result."""
    values = dataclasses.asdict(model)
    del values["weights"]
    record = {
        "model": {**values, "weights_digest": content_digest(network.state_dict())},
        "data": data_record(data),
        "pruning": settings.record(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def _claim(directory: RunDirectory, record: Mapping[str, Any]) -> None:
    """Let a folder belong to a pruning, or check that it does; one without any results may have others.

    Raises:
        UserError: if it belongs to another one, naming what differs.
    """
    path = directory.path / "pruning.json"
    if not (path.exists() and _folder(directory).exists()):
        write_json(path, record)
        return
    changes = differences(read_json(path, "record of a pruning"), record)
    if changes:
        raise UserError(
            f"{directory.path} holds a pruning with other settings: {'; '.join(changes[:8])}. Give the same "
            "settings to go on, choose another run_name, or remove that folder."
        )
