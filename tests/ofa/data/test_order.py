"""The order of an epoch: full batches, and classes drawn equally often on request."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa.common.distributed import World
from ofa.data.memory import MemoryData
from ofa.data.order import balanced_order, epoch_order
from ofa.data.settings import DataSettings

CPU = torch.device("cpu")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def toy(balance: str = "none", is_filled: bool = False) -> MemoryData:
    """26 + 4 training images whose pixels are their number, with one of each class for validation."""
    labels = torch.tensor([0] * 27 + [1] * 5)
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    settings = DataSettings(
        "toy", validation_size=2, stratified=True, balance=balance, fill_last_batch=is_filled
    )
    return MemoryData(settings, ("common", "rare"), (images, labels), (images, labels))


def pixels(data: MemoryData, batch: torch.Tensor) -> list[int]:
    mean, std = data.info.mean[0], data.info.std[0]
    return [round(255 * float(image[0, 0, 0] * std + mean)) for image in batch]


def test_the_last_batch_is_filled_up_from_the_start_of_the_same_epoch() -> None:
    order = epoch_order(np.zeros(10, np.int64), rng(), "none", 12)
    assert len(order) == 12
    assert sorted(order[:10]) == list(range(10))
    assert order[10:].tolist() == order[:2].tolist()
    assert epoch_order(np.zeros(8, np.int64), rng(), "none", 8).tolist() == rng().permutation(8).tolist()


def test_an_epoch_of_a_set_sees_every_image() -> None:
    assert toy().num_batches(8) == 3
    data = toy(is_filled=True)
    batches = [pixels(data, images) for images, _ in data.train_batches(8, 0, 0, CPU)]
    assert [len(batch) for batch in batches] == [8, 8, 8, 8]
    assert data.num_batches(8) == 4
    numbers = [number for batch in batches for number in batch]
    assert len(set(numbers[:30])) == 30
    assert numbers[30:] == numbers[:2]


def test_classes_are_drawn_equally_often() -> None:
    labels = np.array([0] * 26 + [1] * 4)
    order = balanced_order(labels, rng())
    assert len(order) == 30
    assert Counter(labels[order].tolist()) == {0: 15, 1: 15}
    counts = Counter(row for row in order.tolist() if row >= 26)
    # Four images take 15 places: each three or four times.
    assert sorted(counts.values()) == [3, 4, 4, 4]
    assert len({row for row in order.tolist() if row < 26}) == 15
    seen = {row for seed in range(12) for row in balanced_order(labels, rng(seed)).tolist()}
    assert seen == set(range(30))


def test_classes_without_training_images_take_no_place() -> None:
    labels = np.array([0, 0, 0, 3])
    assert Counter(labels[balanced_order(labels, rng())].tolist()) == {0: 2, 3: 2}
    many = np.arange(5).repeat(2)
    assert len(balanced_order(many[:7], rng())) == 7


def test_balanced_batches_depend_on_seed_and_epoch_alone() -> None:
    data, again = toy("sampling"), toy("sampling")
    every = list(data.train_batches(10, 3, 1, CPU))
    assert len(every) == 3
    assert sum(int(labels.sum()) for _, labels in every) == 15
    resumed = list(again.train_batches(10, 3, 1, CPU, first=2))
    assert torch.equal(resumed[0][0], every[2][0])
    parts = [next(toy("sampling").train_batches(10, 3, 1, CPU, 1, World(rank, 2)))[0] for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), every[1][0])
    other = next(data.train_batches(10, 3, 2, CPU))
    assert not torch.equal(other[0], every[0][0])


def test_class_counts_of_a_set_in_memory() -> None:
    data = toy()
    assert data.class_counts("train") == (26, 4)
    assert data.class_counts("validation") == (1, 1)
    assert data.class_counts("test") == (27, 5)
    assert data.notes == ()


def test_settings_of_photographs_are_refused_for_sets_in_memory(tmp_path: Path) -> None:
    images, labels = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1), torch.tensor([0, 1] * 4)
    settings = DataSettings("toy", validation_size=2, augment="trivial", cache=str(tmp_path))
    with pytest.raises(ValueError, match="augment, cache: only for photographs in folders; toy is held"):
        MemoryData(settings, ("a", "b"), (images, labels), (images, labels))
