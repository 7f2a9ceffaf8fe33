"""Training images: random changes determined by the seed, and shrunk copies of large photographs."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from odd_pictures import smooth, write_kinds, write_turned
from PIL import Image

from ofa.common.errors import UserError
from ofa.data import shrunk
from ofa.data.augment import Augmentation
from ofa.data.folder import FolderData
from ofa.data.photographs import Photograph, Photographs
from ofa.data.pictures import read_picture
from ofa.data.settings import DataSettings
from ofa.data.shrunk import ShrunkCopies, shrunk_side

CPU = torch.device("cpu")
MEAN = (0.5, 0.25, 0.75)


def settings(**changes: Any) -> DataSettings:
    return DataSettings("made", **{"image_size": 24, "workers": 0, **changes})


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "smooth.png"
    Image.fromarray(smooth(60, 50)).save(path)
    return path


@pytest.mark.parametrize("augment", ["standard", "randaugment", "trivial"])
@pytest.mark.parametrize("erasing", [0.0, 1.0])
def test_changes_depend_on_the_seed_alone(picture: Path, augment: str, erasing: float) -> None:
    given = settings(augment=augment, random_erasing=erasing, horizontal_flip=True)
    augmentation, state = Augmentation(given, MEAN), torch.get_rng_state()
    first = augmentation.read(picture, 5)
    assert first.shape == (3, 24, 24) and first.dtype == torch.uint8
    torch.rand(7)
    torch.set_rng_state(state)
    assert torch.equal(Augmentation(given, MEAN).read(picture, 5), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(augmentation.read(picture, 6), first)


@pytest.mark.parametrize("augment", ["randaugment", "trivial"])
def test_random_changes_come_on_top_of_crop_and_mirror(picture: Path, augment: str) -> None:
    plain = Augmentation(settings(horizontal_flip=True), MEAN)
    changed = Augmentation(settings(horizontal_flip=True, augment=augment), MEAN)
    pairs = [(plain.read(picture, seed), changed.read(picture, seed)) for seed in range(20)]
    differ = [not torch.equal(one, other) for one, other in pairs]
    # Some of the changes leave an image as it is.
    assert sum(differ) >= 10


def test_half_of_the_images_are_mirrored(picture: Path) -> None:
    augmentation = Augmentation(settings(horizontal_flip=True), MEAN)
    straight = Augmentation(settings(), MEAN)
    is_mirrored = []
    for seed in range(200):
        image, reference = augmentation.read(picture, seed), straight.read(picture, seed)
        is_mirrored.append(torch.equal(image, reference.flip(2)))
        assert is_mirrored[-1] or torch.equal(image, reference)
    assert 70 < sum(is_mirrored) < 130


def test_erased_rectangles_have_the_mean_colour(picture: Path) -> None:
    image = Augmentation(settings(random_erasing=1.0), MEAN).read(picture, 3)
    plain = Augmentation(settings(), MEAN).read(picture, 3)
    is_changed = (image != plain).any(0)
    assert 0.02 < float(is_changed.float().mean()) < 0.4
    assert [int(value) for value in image[:, is_changed].float().mean(1)] == [128, 64, 191]
    some = [Augmentation(settings(random_erasing=0.3), MEAN).read(picture, seed) for seed in range(60)]
    others = [Augmentation(settings(), MEAN).read(picture, seed) for seed in range(60)]
    assert 8 < sum(not torch.equal(a, b) for a, b in zip(some, others, strict=True)) < 30


def test_a_random_crop_is_a_part_of_the_picture(picture: Path) -> None:
    """Brightness rises to the right in red, downwards in green: so it must in every crop."""
    for seed in range(20):
        crop = Augmentation(settings(crop_scale=0.1), MEAN).read(picture, seed).int()
        assert (crop[0].diff(dim=1) >= -1).all() and (crop[1].diff(dim=0) >= -1).all()


def test_a_copy_is_as_long_as_the_smallest_crop_needs() -> None:
    assert shrunk_side(224, 0.25) == 448 and shrunk_side(224, 0.08) == 792 and shrunk_side(64, 1.0) == 64


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.jpg"
    write_turned(path, smooth(400, 300), 6)
    return path


def test_copies_are_small_upright_and_made_once(large: Path, tmp_path: Path) -> None:
    copies = ShrunkCopies(tmp_path / "cache", 48)
    copy = Path(copies.copy_of(str(large), (400, 300)))
    with Image.open(copy) as image:
        assert image.size == (64, 48) and image.format == "JPEG" and not dict(image.getexif())
    expected = np.asarray(read_picture(large).resize((64, 48), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(np.asarray(read_picture(copy)).astype(int) - expected).max() <= 6
    time_ns = copy.stat().st_mtime_ns
    assert copies.copy_of(str(large), (400, 300)) == str(copy) and copy.stat().st_mtime_ns == time_ns
    assert copies.copy_of(str(large), (400, 59)) == str(large)
    os.utime(large, ns=(1, 1))
    assert copies.copy_of(str(large), (400, 300)) != str(copy)
    assert ShrunkCopies(tmp_path / "cache", 40).copy_of(str(large), (400, 300)) != str(copy)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_leftovers_of_killed_workers_are_removed(large: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / ".0123.jpg.0123456789abcdef.tmp").write_bytes(b"half")
    copies = ShrunkCopies(cache, 48)
    assert list(cache.iterdir()) == []
    assert Path(copies.copy_of(str(large), (400, 300))).parent.parent == cache
    # Files are written in the folder itself, where the next start looks for left-overs.
    assert [path.is_dir() for path in cache.iterdir()] == [True]


def test_the_room_for_copies_is_said_and_checked(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies, paths = ShrunkCopies(tmp_path / "cache", 48), [str(large)] * 4
    sizes = [(400, 300), (300, 400), (400, 300), (50, 50)]
    assert copies.check_room(paths, sizes) == f"shrunk copies need up to 9.2 kB in {tmp_path / 'cache'}"
    copies.copy_of(str(large), (400, 300))
    assert "6.1 kB" in copies.check_room(paths, sizes)
    assert copies.check_room(paths[3:], sizes[3:]) == ""
    content = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.jpg"))
    assert 48 * 64 / 10 < content < 48 * 64
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5_000))
    with pytest.raises(UserError, match=r"shrunk photographs .* needs up to 6.1 kB, 5 kB are free"):
        copies.check_room(paths, sizes)


def test_copies_of_every_kind_show_the_same(tmp_path: Path) -> None:
    copies = ShrunkCopies(tmp_path / "cache", 12)
    for kind, (path, _) in write_kinds(tmp_path / "kinds").items():
        copy = copies.copy_of(str(path), (36, 24))
        assert copy.endswith(".png") or path.suffix in (".jpg", ".webp"), kind
        expected = read_picture(path).resize((18, 12), Image.Resampling.BILINEAR)
        difference = np.asarray(read_picture(copy)).astype(int) - np.asarray(expected)
        assert np.abs(difference).mean() <= (6 if copy.endswith(".jpg") else 1), kind


def photographs(path: Path, cache: Path, **changes: Any) -> Photographs:
    given = settings(image_size=16, cache=str(cache), **changes)
    return Photographs([path], [1], [(400, 300)], given, mean=MEAN, centre_share=0.875)


def pixels_of(dataset: Photographs, seed: int | None) -> torch.Tensor:
    item = dataset[0, seed]
    assert isinstance(item, Photograph) and item.target == 1
    return item.pixels


def test_training_reads_copies_and_evaluation_the_originals(large: Path, tmp_path: Path) -> None:
    cached = photographs(large, tmp_path / "cache")
    direct = Photographs([large], [1], [(400, 300)], settings(image_size=16), mean=MEAN, centre_share=0.875)
    assert torch.equal(pixels_of(cached, None), pixels_of(direct, None))
    assert not list((tmp_path / "cache").rglob("*.jpg"))
    for seed in range(5):
        difference = pixels_of(cached, seed).int() - pixels_of(direct, seed).int()
        assert difference.abs().float().mean() < 2
    (copy,) = (tmp_path / "cache").rglob("*.jpg")
    expected = pixels_of(cached, 2)
    for content in (b"", copy.read_bytes()[:200], b"<html>"):
        copy.write_bytes(content)
        assert torch.equal(pixels_of(cached, 2), expected)
        assert copy.stat().st_size > 500


def test_a_damaged_original_is_named_not_its_copy(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8")
    item = photographs(tmp_path / "bad.jpg", tmp_path / "cache")[0, 1]
    assert isinstance(item, UserError) and "bad.jpg cannot be read as an image" in str(item)


def test_a_full_or_forbidden_cache_is_named(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"The cache of shrunk photographs .*file/cache cannot be written"):
        photographs(large, tmp_path / "file" / "cache")

    def fill(image: Image.Image, path: Path, ending: str) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shrunk, "_save", fill)
    item = photographs(large, tmp_path / "cache")[0, 1]
    assert isinstance(item, UserError) and "No space left on device" in str(item)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def _copy(work: tuple[Path, Path]) -> bytes:
    path, folder = work
    return Path(ShrunkCopies(folder, 48).copy_of(str(path), (400, 300))).read_bytes()


def test_several_processes_make_the_same_copy(large: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        contents = pool.map(_copy, [(large, tmp_path / "cache")] * 12, chunksize=1)
    assert len(set(contents)) == 1 and len(list((tmp_path / "cache").rglob("*.*"))) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_trains_from_its_copies(tmp_path: Path, workers: int) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (120, 100), (200 * label, number, 30)).save(
                tmp_path / "set" / name / f"{number}.jpg"
            )
    given = settings(root=str(tmp_path / "set"), image_size=16, stratified=True, workers=workers)
    cached = FolderData(dataclasses.replace(given, cache=str(tmp_path / "cache")))
    direct = FolderData(given)
    for epoch in (0, 1):
        pairs = zip(
            cached.train_batches(4, 0, epoch, CPU), direct.train_batches(4, 0, epoch, CPU), strict=True
        )
        for (images, labels), (others, other_labels) in pairs:
            assert torch.equal(labels, other_labels)
            torch.testing.assert_close(images, others, atol=0.1, rtol=0)
    assert len(list((tmp_path / "cache").rglob("*.jpg"))) == cached.size("train")
