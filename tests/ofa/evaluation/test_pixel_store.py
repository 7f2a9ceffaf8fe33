"""The store of decoded images: decoded once, with the same values from memory, from a file and anew."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from training_run import SPACE, make_data

from ofa.data.folder import FolderData
from ofa.data.settings import DataSettings
from ofa.evaluation import pixel_store
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.pixel_store import PixelStore
from ofa.supernet.supernet import build_supernet

CPU = torch.device("cpu")


class CountedData(FolderData):
    """Photographs that count how many were decoded."""

    num_decoded = 0

    def pixel_batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, labels in super().pixel_batches(split, batch_size, device, limit):
            self.num_decoded += len(pixels)
            yield pixels, labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for label, name in enumerate(("a", "b", "c")):
        (root / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 90, (20, 17, 3)) + 80 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def data(folder: Path) -> CountedData:
    return CountedData(DataSettings("made", str(folder), image_size=12, workers=0, stratified=True))


def read(store: PixelStore, split: str, limit: int | None = None) -> tuple[Tensor, Tensor]:
    pairs = list(store.batches(split, limit))
    return torch.cat([pixels for pixels, _ in pairs]), torch.cat([labels for _, labels in pairs])


def test_images_are_decoded_once_for_all_networks(data: CountedData) -> None:
    supernet = build_supernet(dataclasses.replace(SPACE, in_channels=3), 0)
    evaluator = SubnetEvaluator(supernet, data, calibration_images=9, batch_size=5)
    scores = [evaluator.score(config) for config in (SPACE.smallest, SPACE.largest, SPACE.middle)]
    assert len({config.resolution for config in (SPACE.smallest, SPACE.largest)}) == 2
    assert len(scores) == 3
    assert data.num_decoded == 9 + data.size("validation")


@pytest.mark.parametrize("max_memory_bytes", [10**9, 2000, 0])
def test_memory_and_file_give_the_same_pixels(
    data: CountedData, monkeypatch: pytest.MonkeyPatch, max_memory_bytes: int
) -> None:
    monkeypatch.setattr(pixel_store, "MAX_MEMORY_BYTES", max_memory_bytes)
    store = PixelStore(data, 5, CPU)
    expected = [torch.cat(parts) for parts in zip(*data.pixel_batches("train", 7, CPU, 11), strict=True)]
    data.num_decoded = 0
    for _ in range(3):
        pixels, labels = read(store, "train", 11)
        assert pixels.dtype == torch.uint8 and pixels.shape == (11, 3, 12, 12)
        assert torch.equal(pixels, expected[0]) and torch.equal(labels, expected[1])
    assert data.num_decoded == 11
    assert bool(store._memory) == (max_memory_bytes == 10**9)


def test_two_splits_share_the_budget(data: CountedData, monkeypatch: pytest.MonkeyPatch) -> None:
    per_image = 3 * 12 * 12
    monkeypatch.setattr(pixel_store, "MAX_MEMORY_BYTES", per_image * (data.size("validation") + 3))
    store = PixelStore(data, 5, CPU)
    read(store, "validation")
    read(store, "train", 4)
    assert list(store._memory) == [("validation", None)] and list(store._files) == [("train", 4)]


@pytest.mark.parametrize("is_full", [True, False])
def test_without_room_images_are_decoded_anew(
    data: CountedData, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """The disk is full after the first batch, or the images are more than a file may hold."""
    monkeypatch.setattr(pixel_store, "MAX_MEMORY_BYTES", 0)
    if is_full:
        write, num_writes = pixel_store._write, 0

        def fill(file: Any, pixels: Any) -> None:
            nonlocal num_writes
            num_writes += 1
            if num_writes == 2:
                raise OSError(28, "No space left on device")
            write(file, pixels)

        monkeypatch.setattr(pixel_store, "_write", fill)
    else:
        monkeypatch.setattr(pixel_store, "MAX_FILE_BYTES", 3000)
    store = PixelStore(data, 5, CPU)
    expected = [torch.cat(parts) for parts in zip(*data.pixel_batches("train", 7, CPU, None), strict=True)]
    for _ in range(2):
        assert torch.equal(read(store, "train")[0], expected[0])
    assert store._streamed == {("train", None)} and not store._files and store._file_bytes == 0


def test_a_set_in_memory_is_not_kept_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise AssertionError("no file is needed")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(pixel_store, "MAX_MEMORY_BYTES", 0)
    data = make_data()
    store = PixelStore(data, 50, CPU)
    assert read(store, "validation")[0].shape == (30, 1, 12, 12)
    assert not store._memory and not store._files


def test_evaluation_sees_what_the_set_yields(data: CountedData) -> None:
    supernet = build_supernet(dataclasses.replace(SPACE, in_channels=3), 0)
    evaluator = SubnetEvaluator(supernet, data, batch_size=4)
    for (images, labels), (others, other_labels) in zip(
        evaluator.batches(12), data.batches("validation", 4, CPU), strict=True
    ):
        assert torch.equal(images, others) and torch.equal(labels, other_labels)


class SquareMasks(CountedData):
    """Photographs whose target is a mask of their own."""

    def pixel_batches(
        self, split: str, batch_size: int, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, _ in super().pixel_batches(split, batch_size, device, limit):
            yield pixels, pixels[:, 0] // 2


@pytest.mark.parametrize(
    ("max_memory_bytes", "place"), [(6 * 4 * 144, "_memory"), (6 * 4 * 144 - 1, "_files")]
)
def test_masks_are_counted_and_kept_beside_their_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, max_memory_bytes: int, place: str
) -> None:
    monkeypatch.setattr(pixel_store, "MAX_MEMORY_BYTES", max_memory_bytes)
    monkeypatch.setattr(pixel_store, "MAX_FILE_BYTES", 6 * 4 * 144)
    data = SquareMasks(DataSettings("made", str(folder), image_size=12, workers=0, stratified=True))
    store = PixelStore(data, 4, CPU)
    for _ in range(2):
        pixels, masks = read(store, "train", 6)
        assert masks.dtype == torch.uint8 and torch.equal(masks, pixels[:, 0] // 2)
    assert data.num_decoded == 6 and list(getattr(store, place)) == [("train", 6)]


def test_evaluation_gives_masks_as_labels(folder: Path) -> None:
    data = SquareMasks(DataSettings("made", str(folder), image_size=12, workers=0, stratified=True))
    supernet = build_supernet(dataclasses.replace(SPACE, in_channels=3), 0)
    evaluated = SubnetEvaluator(supernet, data, batch_size=4).batches(12)
    for (_, masks), (_, others) in zip(evaluated, data.batches("validation", 4, CPU), strict=True):
        assert masks.dtype == others.dtype == torch.int64 and torch.equal(masks, others)
