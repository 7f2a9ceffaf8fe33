"""Taylor importance: channels in the order of weight times gradient, for supernets that know it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_run import MODEL_PHASES, PHASES, make_data, make_trainer, model_supernet

from ofa.common.errors import UserError
from ofa.data.base import resize
from ofa.evaluation.task import ClassificationTask
from ofa.training.channel_order import sort_channels
from ofa.training.settings import TrainSettings

CPU = torch.device("cpu")


def by_hand(model: nn.Module, resolution: int) -> torch.Tensor:
    """Return |weight x gradient| of the 16 channels between `OwnNet`'s two convolutions."""
    model = copy.deepcopy(model).eval()
    total = torch.zeros(())
    for images, labels in make_data().batches("train", 20, CPU, 60):
        total = total + F.cross_entropy(model(resize(images, resolution)), labels)
    total.backward()  # type: ignore[no-untyped-call]
    parts = [("stem.weight", 0), ("stem.bias", 0), ("norm.weight", 0), ("norm.bias", 0), ("wide.weight", 1)]
    products = {name: weight.detach() * weight.grad for name, weight in model.named_parameters()}  # type: ignore[operator]
    return torch.stack(
        [
            products[name].abs().transpose(0, axis).flatten(1).sum(1)
            if products[name].dim() > 1
            else products[name].abs()
            for name, axis in parts
        ]
    ).sum(0)


def test_the_order_is_that_of_weights_times_gradients() -> None:
    supernet = model_supernet("own")
    resolution = supernet.space.largest.resolution
    before = by_hand(supernet.model, resolution)
    only_largest = supernet.space.only_largest
    task = ClassificationTask(TrainSettings(30, label_smoothing=0.0).loss)
    batches = list(make_data().batches("train", 20, CPU, 60))
    images = resize(batches[0][0], resolution)
    outputs = supernet.eval()(images, supernet.space.largest)
    sort_channels(supernet, only_largest, "taylor", batches, task)
    torch.testing.assert_close(supernet(images, supernet.space.largest), outputs)
    after = by_hand(supernet.model, resolution)
    assert before.argsort(descending=True).tolist() != list(range(16))
    torch.testing.assert_close(after, before.sort(descending=True).values)
    assert all(weight.grad is None for weight in supernet.parameters())


def test_a_training_begins_with_the_order(tmp_path: Path) -> None:
    heads = [
        make_trainer(tmp_path / name, phases=MODEL_PHASES, model="own", importance=name).train().state_dict()
        for name in ("l1", "taylor")
    ]
    assert not torch.equal(*(head["model.stem.weight"] for head in heads))


def test_published_families_are_sorted_by_their_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sorted by l1, not by taylor; change importance"):
        make_trainer(tmp_path, phases=PHASES, importance="taylor")
    with pytest.raises(UserError, match="Unknown importance 'l2'"):
        TrainSettings(30, importance="l2")
