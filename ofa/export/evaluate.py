"""Evaluation of a bundle on an image set: the input according to its card, and its accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.compression.quantisation.calibration import single_images
from ofa.compression.quantisation.search_precision import Samples
from ofa.data.base import ImageData, resize
from ofa.data.preprocessing import centre_crop
from ofa.data.settings import DataInfo
from ofa.evaluation.evaluate import measure_detailed
from ofa.evaluation.task import Meter
from ofa.evaluation.tasks import task_of
from ofa.export.bundle import Bundle
from ofa.export.card import ModelCard
from ofa.export.formats import PT2
from ofa.export.fresh_run import load_file

BATCH_SIZE = 250
_CPU = torch.device("cpu")


def card_batches(
    card: ModelCard, data: ImageData, split: str, *, device: torch.device = _CPU, limit: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the first `limit` images of a split in the form that the card's network takes, and their labels.

    Raises:
        UserError: if the images do not fit the card.
    """
    _check_data(card, data.info)
    batches = data.batches(split, BATCH_SIZE, device, limit)
    return ((card_input(card, data.info, images), labels) for images, labels in batches)


def card_samples(card: ModelCard, data: ImageData, num_calibration: int, limit: int | None = None) -> Samples:
    """Return training images to calibrate on and the first `limit` validation images, according to the card.

    Raises:
        UserError: if the images do not fit the card.
    """

    def validation() -> Iterable[tuple[Tensor, Tensor]]:
        return card_batches(card, data, "validation", limit=limit)

    training = (images for images, _ in card_batches(card, data, "train", limit=num_calibration))
    size = data.size("validation")
    num_validation = size if limit is None else min(limit, size)
    return Samples(single_images(training, num_calibration), validation, num_validation)


def card_input(card: ModelCard, info: DataInfo, images: Tensor) -> Tensor:
    """Return the network's input for images (n, channels, h, w) that are normalised as `info` says."""
    _, height, width = card.input_shape
    values = card.preprocessing
    if values.centre_share < info.centre_share:
        share = values.centre_share / info.centre_share
        images = centre_crop(images, round(share * min(images.shape[-2:])))
    images = resize(images, (height, width))
    if (values.mean, values.std, values.pixel_scale) == (info.mean, info.std, 1 / 255):
        return images
    old_moments, new_moments = (
        [torch.tensor(numbers, device=images.device).view(-1, 1, 1) for numbers in (source.mean, source.std)]
        for source in (info, values)
    )
    return (
        (images * old_moments[1] + old_moments[0]) * (255 * values.pixel_scale) - new_moments[0]
    ) / new_moments[1]


def _check_data(card: ModelCard, info: DataInfo) -> None:
    problems = []
    if card.input_shape[0] != info.in_channels:
        problems.append(
            f"{card.name} takes {card.input_shape[0]} channels; {info.name} has {info.in_channels}."
        )
    if card.class_names and len(card.class_names) != info.num_classes:
        problems.append(
            f"{card.name} has {len(card.class_names)} classes; {info.name} has {info.num_classes}."
        )
    if card.preprocessing.centre_share > info.centre_share:
        problems.append(
            f"{card.name} takes the centred {card.preprocessing.centre_share:g} of an image; {info.name} "
            f"keeps {info.centre_share:g}. Set the card's centre_share to that."
        )
    if problems:
        raise UserError("\n".join(problems))


def measure_file(
    bundle: Bundle,
    name: str,
    data: ImageData,
    split: str,
    *,
    device: torch.device = _CPU,
    trust: bool = False,
) -> Meter:
    """Return the filled meter of one of a bundle's files on a split: its metrics, and more for reports.

    Args:
        bundle: bundle of a network for the task of the images.
        name: key in `bundle.files`; "weights" run on `device`, other files by their engines on the CPU.
        data: image set with the same number of classes.
        split: split that is evaluated.
        device: device of the bundle's network.
        trust: load files that can run code although they were not exported here; see `ofa.export.trust`.

    Raises:
        UserError: if the network is for another task than the images, these do not fit, or `load_file`
            fails.
    """
    card = bundle.card
    task = task_of(data).in_units(card.target_scale)
    card.check_task(data.info)
    if name != "weights":
        return measure_detailed(load_file(bundle, name, trust=trust), card_batches(card, data, split), task)
    batches = card_batches(card, data, split, device=device)
    return measure_detailed(bundle.network.to(device), batches, task)


class ExportedNetwork(nn.Module):
    """A graph of `torch.export` as a module in eval mode, its only mode."""

    def __init__(self, graph: nn.Module) -> None:
        """Take the module of an exported program."""
        super().__init__()
        self.graph = graph
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to the network's output."""
        output: Tensor = self.graph(images)
        return output

    def train(self, mode: bool = True) -> ExportedNetwork:
        """Return the module unchanged.

        Raises:
            UserError: if `mode` is True.
        """
        if mode:
            raise UserError(
                "A network from a graph file cannot be trained; pass a module of its architecture."
            )
        return self


def runnable_module(bundle: Bundle, *, trust: bool = False) -> nn.Module:
    """Return the bundle's network, or, if its architecture is unknown, the graph of its pt2 file.

    Args:
        bundle: the bundle.
        trust: load files that can run code although they were not exported here; see `ofa.export.trust`.

    Raises:
        UserError: if both are missing, or the file is damaged or not trusted.
    """
    if bundle.module is not None or PT2 not in bundle.files:
        return bundle.network
    graph = load_file(bundle, PT2, trust=trust)
    assert isinstance(graph, nn.Module)
    return ExportedNetwork(graph)
