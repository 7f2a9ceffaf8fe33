"""What does not fit in a folder of images and masks is said at once; notes say what is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_folders import draw_mask, settings, write_image, write_mask, write_pair, write_pairs
from PIL import Image

from ofa.common.errors import UserError
from ofa.data.folder import FolderData
from ofa.data.mask_folder import MaskFolderData
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "set", 12)


def error_of(root: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        MaskFolderData(settings(root, **changes))
    return str(caught.value)


def group_of(text: str, title: str) -> list[str]:
    """Return the lines of one group of problems, its advice last."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    stop = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith("  "))
    return lines[start : stop + 1]


def test_everything_that_does_not_fit_is_said_at_once(root: Path) -> None:
    (root / "classes.txt").write_text("ground\na\nb\nc\n")
    (root / "masks" / "00.png").unlink()
    (root / "images" / "01.png").unlink()
    Image.new("RGB", (30, 24)).save(root / "images" / "02.jpg")
    write_mask(root / "masks" / "03.png", np.zeros((24, 31), np.uint8))
    (root / "masks" / "04.png").write_bytes(b"<html>")
    damaged = root / "images" / "05.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    write_mask(root / "masks" / "06.png", np.array([[0, 4], [9, 255]], np.uint8).repeat(12, 0).repeat(15, 1))
    text = error_of(root)
    assert text.startswith(f"The images and masks in {root} do not fit.\n")
    assert group_of(text, "Images without a mask") == [
        "Images without a mask (1):",
        "  images/00.png",
        "An image and its mask have the same name, apart from the ending.",
    ]
    assert group_of(text, "Masks without")[:2] == ["Masks without an image (1):", "  masks/01.png"]
    assert group_of(text, "Files of the same name")[1] == "  images/02.png"
    assert (
        group_of(text, "Masks of another size")[1] == "  masks/03.png has 31x24 pixels, images/03.png 30x24"
    )
    unreadable = group_of(text, "Files that cannot be read (2):")
    assert re.match(r"  images/05.png \(.*(truncated|broken)", unreadable[1])
    assert unreadable[2].startswith("  masks/04.png (not an image")
    assert unreadable[3].endswith("leave their pairs out with data.on_unreadable=skip.")
    values = group_of(text, "Masks with values that are no class")
    assert values[1] == "  masks/06.png: 4, 9"
    assert values[2].startswith("Expected 0 to 3, the lines of classes.txt, or 255, which is ignored")


def test_a_handful_of_many_is_named(root: Path) -> None:
    for number in range(9):
        (root / "masks" / f"{number:02d}.png").unlink()
    lines = group_of(error_of(root), "Images without")
    assert lines[0] == "Images without a mask (9):" and lines[5:7] == ["  images/04.png", "  and 4 more"]


