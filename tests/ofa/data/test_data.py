"""Image sets: splits, batches that depend on their seed alone, folders, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import normalize

from ofa.common.errors import UserError
from ofa.data.base import ImageData, resize
from ofa.data.memory import MemoryData
from ofa.data.settings import DataSettings
from ofa.data.sources import describe_data, load_data

CPU = torch.device("cpu")


def write_tree(root: Path, classes: tuple[str, ...] = ("cat", "dog"), images: int = 6) -> Path:
    """Write a train/val tree of small photographs, one colour per class."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(images):
                pixels = rng.integers(0, 60, (20, 24, 3)) + 90 * (label % 3)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


def folder_settings(root: Path, workers: int = 0) -> DataSettings:
    return DataSettings(
        "image_folder", str(root), validation_size=4, image_size=16, workers=workers, horizontal_flip=True
    )


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data(DataSettings("digits", validation_size=238, crop_padding=1))


def test_digits_are_split_without_overlap(digits: ImageData) -> None:
    assert [digits.size(split) for split in ("train", "validation", "test")] == [1200, 238, 359]
    batches = [
        image.numpy().tobytes()
        for split in ("train", "validation", "test")
        for images, _ in digits.batches(split, 400, CPU)
        for image in images
    ]
    assert len(batches) == 1797
    assert len(set(batches)) == 1797
    assert digits.info.num_classes == 10
    assert digits.info.in_channels == 1


def test_the_training_split_is_normalised(digits: ImageData) -> None:
    images = torch.cat([images for images, _ in digits.batches("train", 500, CPU)]).double()
    assert abs(float(images.mean())) < 1e-5
    assert float(images.std()) == pytest.approx(1, abs=1e-4)


def test_the_validation_split_is_the_same_for_every_order_of_use() -> None:
    settings = DataSettings("digits", validation_size=100)
    first, second = load_data(settings), load_data(settings)
    next(iter(second.train_batches(32, 5, 3, CPU)))
    a, b = (next(iter(data.batches("validation", 100, CPU))) for data in (first, second))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_batches_depend_on_seed_epoch_and_index_alone(digits: ImageData) -> None:
    every = list(digits.train_batches(128, 1, 0, CPU))
    rest = list(digits.train_batches(128, 1, 0, CPU, first=6))
    assert len(every) == digits.num_batches(128) == 9
    for (images, labels), (again, labels_again) in zip(every[6:], rest, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, labels_again)
    other_epoch = next(iter(digits.train_batches(128, 1, 1, CPU)))
    other_seed = next(iter(digits.train_batches(128, 2, 0, CPU)))
    assert not torch.equal(every[0][0], other_epoch[0])
    assert not torch.equal(every[0][0], other_seed[0])


def test_each_image_is_shifted_by_its_own_draw(digits: ImageData) -> None:
    plain = {image.numpy().tobytes() for images, _ in digits.batches("train", 400, CPU) for image in images}
    images = torch.cat([images for images, _ in digits.train_batches(400, 0, 0, CPU)])
    unshifted = sum(image.numpy().tobytes() in plain for image in images)
    # A shift of nothing has one of nine chances.
    assert 0.07 < unshifted / len(images) < 0.16


def test_resize_keeps_the_native_size_and_changes_others() -> None:
    images = torch.randn(2, 3, 8, 8)
    assert resize(images, 8) is images
    assert resize(images, 12).shape == (2, 3, 12, 12)


def test_a_folder_yields_its_images_and_labels(tmp_path: Path) -> None:
    data = load_data(folder_settings(write_tree(tmp_path)))
    assert data.info.class_names == ("cat", "dog")
    assert describe_data(folder_settings(tmp_path)) == (3, 2)
    assert [data.size(split) for split in ("train", "validation", "test")] == [8, 4, 12]
    images, labels = next(iter(data.batches("test", 12, CPU)))
    assert images.shape == (12, 3, 16, 16)
    # Shuffled, so that the first ones are a fair sample.
    assert sorted(labels.tolist()) == [0] * 6 + [1] * 6 and len(set(labels[:6].tolist())) == 2
    assert float(images[labels == 1].mean()) > float(images[labels == 0].mean())


@pytest.mark.parametrize("workers", [0, 1])
def test_folder_batches_are_the_same_whoever_decodes_them(tmp_path: Path, workers: int) -> None:
    data = load_data(folder_settings(write_tree(tmp_path), workers))
    reference = load_data(folder_settings(tmp_path, 0))
    state = torch.get_rng_state()
    found = list(data.train_batches(4, 0, 2, CPU))
    expected = list(reference.train_batches(4, 0, 2, CPU))
    resumed = list(reference.train_batches(4, 0, 2, CPU, first=1))
    assert len(found) == 2
    for (images, labels), (others, other_labels) in zip(found, expected, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)
    assert torch.equal(resumed[0][0], expected[1][0])
    if workers == 0:
        assert torch.equal(state, torch.get_rng_state())


