"""Fine-tuning: the network of a bundle trained further, for the same classes or others, as a new bundle."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.expectation import MetricValue, agreement_line, measured_value
from ofa.common.metric import Metric, indistinct
from ofa.common.progress import Note, ProgressCallback, silent, unnoted
from ofa.compression.sparse import zeros_kept
from ofa.data.base import ImageData
from ofa.evaluation.batches import split_batches, split_images
from ofa.evaluation.evaluate import SubnetEvaluator, score
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.evaluation.task import Task
from ofa.evaluation.tasks import task_of
from ofa.export.bundle import Bundle
from ofa.export.card import ModelCard
from ofa.export.write import export_bundle
from ofa.graph.space import ImageSpace
from ofa.runs.directory import RunDirectory
from ofa.runs.retarget import retargeted
from ofa.runs.trained import TrainedRun
from ofa.space.config import AnyConfig
from ofa.supernet.transfer import TransferReport
from ofa.training.checks import with_losses_of
from ofa.training.fitting import fit
from ofa.training.precision import EMULATED, emulates
from ofa.training.settings import FinetuneSettings

_MIN_EPOCHS_OF_NEW = 10


@dataclass(frozen=True)
class FinetuneReport:
    """The new bundle, and the metric on validation images before and after.

    Attributes:
        path: folder of the bundle.
        metric: metric of `before` and `after`.
        before: its value before the training.
        after: its value after the training.
        num_images: number of validation images.
        expected: what the bundle's card let expect before the training; None if it does not say it, or for
            other classes.
    """

    path: Path
    metric: Metric
    before: float
    after: float
    num_images: int
    expected: MetricValue | None = None

    @property
    def lines(self) -> list[str]:
        """Lines for the user: both values with their standard error, and whether they tell a difference.

        What was expected is judged by the value before the training.
        """
        metric, num_images = self.metric, self.num_images
        before, after = (metric.show_with_error(value, num_images) for value in (self.before, self.after))
        error = f" ({metric.basis(num_images)})"
        warning = indistinct(metric, [self.before, self.after], num_images)
        lines = [f"validation {metric.title}: {before} before, {after} after{error}"]
        if warning:
            lines.append(f"before and after {warning}")
        if self.expected is not None:
            measured = measured_value(metric, self.before, "validation", num_images, "")
            lines.append(f"before: {agreement_line(self.expected, measured, metric)}")
        return lines


def finetune_bundle(
    run: TrainedRun,
    bundle: Bundle,
    name: str,
    settings: FinetuneSettings,
    *,
    formats: Sequence[str] = ("onnx", "pt2"),
    calibration_images: int = 2000,
    world: World = SINGLE_PROCESS,
    progress: ProgressCallback = silent,
    note: Note = unnoted,
) -> FinetuneReport | None:
    """Fine-tune the network of a bundle on the images of a run (or go on with it), and export it.

    The largest network of the run is the teacher of its own sub-networks. A bundle of another space has none;
    see `finetune_on` for a bundle of other classes.

    Args:
        run: the run.
        bundle: the bundle; not changed.
        name: name of the new bundle.
        settings: settings of the training.
        formats: files of the new bundle beside the weights.
        calibration_images: training images that recalibrate batch norm.
        world: the processes that train together; all but the main one return None.
        progress: called with the steps.
        note: called with lines for the user.

    Raises:
        UserError: if the bundle is no sub-network of a space, another fine-tuning of this name has begun, or
            a file cannot be written.
        StoppedError: after a signal, with a checkpoint of the last step written.
    """
    teacher = None
    if settings.distillation_ratio and bundle.subnet.space.fingerprint == run.info.space.fingerprint:
        resolution = bundle.subnet.config.resolution
        evaluator = SubnetEvaluator(run.supernet, run.data, calibration_images=calibration_images)
        teacher = evaluator.network(_largest(run.info.space, resolution))
    return finetune_on(
        run.data,
        bundle,
        run.directory,
        name,
        settings,
        device=run.device,
        teacher=teacher,
        formats=formats,
        calibration_images=calibration_images,
        world=world,
        progress=progress,
        note=note,
    )


def finetune_on(
    data: ImageData,
    bundle: Bundle,
    directory: RunDirectory,
    name: str,
    settings: FinetuneSettings,
    *,
    device: torch.device,
    teacher: nn.Module | None = None,
    formats: Sequence[str] = ("onnx", "pt2"),
    calibration_images: int = 2000,
    world: World = SINGLE_PROCESS,
    progress: ProgressCallback = silent,
    note: Note = unnoted,
) -> FinetuneReport | None:
    """Fine-tune a bundle's network on any images (or go on with it), recalibrate it, and export it.

    Where the images have other classes, the classifier is new; where they have other channels, the first
    convolution is summed or spread over them, which is noted. Without a teacher the `distillation_ratio`
    counts as 0, and zeros of a compressed network stay. Further arguments and errors: `finetune_bundle`.

    Args:
        data: the images.
        directory: folder of the new bundle, of checkpoints and TensorBoard events.
        device: training device.
        teacher: frozen network in eval mode on `device`, with the classes of the images; None for none.
    """
    if teacher is None and settings.distillation_ratio:
        note("no teacher: the bundle is no sub-network of a trained run; distillation_ratio counts as 0")
        settings = dataclasses.replace(settings, distillation_ratio=0.0)
    network, card, taken = retargeted(bundle, data.info, settings.seed)
    for line in () if taken is None else _transfer_lines(bundle, taken, settings):
        note(line)
    resolution, network = bundle.subnet.config.resolution, network.to(device)
    settings, task = _begun(data, settings, card, device, note)
    before = score(network, split_batches(data, "validation", resolution, device), task)
    folder = directory.finetuning(name)
    with directory.writing_bundle(name, world.is_main):
        with zeros_kept(network, bundle.subnet.sparse_layers):
            fit(
                network,
                data,
                settings,
                resolution=resolution,
                task=task,
                teacher=teacher,
                folder=folder,
                world=world,
                progress=progress,
            )
        if not world.is_main:
            return None
        recalibrate_batchnorm(network, split_images(data, "train", resolution, device, calibration_images))
        after = score(network, split_batches(data, "validation", resolution, device), task)
        card = _tuned_card(card, settings, after, data, task.metric)
        report = export_bundle(network.cpu(), card, directory.new_bundle(name), formats)
        # The bundle has the weights now; the TensorBoard events stay.
        shutil.rmtree(folder / "checkpoints")
    expected = None if taken else _expected(bundle, task.metric)
    return FinetuneReport(report.path, task.metric, before, after, data.size("validation"), expected)


def _begun(
    data: ImageData, settings: FinetuneSettings, card: ModelCard, device: torch.device, note: Note
) -> tuple[FinetuneSettings, Task]:
    """Return settings with losses that mean something for the images, and the task of a card's network."""
    if emulates(settings.precision, device):
        note(EMULATED)
    settings = with_losses_of(settings, task_of(data, settings.loss), note)
    # Outputs stay in the scale of the bundle, also on images whose numbers have another.
    return settings, task_of(data, settings.loss).in_units(card.target_scale)


