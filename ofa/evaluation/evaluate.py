"""Evaluation: extract, recalibrate, and compute the task's metrics on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic

import torch
from torch import Tensor, nn

from ofa.data.base import ImageData, network_targets, resize
from ofa.evaluation.confusion import Confusion
from ofa.evaluation.outputs import float_outputs
from ofa.evaluation.pixel_store import PixelStore
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.evaluation.task import ClassificationTask, Meter, Task
from ofa.evaluation.tasks import task_of
from ofa.space.config import AnyConfig
from ofa.supernet.protocol import AbstractSupernet, Network

CLASSIFICATION = ClassificationTask()
Batches = Iterable[tuple[Tensor, Tensor]]


@torch.inference_mode()
def measure(
    outputs_of: Callable[[Tensor], Tensor], batches: Batches, task: Task = CLASSIFICATION
) -> dict[str, float]:
    """Return the task's metrics by name, for a network in eval mode or any other function of images."""
    return measure_with_loss(outputs_of, batches, task)[0]


@torch.inference_mode()
def measure_with_loss(
    outputs_of: Callable[[Tensor], Tensor], batches: Batches, task: Task = CLASSIFICATION
) -> tuple[dict[str, float], float]:
    """Return what `measure` returns, and the mean of the task's loss over all images (0 without any)."""
    meter, losses, num_images = task.meter(), list[Tensor](), 0
    for images, targets in batches:
        outputs = outputs_of(images)
        meter.add(outputs, targets)
        losses.append(task.loss(float_outputs(outputs), targets) * len(targets))
        num_images += len(targets)
    return meter.values(), float(torch.stack(losses).sum()) / num_images if losses else 0.0


@torch.inference_mode()
def measure_detailed(outputs_of: Callable[[Tensor], Tensor], batches: Batches, task: Task) -> Meter:
    """Return the filled `detailed_meter` of a task, for a network in eval mode or any function of images."""
    meter = task.detailed_meter()
    for images, targets in batches:
        meter.add(outputs_of(images), targets)
    return meter


def measure_confusion(
    outputs_of: Callable[[Tensor], Tensor],
    batches: Batches,
    class_names: Sequence[str],
    task: Task = CLASSIFICATION,
) -> Confusion:
    """Return how a network, in eval mode or any other function of images, takes classes for each other.

    Its `metrics` are those of `measure` and, for classifiers of more than ten classes, top-5.

    Args:
        outputs_of: maps images to outputs.
        batches: images and targets.
        class_names: name of each class.
        task: a task that tells classes.
    """
    confusion = measure_detailed(outputs_of, batches, task).confusion(class_names)
    assert confusion is not None, f"{type(task).__name__} tells no classes"
    return confusion


def score(outputs_of: Callable[[Tensor], Tensor], batches: Batches, task: Task = CLASSIFICATION) -> float:
    """Return the task's primary metric; see `measure`."""
    return measure(outputs_of, batches, task)[task.metric.name]


def top1(network: nn.Module, batches: Batches) -> float:
    """Return the share of images (0..1) whose largest logit is the label; `network` in eval mode."""
    assert not network.training
    return logits_top1(network, batches)


def logits_top1(logits: Callable[[Tensor], Tensor], batches: Batches) -> float:
    """Return the top-1 accuracy (0..1) for any function that returns logits."""
    return score(logits, batches)


def extract(
    supernet: AbstractSupernet[Network], config: AnyConfig, data: ImageData, *, calibration_images: int = 2000
) -> Network:
    """Return a sub-network as a network of its own, on the CPU in eval mode, its batch norms recalibrated.

    Args:
        supernet: the network it is a part of; not changed.
        config: sub-network to extract.
        data: images; the statistics are those of the first images of the training split.
        calibration_images: number of these images.
    """
    return SubnetEvaluator(supernet, data, calibration_images=calibration_images).network(config).cpu()


class SubnetEvaluator(Generic[Network]):
    """Recalibrates and evaluates sub-networks of one supernet on fixed images.

    The decoded images are kept in a `PixelStore`, because hundreds of networks are evaluated on them;
    they are normalised and resized anew for each network.
    """

    def __init__(
        self,
        supernet: AbstractSupernet[Network],
        data: ImageData,
        split: str = "validation",
        *,
        calibration_images: int = 2000,
        limit: int | None = None,
        batch_size: int = 250,
        task: Task | None = None,
    ) -> None:
        """Choose the images.

        Args:
            supernet: supernet, evaluated on its device; never changed.
            data: image set; recalibration uses the first images of its training split without augmentation.
            split: split that is evaluated.
            calibration_images: number of images for batch-norm recalibration.
            limit: number of evaluated images; None for the whole split.
            batch_size: images per forward pass.
            task: task that defines the metrics; None for that of the images.
        """
        self._supernet, self._data, self.task = supernet, data, task or task_of(data)
        self._split, self._limit = split, limit
        self._calibration_images, self._batch_size = calibration_images, batch_size
        self._device = next(supernet.parameters()).device
        self._store = PixelStore(data, batch_size, self._device)

    @property
    def num_images(self) -> int:
        """Number of evaluated images."""
        size = self._data.size(self._split)
        return size if self._limit is None else min(self._limit, size)

    def network(self, config: AnyConfig) -> Network:
        """Return the extracted and recalibrated sub-network in eval mode."""
        network = self._supernet.extract(config).eval()
        network = network.to(memory_format=torch.channels_last)
        self.recalibrate(network, config.resolution)
        return network

    def recalibrate(self, network: nn.Module, resolution: int) -> None:
        """Recompute the batch-norm statistics of `network` from training images at `resolution`."""
        recalibrate_batchnorm(network, self.training_images(resolution))

    def training_images(self, resolution: int) -> Iterable[Tensor]:
        """Return the training images for recalibration, resized to `resolution`, without augmentation."""
        batches = self._batches("train", resolution, self._calibration_images)
        return (images for images, _ in batches)

    def measure(self, config: AnyConfig) -> dict[str, float]:
        """Return the metrics of the recalibrated sub-network by name."""
        return measure(self.network(config), self.batches(config.resolution), self.task)

    def measure_with_loss(self, config: AnyConfig) -> tuple[dict[str, float], float]:
        """Return the metrics of the recalibrated sub-network by name, and the mean of the task's loss."""
        return measure_with_loss(self.network(config), self.batches(config.resolution), self.task)

    def score(self, config: AnyConfig) -> float:
        """Return the task's primary metric of the recalibrated sub-network."""
        return self.measure(config)[self.task.metric.name]

    def batches(self, resolution: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Return the images of the evaluated split, resized to `resolution`, and their targets."""
        return self._batches(self._split, resolution, self._limit)

    def _batches(self, split: str, resolution: int, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, targets in self._store.batches(split, limit):
            yield resize(self._data.normalise(pixels, self._device), resolution), network_targets(targets)