def test_each_channel_is_normalised_by_its_own_mean_and_deviation(tmp_path: Path) -> None:
    data = load_data(folder_settings(write_tree(tmp_path)))
    images = torch.randint(0, 255, (6, 3, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    found = data.normalise(images, CPU)
    expected = normalize(images / 255.0, list(data.info.mean), list(data.info.std))
    assert torch.equal(found, expected) and found.is_contiguous(memory_format=torch.channels_last)


def test_images_without_contrast_are_refused() -> None:
    grey = (torch.full((4, 1, 8, 8), 7, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UserError, match="All images of grey have equal values in a channel"):
        MemoryData(DataSettings("grey", validation_size=1), ("one",), grey, grey)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_folder_batches_reach_cuda_through_pinned_memory(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cuda = load_data(folder_settings(write_tree(tmp_path), workers)), torch.device("cuda")
    expected = list(data.train_batches(4, 0, 1, CPU))
    pinned, normalise = [], data.normalise

    def spy(images: torch.Tensor, device: torch.device) -> torch.Tensor:
        pinned.append(images.is_pinned())
        return normalise(images, device)

    monkeypatch.setattr(data, "normalise", spy)
    found = list(data.train_batches(4, 0, 1, cuda))
    assert pinned == [True, True]
    for (images, labels), (others, other_labels) in zip(found, expected, strict=True):
        assert images.device.type == labels.device.type == "cuda"
        assert images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(images.cpu(), others)
        assert torch.equal(labels.cpu(), other_labels)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_images_in_memory_are_augmented_on_cuda_as_on_the_cpu(digits: ImageData) -> None:
    expected = next(digits.train_batches(100, 0, 0, CPU))
    found = next(digits.train_batches(100, 0, 0, torch.device("cuda")))
    torch.testing.assert_close(found[0].cpu(), expected[0])
    assert torch.equal(found[1].cpu(), expected[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_damaged_later_is_named(tmp_path: Path, workers: int) -> None:
    write_tree(tmp_path)
    bad = tmp_path / "train" / "dog" / "3.png"
    data = load_data(folder_settings(tmp_path, workers))
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(UserError, match=r"train/dog/3\.png cannot be read as an image"):
        list(data.train_batches(4, 0, 0, CPU))
        list(data.batches("validation", 4, CPU))


def test_unfit_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs its folder: give data.root"):
        load_data(DataSettings("image_folder", validation_size=1))
    with pytest.raises(UserError, match="is not a folder"):
        load_data(folder_settings(tmp_path / "nothing"))
    for split in ("train", "val"):
        (tmp_path / "empty" / split).mkdir(parents=True)
    with pytest.raises(UserError, match="no class folders; expected one folder of images per class"):
        load_data(folder_settings(tmp_path / "empty"))
    write_tree(tmp_path / "one", ("cat",))
    with pytest.raises(UserError, match="only the class 'cat'"):
        load_data(folder_settings(tmp_path / "one"))
    write_tree(tmp_path / "differ")
    (tmp_path / "differ" / "val" / "dog").rename(tmp_path / "differ" / "val" / "cow")
    with pytest.raises(UserError, match=r"differ: only in train \['dog'\], only in val \['cow'\]"):
        load_data(folder_settings(tmp_path / "differ"))
    write_tree(tmp_path / "bare")
    for file in (tmp_path / "bare" / "train" / "dog").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="has no images for dog"):
        load_data(folder_settings(tmp_path / "bare"))


def test_other_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown data 'digit'; known: .*Did you mean 'digits'"):
        load_data(DataSettings("digit", validation_size=1))
    with pytest.raises(UserError, match="Fashion|fashion_mnist from .*data.download=true"):
        load_data(DataSettings("fashion_mnist", str(tmp_path), validation_size=1))
    with pytest.raises(UserError, match="needs its folder"):
        load_data(DataSettings("cifar10", validation_size=1))
    with pytest.raises(UserError, match="validation_size is 5000 but the training set of digits holds 1438"):
        load_data(DataSettings("digits", validation_size=5000))
    with pytest.raises(UserError, match="Unknown split 'val'"):
        load_data(DataSettings("digits", validation_size=10)).size("val")


def test_torchvision_sets_load_from_their_files(tmp_path: Path) -> None:
    """Fashion-MNIST's file format, with made-up pixels."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("t10k", 10)):
        pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = b"".join(value.to_bytes(4, "big") for value in (2051, count, 28, 28))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = b"".join(value.to_bytes(4, "big") for value in (2049, count))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    data = load_data(DataSettings("fashion_mnist", str(tmp_path), validation_size=8))
    assert [data.size(split) for split in ("train", "validation", "test")] == [32, 8, 10]
    assert data.info.class_names[0] == "T-shirt/top"