def test_names_that_never_fit_are_no_set(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    text = error_of(root, on_unreadable="skip")
    assert "Images without a mask (12)" in text and "Masks without an image (12)" in text


@pytest.mark.parametrize("is_mask_stored", [False, True])
def test_a_mask_is_as_large_as_its_image_is_displayed(root: Path, is_mask_stored: bool) -> None:
    """The picture is stored as 24 x 30 pixels, and displayed as 30 x 24."""
    mask = draw_mask(np.random.default_rng(1))
    write_image(root / "images" / "new.png", mask, orientation=6)
    write_mask(root / "masks" / "new.png", np.rot90(mask) if is_mask_stored else mask)
    if is_mask_stored:
        lines = group_of(error_of(root), "Masks of another size")
        assert lines[1] == (
            "  masks/new.png has 24x30 pixels, images/new.png 30x24 as it is displayed: "
            "the mask is turned by a quarter"
        )
        assert "turned as its EXIF orientation says" in lines[2]
    else:
        assert sum(MaskFolderData(settings(root)).size(split) for split in ("train", "test")) > 0


def test_coloured_masks_are_explained(root: Path) -> None:
    Image.new("RGB", (30, 24)).save(root / "masks" / "00.png")
    line = group_of(error_of(root), "Files that cannot be read")[1]
    assert line.startswith("  masks/00.png (pixels of mode RGB; expected the number of a class in each pixel")
    assert line.endswith("convert the colours to the numbers)")


def test_unreadable_files_are_skipped_with_their_pairs(root: Path) -> None:
    (root / "masks" / "04.png").write_bytes(b"<html>")
    (root / "images" / "05.png").write_bytes(b"")
    data = MaskFolderData(settings(root, on_unreadable="skip"))
    assert "10 images with masks" in data.notes[0]
    note = next(note for note in data.notes if "skipped" in note)
    assert note.startswith(
        "2 files that cannot be read, their pairs skipped: images/05.png (empty), masks/04"
    )
    paths = [path for split in ("train", "validation", "test") for path in data._datasets[split]._paths]
    assert len(paths) == 10 and not [path for path in paths if path.endswith(("04.png", "05.png"))]


def test_a_folder_without_any_readable_pair_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", 6)
    write_pairs(tmp_path / "val", 3)
    for path in (tmp_path / "val" / "masks").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"No image with its mask can be read in .*/val; replace the files"):
        MaskFolderData(settings(tmp_path, on_unreadable="skip"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n\nb\n", "line 2 is empty.*the first that of the value 0"),
        ("a\nb\na \n", "'a' stands in it more than once"),
        ("only\n", "it has 1 names; expected 2 to 255"),
        ("".join(f"{n}\n" for n in range(256)), "it has 256 names; expected 2 to 255"),
        (
            "a\nb\n",
            r"with values that are no class \(12\):\n  masks/00.png: 2, 3\n.*\n.*\n.*\n.*\n  and 7 more",
        ),
    ],
)
def test_lists_of_classes_that_do_not_fit(root: Path, text: str, words: str) -> None:
    (root / "classes.txt").write_text(text)
    assert re.search(words, error_of(root))


def test_a_list_of_classes_that_is_no_text(root: Path) -> None:
    (root / "classes.txt").write_bytes(b"p\xe8re\nb\n")
    assert re.search("list of classes .*classes.txt cannot be read", error_of(root))


def test_classes_numbered_from_one_are_values_without_a_name(tmp_path: Path) -> None:
    for number in range(4):
        write_pair(tmp_path, str(number), np.array([(1, 2)] * 3, np.uint8))
    (tmp_path / "classes.txt").write_text("wall\nfloor\n")
    lines = group_of(error_of(tmp_path), "Masks with values")
    assert lines[1] == "  masks/0.png: 2" and lines[-1].startswith(
        "Expected 0 to 1, the lines of classes.txt"
    )


@pytest.mark.parametrize(
    ("values", "changes", "words"),
    [
        (
            (0, 255),
            {},
            r"only the class 0 beside what is ignored \(255\).* write 1 for white: 255 is ignored",
        ),
        ((0, 1), {"ignored_value": 0}, r"only the class 1 beside what is ignored \(0 and 255\).*at least\.$"),
        ((255, 255), {}, "no class beside what is ignored"),
    ],
)
def test_fewer_than_two_classes_are_nothing_to_learn(
    tmp_path: Path, values: tuple[int, int], changes: dict[str, Any], words: str
) -> None:
    for number in range(4):
        write_pair(tmp_path, str(number), np.array([values] * 3, np.uint8))
    assert re.search(words, error_of(tmp_path, **changes))
    (tmp_path / "classes.txt").write_text("background\nperson\n")
    assert re.search(words, error_of(tmp_path, **changes))


def test_missing_folders_are_named(tmp_path: Path) -> None:
    assert "give data.root=FOLDER" in error_of_settings(DataSettings("segmentation_folder"))
    assert "is not a folder; expected images/ and masks/, or train/images/" in error_of(tmp_path / "none")
    (tmp_path / "images").mkdir()
    assert f"{tmp_path} has no masks/; expected images/ and masks/" in error_of(tmp_path)
    (tmp_path / "masks").mkdir()
    assert "images has no pictures. Expected files ending in .jpg" in error_of(tmp_path)
    write_image(tmp_path / "images" / "a.png", np.zeros((9, 9), np.uint8))
    Image.new("L", (9, 9)).save(tmp_path / "masks" / "a.jpg")
    assert "masks has no pictures (there are 1 .jpg). Expected files ending in .png." in error_of(tmp_path)
    (tmp_path / "val").mkdir()
    assert "has val/ but no train/; expected images/ and masks/" in error_of(tmp_path)
    (tmp_path / "train").mkdir()
    lines = error_of(tmp_path).splitlines()
    assert lines[0].startswith(f"{tmp_path / 'train'} has no images/ and no masks/; expected")
    assert lines[1].startswith(f"{tmp_path / 'val'} has no images/ and no masks/")


