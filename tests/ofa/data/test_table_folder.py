"""Folders of images with a table of labels or numbers: batches, splits, notes and errors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from image_tables import LABEL_NAMES, settings, write_labels, write_numbers, write_picture, write_table
from mask_folders import all_of, pixels_of

from ofa.common.errors import UserError
from ofa.data.base import SPLITS, ImageData
from ofa.data.settings import MULTI_LABEL, REGRESSION, DataSettings
from ofa.data.sources import describe_data, load_data

CPU = torch.device("cpu")


def colours(images: torch.Tensor) -> torch.Tensor:
    """Return the mean colour of each image (n, 3)."""
    return pixels_of(images).float().mean((1, 2))


def batches(data: ImageData, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    return all_of(data.batches(split, 7, CPU))


@pytest.mark.parametrize("changes", [{}, {"workers": 2}, {"augment": "trivial"}, {"cache": "copies"}])
def test_labels_stay_with_their_images(tmp_path: Path, changes: dict[str, Any]) -> None:
    root = write_labels(tmp_path / "set", 40)
    if "cache" in changes:
        changes = {"cache": str(tmp_path / "copies")}
    data = load_data(settings(root, **changes))
    assert data.info.task == MULTI_LABEL and data.info.class_names == LABEL_NAMES
    assert describe_data(settings(root)) == (3, 3) and data.info.target_scale is None
    for split in SPLITS:
        images, targets = batches(data, split)
        assert targets.dtype == torch.int64 and torch.equal((colours(images) > 100).long(), targets)
        assert data.class_counts(split) == tuple(targets.sum(0).tolist())
        assert data.negative_counts(split) == tuple((targets == 0).sum(0).tolist())
    if "augment" not in changes:
        images, targets = all_of(data.train_batches(8, 0, 0, CPU))
        assert torch.equal((colours(images) > 100).long(), targets)


def test_numbers_stay_with_their_images(tmp_path: Path) -> None:
    root = write_numbers(tmp_path / "set", 40)
    data = load_data(settings(root, "regression"))
    assert data.info.task == REGRESSION and data.info.class_names == ("width", "height")
    for images, targets in (
        *(batches(data, split) for split in SPLITS),
        all_of(data.train_batches(8, 0, 0, CPU)),
    ):
        assert targets.dtype == torch.float64
        assert torch.allclose(colours(images)[:, :2].double(), targets * torch.tensor([100.0, 0.1]), atol=1.5)
    scale, numbers = data.info.target_scale, batches(data, "train")[1]
    assert scale is not None and torch.allclose(torch.tensor(scale.mean).double(), numbers.mean(0))
    assert torch.allclose(torch.tensor(scale.std).double(), numbers.std(0, correction=0))
    assert data.class_counts("train") == () and data.negative_counts("train") is None


def test_splits_are_cut_by_a_hash_of_the_path(tmp_path: Path) -> None:
    root = write_labels(tmp_path / "set", 40)
    data = load_data(settings(root, validation_size=8, test_size=0.25))
    assert [data.size(split) for split in SPLITS] == [22, 8, 10]
    cut = "8 for validation (cut from all), 10 for the final test (cut from all)"
    assert data.notes[1] == f"22 for training, {cut}"
    # The order of the lines does not matter.
    lines = (root / "table.csv").read_text().splitlines()
    write_table(root, [lines[0], *lines[:0:-1]])
    again = load_data(settings(root, validation_size=8, test_size=0.25))
    for split in SPLITS:
        assert torch.equal(batches(again, split)[0], batches(data, split)[0])


def with_splits(root: Path, splits: str) -> Path:
    lines = (root / "table.csv").read_text().splitlines()
    names = {"t": "train", "v": "valid", "e": "TEST"}
    return write_table(
        root,
        [f"{lines[0]},split", *(f"{line},{names[s]}" for line, s in zip(lines[1:], splits, strict=True))],
    )


def test_a_column_names_the_splits(tmp_path: Path) -> None:
    root = with_splits(write_labels(tmp_path / "set", 30), "t" * 12 + "v" * 10 + "e" * 8)
    data = load_data(settings(root))
    assert [data.size(split) for split in SPLITS] == [12, 10, 8]
    assert "(as the table says), 8 for the final test (as the table says)" in data.notes[1]
    with pytest.raises(UserError, match="data.test_size is 3, but the column 'split' names the images of t"):
        load_data(settings(root, test_size=3))
    root = with_splits(write_labels(tmp_path / "half", 30), "t" * 22 + "e" * 8)
    data = load_data(settings(root))
    assert data.size("test") == 8 and data.size("train") + data.size("validation") == 22
    assert "(cut from those for training), 8 for the final test (as the table says)" in data.notes[1]


def test_notes_tell_what_is_unknown_rare_and_left_out(tmp_path: Path) -> None:
    root = write_labels(tmp_path / "set", 30)
    lines = (root / "table.csv").read_text().splitlines()
    lines = [f"{line},{'rare' if number == 0 else 0}" for number, line in enumerate(lines)]
    lines[3] = lines[3].split(",")[0] + ",,,,"
    write_table(root, lines)
    write_picture(root / "extra.png", (1, 2, 3))
    (root / "notes.txt").write_text("x")
    notes = load_data(settings(root)).notes
    assert notes[0].startswith("30 images with 4 labels: red ") and notes[0].endswith(", rare 0")
    assert notes[2:] == (
        "4 labels are unknown and count nowhere",
        "1 images of which nothing is known",
        "no image for training with rare",
        "no image for validation with rare",
        "1 images left out that have no row: extra.png",
        "1 file left out: 1 .txt",
    )
    numbers = load_data(settings(write_numbers(tmp_path / "numbers", 30), "regression")).notes
    assert numbers[0].startswith("30 images with 2 numbers: width 0.") and " height " in numbers[0]


def test_files_that_do_not_fit_are_listed_at_once(tmp_path: Path) -> None:
    root = write_labels(tmp_path / "set", 30)
    lines = (root / "table.csv").read_text().splitlines()
    rows = [
        f"{'x' * 300}.png,0,0,1",
        "../set/pictures/00.png,0,0,1",
        ",1,1,1",
        lines[1],
        "pictures/02.png,0,5,0",
    ]
    write_table(root, [*lines, *rows])
    with pytest.raises(UserError) as error:
        load_data(settings(root))
    for text in (
        "and the images in",
        "Rows whose file is missing (1):\n  line 32, xxx",
        "Rows whose file is not in the folder (2):\n  line 33, ../set/pictures/00.png\n  line 34, \n",
        "Files that stand in several rows (2):\n  line 35, pictures/00.png, also in line 2",
        "Cells that are no label (1):\n  line 36, pictures/02.png, green: '5'",
    ):
        assert text in str(error.value)


def test_unreadable_files_stop_or_are_skipped(tmp_path: Path) -> None:
    root = write_labels(tmp_path / "set", 30)
    (root / "pictures/05.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"1 of 30 photographs cannot be read as an image:\n .*05.png"):
        load_data(settings(root))
    data = load_data(settings(root, on_unreadable="skip"))
    assert sum(data.size(split) for split in SPLITS) == 29
    assert any("1 images skipped that cannot be read" in note for note in data.notes)
    images, targets = batches(data, "train")
    assert torch.equal((colours(images) > 100).long(), targets)
    for path in (root / "pictures").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(UserError, match="No image that .*table.csv names can be read"):
        load_data(settings(root, on_unreadable="skip"))


def test_a_file_damaged_later_is_replaced_with_its_target(tmp_path: Path) -> None:
    root = write_labels(tmp_path / "set", 30)
    data = load_data(settings(root, on_unreadable="skip"))
    (root / "pictures/07.png").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"07.png cannot be read any more .* takes its place"):
        parts = [batches(data, split) for split in SPLITS]
    for images, targets in parts:
        assert torch.equal((colours(images) > 100).long(), targets)


def test_numbers_that_tell_nothing_are_an_error(tmp_path: Path) -> None:
    root = write_numbers(tmp_path / "set", 30)
    lines = (root / "table.csv").read_text().splitlines()
    names, empty = ["flat", "void"], ["1,"] * 30
    write_table(
        root, [",".join([lines[0], *names]), *(f"{a},{b}" for a, b in zip(lines[1:], empty, strict=True))]
    )
    with pytest.raises(UserError, match="the same number, or none, in 'flat', 'void'"):
        load_data(settings(root, "regression"))
    lines[1] = lines[1].split(",")[0] + ",,5"
    write_table(root, lines)
    data = load_data(settings(root, "regression"))
    assert "1 numbers are unknown and count nowhere" in data.notes
    parts = torch.cat([batches(data, split)[1] for split in SPLITS])
    assert parts.isnan().sum() == 1 and math.isfinite(data.info.target_scale.mean[0])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        (
            "multi_label",
            {"balance": "sampling"},
            "images with labels are of no class; expected none, or l",
        ),
        ("multi_label", {"stratified": True}, "images with labels are of no class; expected false"),
        ("regression", {"balance": "loss"}, "data.balance is loss, but images with numbers are of no class"),
        ("regression", {"ignored_value": 3}, "ignored_value: only for masks"),
    ],
)
def test_settings_of_classes_and_masks_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        load_data(settings(tmp_path, kind, **changes))


def test_a_table_without_class_folders_names_the_sets_that_read_it(tmp_path: Path) -> None:
    root = write_labels(tmp_path / "set", 3)
    with pytest.raises(
        UserError, match=r"2 at least. For labels or numbers in a CSV file choose data=multi_label"
    ):
        load_data(DataSettings("image_folder", str(root)))
    (root / "table.csv").unlink()
    with pytest.raises(UserError, match="2 at least.$"):
        load_data(DataSettings("image_folder", str(root)))


def test_a_table_is_for_labels_and_numbers_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="table: only for labels and numbers"):
        load_data(DataSettings("image_folder", str(tmp_path), table="a.csv"))
    with pytest.raises(UserError, match="data.table is for labels and numbers"):
        load_data(DataSettings("segmentation_folder", str(tmp_path), table="a.csv"))
    with pytest.raises(UserError, match="table: only for photographs in folders"):
        load_data(DataSettings("shapes_labels", table="a.csv"))


@pytest.mark.parametrize("name", ["shapes_labels", "shapes_numbers"])
def test_drawn_shapes_are_told_from_their_masks(name: str) -> None:
    given, masks = DataSettings(name, validation_size=400), load_data("shapes")
    data = load_data(given)
    assert [data.size(split) for split in SPLITS] == [1600, 400, 500] and describe_data(given) == (3, 3)
    _, pixels = next(masks.batches("test", 500, CPU))
    _, targets = next(data.batches("test", 500, CPU))
    counts = torch.stack([(pixels == label).sum((1, 2)) for label in (1, 2, 3)], 1)
    if name == "shapes_numbers":
        areas, rows = counts.sum(1).double(), torch.arange(32.0)
        assert torch.allclose(targets[:, 0], areas / 1024 * 100)
        for picture in (0, 7, 499):
            y, x = (pixels[picture] > 0).nonzero(as_tuple=True)
            assert targets[picture, 1] == pytest.approx((rows[x].mean() + 0.5) / 0.32)
            assert targets[picture, 2] == pytest.approx((rows[y].mean() + 0.5) / 0.32)
    else:
        assert torch.equal(targets == 1, counts >= 10) and torch.equal(targets == 0, counts == 0)
        assert 0 < (targets == -1).sum() < 100
    for change in ({"balance": "sampling"}, {"stratified": True}):
        with pytest.raises(UserError, match="are of no class"):
            load_data(dataclasses.replace(given, **change))
