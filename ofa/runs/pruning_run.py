"""`prune_in`: a pruning in a folder of its own, from the user's network to the files of the pruned one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofa.common.config import completed, differences
from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.common.progress import Note
from ofa.common.reading import read_json
from ofa.common.tensors import content_digest
from ofa.common.unfinished import remove_leftovers_below
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.evaluation.tasks import task_of
from ofa.export.write import ExportReport
from ofa.graph.settings import ModelSettings
from ofa.graph.supernet import GraphSupernet
from ofa.runs.config import claim_images, data_record
from ofa.runs.conversion import conversion_record, kept_supernet, noted_conversion, save_conversion
from ofa.runs.directory import RunDirectory
from ofa.runs.own_code import name_own_code
from ofa.runs.pruned import PrunedNetwork
from ofa.runs.pruned_files import export_pruned, save_pruned
from ofa.runs.pruning import LATENCY_FILE, Bar, prune
from ofa.runs.pruning_settings import PruningSettings

ImageShape = tuple[int, int, int]
MeasureShaped = Callable[[Sequence[nn.Module], ImageShape], Sequence[float]]
"""Measures the latency (ms) of networks on the CPU in eval mode, for images (channels, height, width)."""

_NEW_CLASSIFIER = (
    "the classifier is new, so the accuracy of candidates says nothing yet; train the network for these "
    "classes before it is pruned"
)


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
    formats: Sequence[str] = ("onnx", "pt2"),
    measure: MeasureShaped | None = None,
    device_record: Mapping[str, Any] | None = None,
) -> list[tuple[PrunedNetwork, ExportReport]]:
    """Prune a user's network, or go on with it, and return the networks with the reports of their bundles.

    Args:
        directory: folder of the run.
        model: the network, and what of it may vary.
        data_settings: settings of the images.
        data: the images.
        settings: method, limits and training.
        device: device of evaluation and training.
        bar: opens progress bars.
        note: called with lines for the user.
        formats: files of the bundle beside the weights; see `ofa.export.formats`.
        measure: measures latency, for a limit of it.
        device_record: plain values of the device that latency is measured on.

    Raises:
        UserError: if the folder holds another pruning, the network cannot be loaded, adapted to the images
            or converted, a graph that computes its sub-networks cannot be saved, a limit cannot be reached,
            or a file cannot be written.
        StoppedError: after a signal, with everything that was scored or trained kept.
    """
    with directory.locked("pruning"):
        supernet, record = _begin(
            directory, model, data_settings, data, settings, device_record=device_record, note=note
        )
        side = supernet.space.largest.resolution
        shape = (data.info.in_channels, side, side)
        original = supernet.to(device).eval().extract(supernet.space.largest).eval()
        facts = {**record, "input_shape": list(shape), "class_names": list(data.info.class_names)}
        results = []
        for name, part in settings.names.items():
            pruned = prune(
                supernet,
                data,
                part,
                _folder(directory) if part is settings else _folder(directory) / name,
                bar=bar,
                note=note,
                measure=None if measure is None else lambda networks: measure(networks, shape),
                original=original,
            )
            save_pruned(directory.path / name, pruned, supernet, facts)
            report = export_pruned(directory, name, pruned, supernet, data.info, formats, record)
            note("\n".join([*pruned.lines, *report.lines()]))
            results.append((pruned, report))
        return results


def _folder(directory: RunDirectory) -> Path:
    return directory.path / "pruning"


def _begin(
    directory: RunDirectory,
    model: ModelSettings,
    data_settings: DataSettings,
    data: ImageData,
    settings: PruningSettings,
    *,
    device_record: Mapping[str, Any] | None,
    note: Note,
) -> tuple[GraphSupernet, dict[str, Any]]:
    """Return the converted network and the record of a pruning, to which the folder belongs then.

    A folder that keeps the network, converted with the same settings, is read; nothing is converted again.
    """
    name_own_code(data_settings)
    task_of(data)  # Its errors come before anything is written.
    folder = _folder(directory)
    path = folder / "model.pt"
    remove_leftovers_below(folder)
    supernet = kept_supernet(path, conversion_record(model, data, data_settings, settings.seed))
    conversion = None
    if supernet is None:
        conversion = noted_conversion(model, data, data_settings, settings.seed, note=note)
        supernet = conversion.supernet
        if conversion.report.has_new_classifier:
            note(_NEW_CLASSIFIER)
    record = _record(model, data_settings, settings, supernet, device_record)
    _claim(directory, record)
    claim_images(directory, data_settings)
    if conversion is not None:
        save_conversion(path, conversion)
    return supernet, record


def _record(
    model: ModelSettings,
    data: DataSettings,
    settings: PruningSettings,
    supernet: GraphSupernet,
    device_record: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the plain values that decide the result."""
    values = dataclasses.asdict(model)
    del values["weights"]
    record = {
        "model": {**values, "weights_digest": content_digest(supernet.state_dict())},
        "data": data_record(data),
        "pruning": settings.record(),
        **({} if device_record is None else {"device": device_record}),
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def _claim(directory: RunDirectory, record: Mapping[str, Any]) -> None:
    """Let a folder belong to a pruning, or check that it does.

    A folder in which nothing was evaluated yet may have others; latencies that were measured for them are
    removed.

    Raises:
        UserError: if it belongs to another one, naming what differs.
    """
    path, folder = directory.path / "pruning.json", _folder(directory)
    known = read_json(path, "record of a pruning") if path.exists() else {}
    for name, cls in (("model", ModelSettings), ("pruning", PruningSettings)):
        if isinstance(part := known.get(name), Mapping):
            known[name] = completed(part, record[name], cls)
    changes = differences(known, record) if path.exists() else []
    # Each method has its results in folders of its own.
    if changes and any(entry.is_dir() for entry in folder.glob("*")):
        raise UserError(
            f"{directory.path} holds a pruning with other settings: {'; '.join(changes[:8])}. Give the same "
            "settings to go on, choose another run_name, or remove that folder."
        )
    if changes:
        (folder / LATENCY_FILE).unlink(missing_ok=True)
    if changes or not path.exists():
        write_json(path, record)
