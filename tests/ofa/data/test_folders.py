"""Folders of photographs as they are: layouts, hidden files, links, other endings, and the notes on them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.common.errors import UserError
from ofa.data.folder import FolderData, folder_classes
from ofa.data.layout import find_layout
from ofa.data.listing import left_out_note, list_pictures
from ofa.data.settings import DataSettings

CPU = torch.device("cpu")


def put(folder: Path, count: int, ending: str = "png", grey: int = 90) -> None:
    """Write small photographs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (12, 10), (grey, number % 256, 0)).save(folder / f"{number:03d}.{ending}")


def put_tree(root: Path, counts: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Write `counts[folder]` photographs of each class into `root/folder/class`."""
    for folder, count in counts.items():
        for label, name in enumerate(classes):
            put(root / folder / name, count, grey=60 + 90 * label)
    return root


def settings(root: Path, **changes: Any) -> DataSettings:
    values = {"stratified": True, "image_size": 8, "workers": 0, **changes}
    return DataSettings("image_folder", str(root), **values)


def sizes(data: FolderData) -> list[int]:
    return [data.size(split) for split in ("train", "validation", "test")]


def rows_of(data: FolderData, split: str) -> set[str]:
    return {Path(path).as_posix() for path in data._datasets[split]._paths}


@pytest.mark.parametrize(
    ("folders", "size", "expected", "words"),
    [
        (
            {"train": 24, "val": 5},
            None,
            [24, 24, 10],
            "24 for validation (cut from train/), 10 for the final",
        ),
        ({"train": 24, "val": 5}, 8, [40, 8, 10], "10 for the final test (all of val/)"),
        ({"train": 24}, None, [24, 12, 12], "12 for the final test (cut from train/)"),
        ({"": 24}, None, [24, 12, 12], "12 for validation (cut from all)"),
        ({"train": 24, "test": 5}, 0.5, [24, 24, 10], "all of test/"),
        ({"Training": 24, "Testing": 5}, None, [24, 24, 10], "all of Testing/"),
        ({"train": 9, "valid": 4, "test": 5}, None, [18, 8, 10], "8 for validation (all of valid/), 10 for"),
        ({"train": 24, "val": 4, "test": 5}, 10, [38, 10, 8], "all of val/"),
    ],
)
def test_every_layout_gives_three_splits(
    tmp_path: Path, folders: dict[str, int], size: Any, expected: list[int], words: str
) -> None:
    data = FolderData(settings(put_tree(tmp_path, folders), validation_size=size))
    assert sizes(data) == expected
    assert data.info.class_names == ("cat", "dog")
    for split, total in zip(("train", "validation", "test"), expected, strict=True):
        assert data.class_counts(split) == (total // 2, total // 2)
        assert data.picture_sizes(split).tolist() == [[12, 10]] * total
    assert words in "\n".join(data.notes)
    paths = [rows_of(data, split) for split in ("train", "validation", "test")]
    assert len(set.union(*paths)) == sum(expected)


def test_folders_that_are_not_read_are_named(tmp_path: Path) -> None:
    put_tree(tmp_path, {"train": 24, "val": 4, "test": 5, "more": 1})
    data = FolderData(settings(tmp_path, validation_size=10))
    assert "not read: more/, test/ beside train/" in data.notes


@pytest.mark.parametrize("name", ["val", "test", "Validation"])
def test_held_out_images_without_training_images_are_refused(tmp_path: Path, name: str) -> None:
    put_tree(tmp_path, {name: 3, "": 3})
    with pytest.raises(UserError, match=f"has {name}/ but no train/; expected .* if '{name}' is a class"):
        find_layout(settings(tmp_path))


def test_classes_of_the_final_test_must_be_those_of_training(tmp_path: Path) -> None:
    put_tree(tmp_path, {"train": 4}, ("cat", "dog", "eel"))
    put_tree(tmp_path, {"test": 4}, ("cat", "dog", "fox"))
    with pytest.raises(UserError, match=r"only in train \['eel'\], only in test \['fox'\]"):
        folder_classes(settings(tmp_path))


def test_rare_classes_are_in_every_split(tmp_path: Path) -> None:
    put(tmp_path / "train" / "cat", 24)
    put(tmp_path / "train" / "dog", 2)
    put_tree(tmp_path, {"val": 2})
    data = FolderData(settings(tmp_path, validation_size=8))
    assert data.class_counts("validation") == (7, 1) and data.class_counts("train") == (17, 1)
    old = FolderData(settings(tmp_path, validation_size=8, stratified=False))
    assert sum(old.class_counts("validation")) == 8


def test_a_class_with_one_photograph_has_none_for_validation_and_it_is_said(tmp_path: Path) -> None:
    put_tree(tmp_path, {"train": 10, "val": 1})
    put(tmp_path / "train" / "eel", 1)
    put(tmp_path / "val" / "eel", 1)
    data = FolderData(settings(tmp_path))
    assert data.class_counts("validation")[2] == 0 and data.class_counts("train")[2] == 1
    assert "no photograph for validation of eel" in data.notes


def test_a_removed_file_moves_hardly_any_other(tmp_path: Path) -> None:
    put_tree(tmp_path, {"": 40})
    before = FolderData(settings(tmp_path))
    Path(sorted(rows_of(before, "test"))[0]).unlink()
    after = FolderData(settings(tmp_path))
    for split in ("train", "validation", "test"):
        assert len(rows_of(before, split) ^ rows_of(after, split)) <= 3


def test_the_earlier_split_is_the_same(tmp_path: Path) -> None:
    """The order of the version before: by SHA-256 of `SEED/PATH`, over all classes together."""
    import hashlib

    put_tree(tmp_path, {"train": 9, "val": 2})
    data = FolderData(settings(tmp_path, stratified=False, validation_size=5, split_seed=3))
    names = [f"train/{name}/{number:03d}.png" for name in ("cat", "dog") for number in range(9)]
    names.sort(key=lambda name: hashlib.sha256(f"3/{name}".encode()).digest())
    paths = [str(tmp_path / name) for name in names]
    assert data._datasets["validation"]._paths == paths[:5]
    assert data._datasets["train"]._paths == paths[5:]


def test_hidden_files_and_those_of_systems_are_left_out(tmp_path: Path) -> None:
    put_tree(tmp_path, {"train": 3, "val": 1})
    for split in ("train", "val"):
        put(tmp_path / split / ".ipynb_checkpoints", 2)
        put(tmp_path / split / "__MACOSX", 1)
    (tmp_path / "train" / "cat" / "._000.png").write_bytes(b"\x00\x05\x16\x07" * 6)
    (tmp_path / "train" / "dog" / "Thumbs.db").write_bytes(b"thumbs")
    put(tmp_path / "train" / "dog" / ".trash", 4)
    data = FolderData(settings(tmp_path, validation_size=2))
    assert data.info.class_names == ("cat", "dog")
    assert sizes(data) == [4, 2, 2]
    assert "7 files left out: 7 hidden" in data.notes


def test_other_files_are_counted_by_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa.data.formats.HEIF_MODULE", "no_such_module")
    put_tree(tmp_path, {"train": 3, "val": 1})
    folder = tmp_path / "train" / "cat"
    for name in ("a.HEIC", "b.heic", "notes.txt", "README"):
        (folder / name).write_bytes(b"x")
    put(tmp_path / "train", 1)
    note = FolderData(settings(tmp_path, validation_size=2)).notes[2]
    assert note == (
        "5 files left out: 2 .heic (pip install '.[heic]' reads them), 1 .txt, 1 beside the class folders, "
        "1 without an ending"
    )


def test_a_class_without_readable_endings_names_those_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofa.data.formats.HEIF_MODULE", "no_such_module")
    put_tree(tmp_path, {"train": 2}, ("cat", "dog", "eel"))
    for path in (tmp_path / "train" / "dog").iterdir():
        path.rename(path.with_suffix(".heic"))
    for path in (tmp_path / "train" / "eel").iterdir():
        path.unlink()
    with pytest.raises(UserError) as caught:
        list_pictures(tmp_path / "train", ("cat", "dog", "eel"))
    text = str(caught.value)
    assert "has no images for dog (there are 2 .heic (pip install '.[heic]' reads them))." in text
    assert "has no images for eel." in text and "Expected files ending in .jpg" in text


def test_linked_and_nested_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    put(outside, 4)
    root = tmp_path / "set"
    put(root / "cat", 2)
    put(root / "cat" / "indoors" / "night", 3)
    (root / "dog").symlink_to(outside)
    (root / "cat" / "again").symlink_to(root / "cat")
    (outside / "up").symlink_to(tmp_path)
    (root / "cat" / "file.png").symlink_to(outside / "000.png")
    listing = list_pictures(root, ("cat", "dog"))
    assert Counter(listing.labels)[0] == 2 + 3 + 1
    # The link upwards leads to every folder there is, each visited once.
    assert Counter(listing.labels)[1] == 4 + 2 + 3 + 1
    assert folder_classes(settings(root)) == ("cat", "dog")
    (outside / "up").unlink()
    assert sizes(FolderData(settings(root))) == [6, 2, 2]


def test_a_folder_called_like_a_picture_is_a_folder(tmp_path: Path) -> None:
    put_tree(tmp_path, {"train": 3, "val": 1})
    put(tmp_path / "train" / "cat" / "album.jpg", 2)
    data = FolderData(settings(tmp_path, validation_size=2))
    assert data.class_counts("train")[0] + data.class_counts("validation")[0] == 5
    assert not any("left out" in note for note in data.notes)


def test_many_classes_are_summed_up(tmp_path: Path) -> None:
    names = tuple(f"class_{number:02d}" for number in range(12))
    put_tree(tmp_path, {"": 4}, names)
    put(tmp_path / "class_03", 7)
    assert FolderData(settings(tmp_path)).notes[0] == "51 photographs of 12 classes, 4 to 7 per class"


def test_nothing_left_out_is_no_note() -> None:
    assert left_out_note(Counter()) == ""
    assert left_out_note(Counter({".txt": 1})) == "1 file left out: 1 .txt"


def test_unreadable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing cannot be read: No such file"):
        list_pictures(tmp_path / "missing", ("cat",))


def test_an_epoch_of_a_folder_is_full_and_balanced(tmp_path: Path) -> None:
    put_tree(tmp_path, {"val": 1})
    put(tmp_path / "train" / "cat", 24, grey=0)
    put(tmp_path / "train" / "dog", 2, grey=250)
    given = settings(tmp_path, validation_size=3, balance="sampling", fill_last_batch=True)
    data = FolderData(given)
    batches = list(data.train_batches(8, 0, 0, CPU))
    assert data.class_counts("train") == (22, 1)
    assert [len(labels) for _, labels in batches] == [8, 8, 8]
    labels = torch.cat([labels for _, labels in batches])
    # 23 places for two classes, and one to fill the last batch up.
    assert int(labels.sum()) in (11, 12, 13)
    assert [bool(image[0].mean() > 0) for image in torch.cat([i for i, _ in batches])] == [
        bool(label) for label in labels
    ]
    plain = FolderData(dataclasses.replace(given, balance="none", fill_last_batch=False))
    assert plain.num_batches(8) == 2
    with pytest.raises(UserError, match="batch_size is 24 but image_folder has 23 training images"):
        list(data.train_batches(24, 0, 0, CPU))


def test_sizes_are_those_of_the_displayed_pictures(tmp_path: Path) -> None:
    put_tree(tmp_path, {"": 4})
    turned = Image.new("RGB", (30, 20), (9, 9, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "cat" / "turned.jpg", exif=exif)
    data = FolderData(settings(tmp_path))
    pairs = np.concatenate([data.picture_sizes(split) for split in ("train", "validation", "test")])
    assert [20, 30] in pairs.tolist() and len(pairs) == 9