def error_of_settings(given: DataSettings) -> str:
    with pytest.raises(UserError) as caught:
        load_data(given)
    return str(caught.value)


def test_splits_inside_of_the_images_are_not_mixed(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_pairs(tmp_path / split, 3)
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / split / kind).rename(tmp_path / kind / split)
        (tmp_path / split).rmdir()
    text = error_of(tmp_path)
    assert (
        "images has train/ and val/ inside; expected the splits outside: train/images/ and train/mas" in text
    )


def test_notes_say_what_is_in_a_folder(tmp_path: Path) -> None:
    """12 masks of 10 x 20 pixels: 150 of class 0, 40 of 2, 8 of 1 and 2 ignored; class 3 never."""
    mask = np.zeros(200, np.uint8)
    mask[150:190], mask[190:198], mask[198:] = 2, 1, 255
    for number in range(12):
        write_pair(tmp_path, f"{number:02d}", mask.reshape(10, 20))
    (tmp_path / "classes.txt").write_text("ground\nshape\nwall\nghost\n")
    (tmp_path / "masks" / "notes.txt").write_text("x")
    (tmp_path / "depth").mkdir()
    assert MaskFolderData(settings(tmp_path)).notes == (
        "12 images with masks of 4 classes: shape 4.04 %, wall 20.2 %, ground 75.8 %",
        "1 % of the pixels are ignored",
        "6 for training, 3 for validation (cut from all), 3 for the final test (cut from all)",
        "no pixel for training of ghost",
        "1 file left out: 1 .txt",
        "not read: depth/ beside images/",
    )


def test_notes_name_what_training_does_not_have(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", 6)
    write_pairs(tmp_path / "val", 3)
    write_pair(tmp_path / "val", "other", np.full((24, 30), 4, np.uint8))
    for name in ("void", "nothing"):
        write_pair(tmp_path / "train", name, np.full((24, 30), 255, np.uint8))
    Image.new("RGBA", (30, 24), (1, 2, 3, 50)).save(tmp_path / "train" / "images" / "void.png")
    for folder in ("more", "train/depth"):
        (tmp_path / folder).mkdir()
    notes = MaskFolderData(settings(tmp_path)).notes
    assert "no pixel for training of 4" in notes
    assert "2 masks whose pixels are all ignored: train/masks/nothing.png, train/masks/void.png" in notes
    assert "not read: more/, train/depth/ beside train/" in notes
    assert "1 photographs with an alpha channel are laid on white" in notes


def test_many_classes_are_summed_up(tmp_path: Path) -> None:
    counts = [4000, 2, *range(10, 22)]
    mask = np.repeat(np.arange(14, dtype=np.uint8), counts)
    for number in range(4):
        write_pair(tmp_path, str(number), mask.reshape(-1, 2))
    note = MaskFolderData(settings(tmp_path)).notes[0]
    assert note.startswith("4 images with masks of 14 classes: 1 0.0478 %, 2 0.239 %, 3 0.263 %, 4")
    assert note.endswith(", 9 0.406 %, … 0 95.5 %")


@pytest.mark.parametrize("value", [-1, 256])
def test_an_ignored_value_is_one_of_a_byte(tmp_path: Path, value: int) -> None:
    with pytest.raises(UserError, match=f"ignored_value is {value}; expected a value of a mask, 0 to 255"):
        settings(tmp_path, ignored_value=value)


def test_sets_without_files_of_masks_have_no_ignored_value(tmp_path: Path) -> None:
    given = DataSettings("image_folder", str(tmp_path), ignored_value=3)
    with pytest.raises(UserError, match="ignored_value: only for masks; image_folder has none"):
        FolderData(given)
    with pytest.raises(UserError, match="ignored_value: only for photographs in folders; shapes"):
        load_data(DataSettings("shapes", ignored_value=3, validation_size=400))