def _largest(space: ImageSpace, resolution: int) -> AnyConfig:
    return space.unrestricted.restrict({"resolution": (resolution,)}).largest


def _tuned_card(
    card: ModelCard, settings: FinetuneSettings, after: float, data: ImageData, metric: Metric
) -> ModelCard:
    """Return the card of a network after its training: with its measured value and the settings."""
    value = measured_value(metric, after, "validation", data.size("validation"), data.info.name)
    provenance = {**card.provenance, "finetuned": dataclasses.asdict(settings)}
    if card.subnet is not None and card.subnet.compression is not None:
        # Ranges of int8 that the earlier weights were trained with.
        compression = dataclasses.replace(card.subnet.compression, input_ranges=())
        card = dataclasses.replace(card, subnet=dataclasses.replace(card.subnet, compression=compression))
    return dataclasses.replace(card, expected_metric=value, provenance=provenance)


def _expected(bundle: Bundle, metric: Metric) -> MetricValue | None:
    """Return the value of the metric that the card of a bundle lets expect; None if it has another one."""
    value = bundle.card.expected_metric
    return value if value is not None and value.name == metric.name else None


def _transfer_lines(bundle: Bundle, report: TransferReport, settings: FinetuneSettings) -> Iterator[str]:
    """Yield what was taken from a bundle, and a word where a new classifier is trained for a short time."""
    yield f"weights of {bundle.path.name}: {report.text}"
    if report.has_new_classifier and settings.unit == "epochs" and settings.length < _MIN_EPOCHS_OF_NEW:
        yield (
            f"{settings.length} epochs with lr {settings.lr:g} are little for a new classifier: for some "
            "hundred images 30 epochs with lr 0.05 were much better than 3 with 0.005"
        )
