"""Batches of images and masks: aligned through every change, and the same for every number of processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mask_folders import (
    aligned_share,
    all_of,
    classes_of,
    draw_mask,
    is_plain,
    settings,
    write_image,
    write_mask,
    write_pair,
    write_pairs,
)

from ofa.common.distributed import World
from ofa.common.errors import UserError
from ofa.data import file_data
from ofa.data.augment import Augmentation
from ofa.data.file_data import PHOTO_MEAN
from ofa.data.mask_folder import MaskFolderData
from ofa.data.workers import WorkerPlan

CPU = torch.device("cpu")
SPLITS = ("train", "validation", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "set", 20)


def test_training_masks_follow_their_images(root: Path) -> None:
    """Crops, mirroring, and pictures of which every second one is turned by EXIF."""
    data = MaskFolderData(settings(root, horizontal_flip=True, crop_scale=0.2))
    batches = [batch for epoch in range(4) for batch in data.train_batches(2, 0, epoch, CPU)]
    images, masks = all_of(batches)
    assert images.shape == (len(masks), 3, 16, 16) and masks.shape[1:] == (16, 16)
    assert images.dtype == torch.float32 and masks.dtype == torch.int64
    assert aligned_share(images, masks) > 0.5
    # The same masks mirrored, or those of other images, would not fit.
    for others in (masks.flip(-1), masks.roll(1, 0)):
        plain = is_plain(images)
        assert (others[plain] == classes_of(images)[plain]).float().mean() < 0.9


def test_evaluation_shows_the_centre_of_both(root: Path) -> None:
    data = MaskFolderData(settings(root))
    for split in SPLITS:
        images, masks = all_of(data.batches(split, 3, CPU))
        assert len(images) == data.size(split) and aligned_share(images, masks) > 0.5
    pixels, masks = next(iter(data.pixel_batches("test", 2, CPU)))
    assert pixels.dtype == masks.dtype == torch.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_turn_of_an_image_is_that_of_its_mask(tmp_path: Path, orientation: int) -> None:
    rng = np.random.default_rng(orientation)
    for number in range(8):
        write_pair(tmp_path, str(number), draw_mask(rng), orientation=orientation)
    data = MaskFolderData(settings(tmp_path, horizontal_flip=True))
    assert data.picture_sizes("train").tolist() == [[30, 24]] * data.size("train")
    for batches in (data.train_batches(2, 0, 0, CPU), data.batches("train", 2, CPU)):
        assert aligned_share(*all_of(batches)) > 0.5


def test_the_centre_is_a_square_of_the_known_share(tmp_path: Path) -> None:
    """Of 32 x 48 pixels, the square of 28 in the middle: columns 2 to 29, rows 10 to 37."""
    mask = np.zeros((48, 32), np.uint8)
    mask[10:38, 2:30] = 1
    mask[10, 2] = mask[37, 29] = 2
    for number in range(4):
        write_pair(tmp_path, str(number), mask)
    data = MaskFolderData(settings(tmp_path, image_size=28))
    (_, masks), *_ = data.batches("test", 1, CPU)
    assert torch.equal(masks[0], torch.from_numpy(mask[10:38, 2:30]).long())


def test_masks_hold_only_values_that_were_there(tmp_path: Path) -> None:
    """Between 0, 7 and 200 an interpolation would give others."""
    rng = np.random.default_rng(0)
    for number in range(8):
        mask = np.array([0, 7, 200, 255], np.uint8)[rng.integers(0, 4, (24, 30))]
        write_pair(tmp_path, str(number), mask)
    data = MaskFolderData(settings(tmp_path, horizontal_flip=True))
    for batches in (data.train_batches(2, 0, 0, CPU), data.batches("train", 2, CPU)):
        assert {*all_of(batches)[1].flatten().tolist()} == {0, 7, 200, 255}


def test_images_are_those_of_photographs_without_masks(root: Path) -> None:
    data = MaskFolderData(settings(root, horizontal_flip=True))
    dataset = data._datasets["train"]
    augmentation = Augmentation(settings(root, horizontal_flip=True), PHOTO_MEAN)
    flips = []
    for seed in range(12):
        item = dataset[0, seed]
        assert not isinstance(item, UserError)
        assert torch.equal(item.pixels, augmentation.read(dataset._paths[0], seed))
        flips.append(augmentation.placement(*dataset._sizes[0], seed).is_mirrored)
    assert {*flips} == {True, False}


@pytest.mark.parametrize("mode", ["P", "L"])
def test_palette_and_grey_give_the_same(root: Path, tmp_path: Path, mode: str) -> None:
    expected = MaskFolderData(settings(root))
    rng = np.random.default_rng(0)
    for number in range(20):
        write_pair(tmp_path / mode, f"{number:02d}", draw_mask(rng), mode, 6 if number % 2 else 1)
    data = MaskFolderData(settings(tmp_path / mode))
    assert data.info == expected.info and data.class_counts("train") == expected.class_counts("train")
    for (images, masks), (others, other_masks) in zip(
        data.train_batches(4, 0, 0, CPU), expected.train_batches(4, 0, 0, CPU), strict=True
    ):
        assert torch.equal(images, others) and torch.equal(masks, other_masks)


def test_masks_of_one_bit_have_two_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        mask = draw_mask(rng) % 2
        write_image(tmp_path / "images" / f"{number}.png", mask)
        write_mask(tmp_path / "masks" / f"{number}.png", mask, "1")
    data = MaskFolderData(settings(tmp_path))
    assert data.info.class_names == ("0", "1")
    assert aligned_share(*all_of(data.batches("train", 2, CPU))) > 0.5


def test_seed_and_epoch_decide_everything(root: Path) -> None:
    first, second = MaskFolderData(settings(root)), MaskFolderData(settings(root))
    runs = [all_of(data.train_batches(4, 3, 1, CPU)) for data in (first, second)]
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    for seed, epoch in ((4, 1), (3, 2)):
        assert not torch.equal(all_of(first.train_batches(4, seed, epoch, CPU))[1], runs[0][1])


def test_two_processes_see_the_halves_of_each_batch_and_a_resumed_one_the_rest(root: Path) -> None:
    data = MaskFolderData(settings(root, fill_last_batch=True))
    whole = list(data.train_batches(4, 0, 0, CPU))
    assert len(whole) == 3
    parts = [list(data.train_batches(4, 0, 0, CPU, world=World(rank, 2))) for rank in (0, 1)]
    for (images, masks), first, second in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([first[0], second[0]]), images)
        assert torch.equal(torch.cat([first[1], second[1]]), masks)
    for (images, masks), (others, other_masks) in zip(
        data.train_batches(4, 0, 0, CPU, first=1), whole[1:], strict=True
    ):
        assert torch.equal(images, others) and torch.equal(masks, other_masks)


def test_worker_processes_give_the_same(root: Path) -> None:
    alone, helped = MaskFolderData(settings(root)), MaskFolderData(settings(root, workers=1))
    for name, batches in {
        "train": [data.train_batches(4, 0, 0, CPU) for data in (alone, helped)],
        "test": [data.batches("test", 4, CPU) for data in (alone, helped)],
    }.items():
        (images, masks), (others, other_masks) = map(all_of, batches)
        assert torch.equal(images, others) and torch.equal(masks, other_masks), name


def test_masks_count_in_the_size_of_a_batch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_bytes: list[int] = []

    def spy(num_workers: int, num_batches: int, num_bytes: int) -> WorkerPlan:
        batch_bytes.append(num_bytes)
        return WorkerPlan(0, None)

    monkeypatch.setattr(file_data, "plan_workers", spy)
    (pixels, masks), *_ = MaskFolderData(settings(root)).pixel_batches("train", 4, CPU)
    assert batch_bytes == [pixels.nbytes + masks.nbytes]


def test_the_dataset_can_be_sent_to_processes(root: Path) -> None:
    dataset = MaskFolderData(settings(root))._datasets["train"]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1, 5].target, dataset[1, 5].target)  # type: ignore[union-attr, arg-type]


def test_a_file_damaged_later_stops_or_gives_way_to_another_pair(root: Path) -> None:
    data = MaskFolderData(settings(root))
    skipping = MaskFolderData(settings(root, on_unreadable="skip"))
    mask_paths = data._datasets["train"]._mask_paths  # type: ignore[attr-defined]
    Path(mask_paths[0]).write_bytes(b"")
    with pytest.raises(UserError, match=r"masks/\d\d.png cannot be read as an image"):
        list(data.train_batches(2, 0, 0, CPU))
    with pytest.warns(UserWarning, match=r"cannot be read any more .* takes its place"):
        images, masks = all_of(skipping.batches("train", 4, CPU))
    assert torch.equal(images[0], images[1]) and torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("value", [4, 254])
def test_a_value_that_came_later_is_named(root: Path, value: int) -> None:
    data = MaskFolderData(settings(root))
    path = Path(data._datasets["test"]._mask_paths[0])  # type: ignore[attr-defined]
    write_mask(path, np.full((24, 30), value, np.uint8))
    with pytest.raises(UserError, match=rf"{path.name} cannot be read .*the value {value} is no class"):
        list(data.batches("test", 2, CPU))
    write_mask(path, np.zeros((30, 24), np.uint8))
    with pytest.raises(UserError, match="24x30 pixels, where 30x24 were expected"):
        list(data.batches("test", 2, CPU))
