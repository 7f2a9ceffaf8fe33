"""`StepTraining`: networks as the steps of a compression make them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ofa.common.progress import progress_bar
from ofa.compression.changes import LayerChange, apply_changes
from ofa.data.sources import load_data
from ofa.evaluation.batches import split_images
from ofa.runs.compression_settings import CompressionLimits, CompressionSettings
from ofa.runs.compression_training import StepTraining
from ofa.training.settings import FinetuneSettings

CHANGES = (LayerChange("2", "split", (8,)), LayerChange("4", "penni", (2,)))


def squared_error(values: Tensor, expected: Tensor) -> float:
    return float((values - expected).square().mean() / expected.square().mean())


@pytest.mark.parametrize("num_images", [0, 64])
def test_the_ends_of_splits_are_fitted_and_bases_are_not(num_images: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second, third = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 8, 3)
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
    finetuning = FinetuneSettings(1, 0.1, 30, 0.9, 0.0, 0.0, 0.0, 0)
    settings = CompressionSettings(
        steps=("split", "penni"),
        limits=CompressionLimits(macs_share=0.5),
        reconstruction_images=num_images,
        finetuning=finetuning,
    )
    data = load_data("digits")
    training = StepTraining(network, data, settings, tmp_path, 8, None, progress_bar, lambda line: None)
    cut, changed = apply_changes(network, CHANGES), training.changed(network, CHANGES)
    weights = dict(changed.named_parameters())
    different = {name for name, value in cut.named_parameters() if not value.equal(weights[name])}
    assert different == ({"2.1.weight"} if num_images else set())
    (images,) = split_images(data, "test", 8, torch.device("cpu"), 100)
    with torch.no_grad():
        errors = [
            squared_error(nn.Sequential(*own.children())[:3](images), network[:3](images))
            for own in (cut, changed)
        ]
    assert errors[1] < 0.9 * errors[0] if num_images else errors[1] == errors[0]
