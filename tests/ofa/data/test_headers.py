"""The check of all pictures at the start: damaged files all at once, skipping, and what is remembered."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.common.errors import UserError
from ofa.common.user_folders import cache_folder
from ofa.data import header, headers
from ofa.data.folder import FolderData
from ofa.data.header import Header, read_header
from ofa.data.headers import check_pictures
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ofa" / "pictures"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 12 noisy JPEGs and PNGs."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(12):
            pixels = (rng.integers(0, 120, (40, 44, 3)) + 100 * label).astype(np.uint8)
            ending = "jpg" if number % 2 else "png"
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number:02d}.{ending}")
    return tmp_path / "set"


def settings(root: Path, **changes: Any) -> DataSettings:
    return DataSettings(
        "image_folder", str(root), **{"stratified": True, "image_size": 8, "workers": 0, **changes}
    )


def damage(root: Path) -> dict[str, str]:
    """Damage files in every way, and return a part of the reason by name."""
    jpeg, png = root / "cat" / "01.jpg", root / "cat" / "02.png"
    jpeg.write_bytes(jpeg.read_bytes()[:900])
    png.write_bytes(png.read_bytes()[:-600])
    (root / "dog" / "03.jpg").write_bytes(b"")
    (root / "dog" / "link.png").symlink_to(root / "gone.png")
    (root / "dog" / "page.png").write_text("<html>")
    Image.fromarray(np.array([[0.0, 300.0]], np.float32)).save(root / "dog" / "float.tif")
    Image.new("RGB", (60, 60)).save(root / "cat" / "cut.bmp")
    bmp = root / "cat" / "cut.bmp"
    bmp.write_bytes(bmp.read_bytes()[:5000])
    return {
        "cat/01.jpg": "truncated",
        "cat/02.png": "truncated",
        "dog/03.jpg": "empty",
        "dog/link.png": "no such file",
        "dog/page.png": "not an image",
        "dog/float.tif": "mode F from 0 to 300",
        "cat/cut.bmp": "truncated",
    }


@pytest.mark.parametrize("max_decoded", [2000, 0])
def test_every_damaged_file_is_listed_at_once(
    root: Path, max_decoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "MAX_DECODED", max_decoded)
    reasons = damage(root)
    with pytest.raises(UserError) as caught:
        FolderData(settings(root))
    lines = str(caught.value).splitlines()
    assert lines[0] == "7 of 28 photographs cannot be read as an image:"
    assert lines[-1].endswith("data.on_unreadable=skip.")
    for name, reason in reasons.items():
        assert any(f"{name} (" in line and reason in line for line in lines), name


def test_very_many_damaged_files_are_counted(root: Path) -> None:
    for number in range(25):
        (root / "cat" / f"page{number:02d}.png").write_text("<html>")
    with pytest.raises(UserError, match=r"25 of 49 photographs cannot") as caught:
        FolderData(settings(root))
    assert str(caught.value).count("page") == headers.MAX_SHOWN and "  and 5 more\n" in str(caught.value)


def test_damaged_files_are_skipped_on_request_and_said(root: Path) -> None:
    names = damage(root)
    data = FolderData(settings(root, on_unreadable="skip"))
    assert sum(data.size(split) for split in ("train", "validation", "test")) == 21
    (note,) = [note for note in data.notes if "skipped" in note]
    assert note.startswith("7 photographs skipped that cannot be read: ") and note.endswith("and 2 more")
    for split in ("train", "validation", "test"):
        assert not [path for path in data._datasets[split]._paths if any(name in path for name in names)]
        list(data.batches(split, 4, CPU))


def test_a_class_without_any_readable_photograph_is_refused(root: Path) -> None:
    for path in (root / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"No photograph can be read in .*set/dog; replace"):
        FolderData(settings(root, on_unreadable="skip"))


def test_pictures_checked_before_are_not_opened_again(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(root.rglob("*.*g"))
    expected = check_pictures(root, paths)
    assert all(isinstance(entry, Header) for entry in expected) and len(list(cache.iterdir())) == 1
    opened: list[str] = []

    def spy(path: Path, decode: bool) -> Header | str:
        opened.append(path.name)
        return read_header(path, decode)

    monkeypatch.setattr(headers, "read_header", spy)
    assert check_pictures(root, paths) == expected and opened == []
    Image.new("RGB", (9, 7)).save(root / "cat" / "00.png")
    (root / "cat" / "02.png").write_bytes(b"")
    os.utime(root / "dog" / "01.jpg", ns=(0, 0))
    again = check_pictures(root, paths)
    assert sorted(opened) == ["00.png", "01.jpg", "02.png"]
    changed = again[paths.index(root / "cat" / "00.png")]
    assert isinstance(changed, Header) and (changed.width, changed.height) == (9, 7)
    opened.clear()
    # Files that could not be read are tried again: what was missing may be there now.
    assert check_pictures(root, paths) == again and opened == ["02.png"]


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1, "headers": {"cat/00.png": ["x"]}}', "\x00"])
def test_a_damaged_memory_is_as_good_as_none(root: Path, cache: Path, content: str) -> None:
    paths = sorted(root.rglob("*.*g"))
    expected = check_pictures(root, paths)
    (file,) = cache.iterdir()
    file.write_text(content)
    assert check_pictures(root, paths) == expected
    assert json.loads(file.read_text())["version"] == 1


def test_without_a_place_for_the_memory_all_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(check_pictures(root, sorted(root.rglob("*.*g")))) == 24


def test_the_cache_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "ofa"


def test_large_sets_are_decoded_only_where_the_end_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    decode = header._decode

    def spy(image: Image.Image) -> None:
        decoded.append(image)
        decode(image)

    monkeypatch.setattr(header, "_decode", spy)
    path = root / "cat" / "01.jpg"
    assert isinstance(read_header(path, decode=False), Header) and not decoded
    path.write_bytes(path.read_bytes() + bytes(500))
    assert isinstance(read_header(path, decode=False), Header) and len(decoded) == 1
    path.write_bytes(path.read_bytes()[:800] + bytes(500))
    assert isinstance(read_header(path, decode=False), str)
    for ending in ("webp", "png"):
        other = root / f"whole.{ending}"
        Image.new("RGB", (30, 30), (1, 2, 3)).save(other)
        decoded.clear()
        assert isinstance(read_header(other, decode=False), Header) and not decoded
        other.write_bytes(other.read_bytes()[:-3])
        # Pillow refuses a short WebP file as soon as it opens it.
        assert isinstance(read_header(other, decode=False), str) or decoded
    monkeypatch.setattr(header, "MAX_DECODED_PIXELS", 100)
    decoded.clear()
    read_header(root / "cat" / "00.png", decode=True)
    assert not decoded


def test_the_check_reports_its_progress(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "_CHUNK", 10)
    reports: list[tuple[int, int]] = []
    check_pictures(root, sorted(root.rglob("*.*g")), lambda done, total, text: reports.append((done, total)))
    assert reports == [(0, 24), (10, 24), (20, 24), (24, 24)]


def test_the_check_of_a_set_reports_its_progress(root: Path) -> None:
    reports: list[str] = []
    load_data(settings(root), progress=lambda done, total, text: reports.append(f"{done}/{total} {text}"))
    assert reports == ["0/24 checking photographs", "24/24 checking photographs"]


def test_transparent_pictures_are_counted(root: Path) -> None:
    Image.new("RGBA", (12, 12), (1, 2, 3, 50)).save(root / "cat" / "clear.png")
    Image.new("P", (12, 12)).save(root / "dog" / "palette.png", transparency=0)
    assert "2 photographs with an alpha channel are laid on white" in FolderData(settings(root)).notes


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_damaged_later_stops_or_gives_way_to_the_next_of_its_class(root: Path, workers: int) -> None:
    data = FolderData(settings(root, workers=workers))
    skipping = FolderData(settings(root, workers=workers, on_unreadable="skip"))
    names = data._datasets["train"]._paths
    bad_path = names[0]
    label = data._datasets["train"]._labels[0]
    Path(bad_path).write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as an image"):
        list(data.train_batches(4, 0, 0, CPU))
    with pytest.warns(UserWarning, match="cannot be read any more .* takes its place") as caught:
        first = list(skipping.batches("train", 4, CPU))
        again = list(skipping.batches("train", 4, CPU))
    assert len([warning for warning in caught if "place" in str(warning.message)]) == 1
    assert torch.equal(first[0][0], again[0][0])
    images = torch.cat([images for images, _ in first])
    labels = torch.cat([labels for _, labels in first]).tolist()
    substitute = next(i for i in range(1, len(labels)) if labels[i] == label)
    assert labels[0] == label and torch.equal(images[0], images[substitute])
