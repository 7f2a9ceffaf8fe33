"""`compress_in`: a compression in the folder of a run, from a trained network to a new bundle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ofa.common.config import completed, differences
from ofa.common.errors import UserError
from ofa.common.expectation import measured_value
from ofa.common.files import write_json
from ofa.common.latency_target import LatencyTarget
from ofa.common.metric import metric_named
from ofa.common.progress import Note
from ofa.common.reading import read_json
from ofa.common.unfinished import remove_leftovers_below
from ofa.compression.quantisation.calibration import single_images
from ofa.compression.quantisation.search_precision import MixedPrecisionSettings, Samples
from ofa.data.base import ImageData
from ofa.evaluation.batches import split_batches, split_images
from ofa.evaluation.tasks import task_of
from ofa.export.card import ModelCard
from ofa.export.precision import TargetPrecision, check_precision
from ofa.export.write import ExportReport, export_bundle
from ofa.runs.compressed import CompressedNetwork
from ofa.runs.compression import compress
from ofa.runs.compression_plan import HARM_FILE, LATENCY_FILE, PLAN_FILE, Bar, MeasureModules
from ofa.runs.compression_settings import CompressionSettings
from ofa.runs.compression_source import CompressionSource
from ofa.runs.directory import RunDirectory
from ofa.runtimes.base import FP32

LATENCY = "latency_ms"


@dataclass(frozen=True)
class CompressionReport:
    """A compressed network, and the report of its bundle."""

    compressed: CompressedNetwork
    export: ExportReport

    @property
    def loss(self) -> float:
        """Points of the metric lost on validation images in all, by the last step."""
        files = self.export.files.items()
        losses = [self._lower_loss(name) for name, file in files if file.precision != FP32]
        return max(losses, default=self.compressed.loss)

    @property
    def lines(self) -> list[str]:
        """Lines for the user: the steps, the files, and what was lost in all."""
        metric = self.compressed.metric
        unit = " points" if metric.is_fraction else ""
        return [
            *self.compressed.lines,
            *self.export.lines(),
            f"lost in all: {self.loss:.2f}{unit} of {metric.title} on validation images",
        ]

    def _lower_loss(self, name: str) -> float:
        value = self.export.files[name].validation_metric
        assert value is not None
        return metric_named(value.name).gain(self.compressed.steps[0].value, value.value)


def compress_in(
    directory: RunDirectory,
    source: CompressionSource,
    data: ImageData,
    settings: CompressionSettings,
    name: str,
    *,
    device: torch.device,
    bar: Bar,
    note: Note,
    formats: Sequence[str] = ("onnx", "pt2"),
    measure: MeasureModules | None = None,
    target: LatencyTarget | None = None,
    plan_only: bool = False,
) -> CompressionReport | None:
    """Compress a trained network, or go on with it, and write its bundle; that of the source stays.

    Args:
        directory: folder of the run.
        source: the network.
        data: the images.
        settings: the steps.
        name: name of the new bundle.
        device: device of evaluation and training.
        bar: opens progress bars.
        note: called with lines for the user.
        formats: files of the bundle beside the weights.
        measure: measures latency, for a limit of it.
        target: what these latencies are for.
        plan_only: whether to stop after the plan and return None.

    Raises:
        UserError: if the folder holds another compression of that name, or as `compress`.
        StoppedError: after a signal, with everything that was measured or trained kept.
    """
    folder = compression_folder(directory, name)
    precision = _target_precision(data, settings, source.card, formats)
    with directory.writing_bundle(name):
        _claim(folder, record := _record(source, settings, target))
        compressed = compress(
            source.network.to(device),
            data,
            settings,
            folder,
            resolution=source.card.input_shape[1],
            scale=source.card.target_scale,
            earlier=source.compression,
            bar=bar,
            note=note,
            measure=measure,
            plan_only=plan_only,
        )
        if compressed is None:
            return None
        card = _card(source.card, compressed, record, target, data)
        network, path = compressed.network.cpu(), directory.new_bundle(name)
        with bar("exporting") as progress:
            report = export_bundle(network, card, path, formats, target=precision, progress=progress)
    write_json(folder / "result.json", compressed.to_dict())
    return CompressionReport(compressed, report)


def compression_folder(directory: RunDirectory, name: str) -> Path:
    """Return the folder of the compression that makes a bundle."""
    return directory.path / "compression" / directory.new_bundle(name).name


def _card(
    card: ModelCard,
    compressed: CompressedNetwork,
    record: Mapping[str, Any],
    target: LatencyTarget | None,
    data: ImageData,
) -> ModelCard:
    """Return the card of the compressed network; what was expected of the former is left out."""
    assert card.subnet is not None
    steps = [step for step in compressed.steps if step.name != "control"]
    latency_ms = steps[-1].latency_ms
    is_known = latency_ms is not None and target is not None
    return dataclasses.replace(
        card,
        name=f"{card.name}-{compressed.facts.digest}",
        expected_metric=measured_value(
            compressed.metric, steps[-1].value, "validation", compressed.num_images[0], data.info.name
        ),
        expected_latency_ms={LATENCY: latency_ms} if is_known and latency_ms is not None else {},
        latency_targets={LATENCY: target} if is_known and target is not None else {},
        provenance={**card.provenance, "compressed": {**record, **compressed.to_dict()}},
        subnet=dataclasses.replace(card.subnet, compression=compressed.facts),
    )


def _target_precision(
    data: ImageData, settings: CompressionSettings, card: ModelCard, formats: Sequence[str]
) -> TargetPrecision | None:
    """Return the precision that the last step asks for, with its images; all formats have to offer it."""
    if settings.precision is None:
        return None
    mixed = MixedPrecisionSettings(settings.keep_layers, settings.max_int8_loss)
    check_precision(settings.precision, mixed, formats, specs=None)
    resolution, cpu, num_images = card.input_shape[1], torch.device("cpu"), settings.quantisation_images
    samples = Samples(
        single_images(split_images(data, "train", resolution, cpu, num_images), num_images),
        lambda: split_batches(data, "validation", resolution, cpu),
        data.size("validation"),
        task_of(data).in_units(card.target_scale),
    )
    return TargetPrecision(settings.precision, samples, mixed)


def _record(
    source: CompressionSource, settings: CompressionSettings, target: LatencyTarget | None
) -> dict[str, Any]:
    """Return the plain values that decide the result."""
    record = {
        "source": dict(source.record),
        "settings": settings.record(),
        "device": None if target is None else dataclasses.asdict(target),
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def _claim(folder: Path, record: Mapping[str, Any]) -> None:
    """Let a folder belong to a compression, or check that it does.

    A folder in which nothing was trained yet may have other settings: it is planned anew, with what was
    measured before if that still holds.

    Raises:
        UserError: if it belongs to another one, naming what differs.
    """
    remove_leftovers_below(folder)
    path = folder / "record.json"
    known = read_json(path, "record of a compression") if path.exists() else {}
    if isinstance(known_settings := known.get("settings"), Mapping):
        known["settings"] = completed(known_settings, record["settings"], CompressionSettings)
    changes = differences(known, record) if known else []
    if changes and any(entry.is_dir() for entry in folder.iterdir()):
        raise UserError(
            f"{folder} holds a compression with other settings: {'; '.join(changes[:8])}. Give the same "
            "settings to go on, choose another name, or remove that folder."
        )
    if changes:
        (folder / PLAN_FILE).unlink(missing_ok=True)
        if _measured_for(known) != _measured_for(record):
            for name in (LATENCY_FILE, HARM_FILE):
                (folder / name).unlink(missing_ok=True)
    if changes or not known:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, record)


def _measured_for(record: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the values that latencies and harms depend on."""
    settings = record.get("settings")
    harm_images = settings.get("harm_images") if isinstance(settings, Mapping) else None
    return record.get("source"), record.get("device"), harm_images
