"""Trained networks that comparisons of pruning begin with, and how networks are trained and judged there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from small_networks import (
    ResNet20,
    mobilenet_v2_small,
    resnet18_narrow,
    shufflenet_small,
    vgg_small,
    vit_small,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ofa.common.progress import progress_bar
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.evaluation.evaluate import score
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.graph.genes import ChoiceRule
from ofa.graph.weights import load_weights
from ofa.runs.pruned_files import save_network
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": ResNet20,
    "mobilenet_v2": mobilenet_v2_small,
    "resnet18": resnet18_narrow,
    "vgg": vgg_small,
    "shufflenet": shufflenet_small,
    "vit": vit_small,
}
SIDE, BATCH_SIZE, CALIBRATION_IMAGES, VALIDATION_IMAGES = 28, 128, 500, 1000
DEVICE = torch.device("cpu")
# The strided 1x1 convolutions of ResNet-20 need 8 inputs; see `strided_convolution.py`.
RULES = (ChoiceRule("conv1", widths=tuple(share / 16 for share in range(8, 17))),)
_EPOCHS = {"resnet20": 3, "mobilenet_v2": 4, "resnet18": 3, "vgg": 2, "shufflenet": 4, "vit": 4}


def images_of(root: str) -> ImageData:
    """Return Fashion-MNIST with 5,000 images for validation."""
    return load_data(DataSettings("fashion_mnist", root, horizontal_flip=True, validation_size=5_000))


def training(
    seed: int, *, lr: float = 0.01, distillation_ratio: float = 1.0, **length: int
) -> FinetuneSettings:
    """Return the settings of a training of so many `epochs` or `steps`; `lr` is per 64 images."""
    return FinetuneSettings(
        epochs=length.get("epochs"),
        steps=length.get("steps"),
        lr=lr,
        batch_size=BATCH_SIZE,
        momentum=0.9,
        weight_decay=1e-4,
        label_smoothing=0.0,
        distillation_ratio=distillation_ratio,
        seed=seed,
    )


def trained_original(name: str, data: ImageData, folder: Path) -> nn.Module:
    """Return a network of `MODELS` in eval mode, trained if there is no file of it in the folder yet."""
    torch.manual_seed(0)
    network, path = MODELS[name](), folder / f"{name}.safetensors"
    if path.exists():
        load_weights(network, path, name)
    else:
        settings = training(0, lr=0.05, distillation_ratio=0.0, epochs=_EPOCHS[name])
        with progress_bar(name) as progress:
            fit(
                network,
                data,
                settings,
                resolution=SIDE,
                folder=folder / f"{name}-training",
                progress=progress,
            )
        save_network(network, path)
    return network.eval()


def tuned(network: nn.Module, original: nn.Module, data: ImageData, settings: FinetuneSettings) -> nn.Module:
    """Train a small network in place with the original as the teacher, recalibrate it and return it."""
    if settings.length:
        with progress_bar("fine-tuning") as progress:
            fit(network, data, settings, resolution=SIDE, teacher=original, progress=progress)
    recalibrate_batchnorm(network, calibration_images(data))
    return network.eval()


def calibration_images(data: ImageData) -> Iterator[Tensor]:
    """Yield the images that batch norm is recalibrated on."""
    return (images for images, _ in data.batches("train", 250, DEVICE, CALIBRATION_IMAGES))


def costs_of(network: nn.Module) -> tuple[float, int]:
    """Return multiply-accumulates of one image and parameters."""
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, SIDE, SIDE))
    return counter.get_total_flops() / 2, sum(parameter.numel() for parameter in network.parameters())


def accuracies(network: nn.Module, data: ImageData) -> dict[str, float]:
    """Return the top-1 on all test images, and on the validation images that no method looks at."""
    network.eval()
    batches = list(data.batches("validation", 250, DEVICE))[VALIDATION_IMAGES // 250 :]
    return {
        "test_top1": score(network, data.batches("test", 250, DEVICE)),
        "validation_top1": score(network, iter(batches)),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that may not exist yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write a row to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
