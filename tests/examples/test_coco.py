"""Folders in COCO's format: what is read, and everything that does not fit in one error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detection import coco
from detection.coco import CocoData
from detection.shapes import draw_coco_folder
from PIL import Image

from ofa.common.errors import UserError
from ofa.data import DataSettings

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six pictures to train and three to test, 40 px."""
    return draw_coco_folder(tmp_path / "shapes", num_train=6, num_test=3, side=40)


def settings(root: Path | None, side: int = 32) -> DataSettings:
    folder = None if root is None else str(root)
    return DataSettings("own", folder, source="detection.coco:CocoData", image_size=side, validation_size=2)


def change(root: Path, changed: Callable[[dict[str, Any]], object], split: str = "train") -> None:
    path = root / split / "annotations.json"
    values = json.loads(path.read_text())
    changed(values)
    path.write_text(json.dumps(values))


def test_boxes_are_shares_of_the_image_whatever_its_size(root: Path) -> None:
    values = json.loads((root / "val" / "annotations.json").read_text())
    picture = Image.open(root / "val/images/00000.png")
    picture.resize((80, 40)).save(root / "val/images/00000.png")

    def wide(values: dict[str, Any]) -> None:
        values["images"][0]["width"] = 80
        for box in (a for a in values["annotations"] if a["image_id"] == 0):
            box["bbox"][0] *= 2
            box["bbox"][2] *= 2

    change(root, wide, "val")
    data = CocoData(settings(root))
    assert [data.size(split) for split in ("train", "validation", "test")] == [4, 2, 3]
    ((images, targets),) = data.batches("test", 5, CPU)
    assert images.shape == (3, 3, 32, 32) and targets.dtype == torch.float32
    for number, rows in enumerate(targets):
        expected = [a for a in values["annotations"] if a["image_id"] == number]
        for row, annotation in zip(rows, expected, strict=False):
            left, top, width, height = annotation["bbox"]
            box = [left / 40, top / 40, (left + width) / 40, (top + height) / 40]
            assert row.tolist() == pytest.approx([annotation["category_id"] - 1, *box], abs=1e-5)
        assert bool((rows[len(expected) :] == -1).all())


def test_crowds_are_left_out_boxes_are_cut_at_the_edges_and_images_may_have_none(root: Path) -> None:
    def changed(values: dict[str, Any]) -> None:
        values["annotations"] = [
            {"id": 1, "image_id": 0, "category_id": 2, "bbox": [-10, 30, 30, 30], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 30, 30], "iscrowd": 1},
        ]

    change(root, changed, "val")
    ((_, targets),) = CocoData(settings(root)).batches("test", 5, CPU)
    assert targets[0, 0].tolist() == [1.0, 0.0, 0.75, 0.5, 1.0]
    assert bool((targets[0, 1:] == -1).all()) and bool((targets[1:] == -1).all())


def test_everything_that_does_not_fit_is_one_error(root: Path) -> None:
    (root / "train/images/00003.png").unlink()
    (root / "train/images/00004.png").write_text("no picture")
    Image.new("RGB", (20, 10)).save(root / "train/images/00005.png")
    wrong_boxes: list[tuple[Any, Any, Any]] = [
        (0, 9, [1, 1, 5, 5]),
        (77, 1, [1, 1, 5, 5]),
        (0, 1, [1, 1, 0, 5]),
        (0, 1, [50, 1, 5, 5]),
        (0, 1, [1, 1, 5]),
        (0, 1, [1, 1, 5, float("nan")]),
    ]

    def changed(values: dict[str, Any]) -> None:
        values["images"][1]["file_name"] = "00000.png"
        values["images"][2]["file_name"] = "../../val/images/00000.png"
        for number, (image, category, box) in enumerate(wrong_boxes):
            entry = {"id": 900 + number, "image_id": image, "category_id": category, "bbox": box}
            values["annotations"].append(entry)

    change(root, changed)
    with pytest.raises(UserError) as caught:
        CocoData(settings(root))
    text = str(caught.value)
    for line in (
        "1 images are listed twice: 00000.png",
        "1 files are outside of images/: ../../val/images/00000.png",
        "2 images cannot be read: 00003.png: ",
        "1 images have another size than their annotations say: 00005.png: 20x10, not 40x40",
        "1 boxes are of categories other than [1, 2, 3]: annotation 900: 9",
        "1 boxes are of unknown images: annotation 901: 77",
        "1 boxes have no area: annotation 902 of 00000.png: [1, 1, 0, 5]",
        "1 boxes are outside of their image: annotation 903 of 00000.png: [50, 1, 5, 5]",
        "2 boxes are not four numbers: annotation 904 of 00000.png: [1, 1, 5]; annotation 905",
    ):
        assert line in text, line


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            lambda v: v.pop("categories"),
            "is no file of annotations; expected the lists images, ann",
        ),
        (lambda v: v["images"][1].pop("width"), r"images\[1\] has no width"),
        (lambda v: v["annotations"].insert(0, 3), r"annotations\[0\] has no image_id, category_id, bbox"),
        (lambda v: v["categories"][0].update(name="disc"), "The categories of train/ and val/ .* differ"),
        (lambda v: v.update(annotations=[]), "1 boxes are not there at all: no image has one"),
        (
            lambda v: v.update(annotations=[], images=[]),
            "1 images are not there at all: the list of im",
        ),
    ],
)
def test_annotations_of_another_form_are_named(root: Path, changed: Any, text: str) -> None:
    change(root, changed)
    with pytest.raises(UserError, match=text):
        CocoData(settings(root))


def test_a_folder_that_is_none_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"There is no folder of images; give data\.root=DIR"):
        CocoData(settings(None))
    with pytest.raises(UserError, match=r"other/train/annotations\.json cannot be read as JSON"):
        CocoData(settings(root / "other"))
    monkeypatch.setattr(coco, "MAX_BYTES", 10_000)
    with pytest.raises(UserError, match=r"at 32 px; at most .* Take a smaller data\.image_size"):
        CocoData(settings(root))
    (root / "val/annotations.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON: Expecting"):
        CocoData(settings(root))


def test_drawn_pictures_stay(root: Path) -> None:
    before = (root / "train/annotations.json").stat().st_mtime_ns
    assert draw_coco_folder(root, num_train=99, num_test=99) == root
    assert (root / "train/annotations.json").stat().st_mtime_ns == before
