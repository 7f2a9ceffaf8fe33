"""The layout of a folder of images: which folder holds which split, and what is cut from which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ofa.common.errors import UserError
from ofa.data.listing import class_folders
from ofa.data.settings import DataSettings

# Usual names, best first, in any case.
TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("val", "test", "testing", "valid", "validation")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation")
EXPECTED = "expected train/CLASS/ and val/CLASS/, train/CLASS/ alone, or CLASS/"


@dataclass(frozen=True)
class SplitFolders:
    """Which folder of an image set holds which split.

    Attributes:
        root: folder of the whole set.
        folders: folder of the training images ("train"), of the "test" and of the "validation" images; where
            one is missing, its images are cut from those of training.
        unused: names of folders beside them that are not read.
    """

    root: Path
    folders: dict[str, Path]
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout(SplitFolders):
    """Folders of an image set with a folder per class.

    Attributes:
        class_names: names of the classes, the folders in each of `folders`.
    """

    class_names: tuple[str, ...] = field(kw_only=True)


def find_layout(settings: DataSettings) -> Layout:
    """Return the layout of `settings.root`, from the names of its folders alone; see `find_split_folders`.

    Without `train/`, the folders of `root` are the classes.

    Raises:
        UserError: if a folder is missing, there are fewer than two classes, or the folders differ in them.
    """
    splits = find_split_folders(settings, EXPECTED, other_meaning="a class")
    class_names = _class_names(splits.folders["train"])
    for split in ("validation", "test"):
        if split in splits.folders:
            _check_equal(splits.folders["train"], splits.folders[split])
    return Layout(splits.root, splits.folders, splits.unused, class_names=class_names)


def find_split_folders(settings: DataSettings, expected: str, *, other_meaning: str) -> SplitFolders:
    """Return the folders of the splits in `settings.root`, from their names alone.

    `train/` and one of `val/`, `test/`, `valid/` and `validation/`: the latter is the test split. With both
    `test/` and a validation folder, each is what its name says if `validation_size` is None; a
    `validation_size` is cut from `train/`, and `val/` is the test split. Without `train/`, `root` itself is
    the folder of the training images.

    Args:
        settings: root and size of the validation split.
        expected: the folders that are expected, for error texts.
        other_meaning: what a folder may be that has the name of a split, for error texts.

    Raises:
        UserError: if `root` is missing, or has a folder of another split but no `train/`.
    """
    root = images_root(settings, expected)
    names = class_folders(root)
    train, held_out = first_folder(root, names, TRAIN_NAMES), first_folder(root, names, HELD_OUT_NAMES)
    if train is None:
        if held_out is not None:
            raise UserError(
                f"{root} has {held_out.name}/ but no train/; {expected}. Rename the folder if "
                f"{held_out.name!r} is {other_meaning}."
            )
        return SplitFolders(root, {"train": root})
    folders = {"train": train}
    validation, test = first_folder(root, names, VALIDATION_NAMES), first_folder(root, names, TEST_NAMES)
    if validation is not None and test is not None and settings.validation_size is None:
        folders |= {"validation": validation, "test": test}
    elif held_out is not None:
        folders["test"] = held_out
    used_names = {folder.name for folder in folders.values()}
    return SplitFolders(root, folders, tuple(name for name in names if name not in used_names))


def first_folder(root: Path, names: Sequence[str], options: Sequence[str]) -> Path | None:
    """Return the first of the folders `options` that is among `names`, in lower case or another."""
    for option in options:
        matches = [name for name in names if name.lower() == option]
        if matches:
            return root / (option if option in matches else matches[0])
    return None


def images_root(settings: DataSettings, expected: str) -> Path:
    """Return the folder of a set of images.

    Args:
        settings: names the folder.
        expected: what is expected in it, for error texts.

    Raises:
        UserError: if there is no such folder.
    """
    if settings.root is None:
        raise UserError(f"Data {settings.name!r} needs its folder: give data.root=FOLDER.")
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise UserError(f"data.root {root} is not a folder; {expected} inside.")
    return root


def _class_names(folder: Path) -> tuple[str, ...]:
    names = class_folders(folder)
    if len(names) < 2:
        classes_text = f"only the class {names[0]!r}" if names else "no class folders"
        has_table = any(path.suffix.lower() == ".csv" for path in folder.iterdir())
        advice = (
            " For labels or numbers in a CSV file choose data=multi_label_folder or data=regression_folder "
            "(experiment=… in a training)."
        )
        raise UserError(
            f"{folder} has {classes_text}; expected one folder of images per class, 2 at least."
            f"{advice * has_table}"
        )
    return tuple(names)


def _check_equal(train: Path, other: Path) -> None:
    """Raise the error for folders with different classes."""
    names, other_names = class_folders(train), class_folders(other)
    if names != other_names:
        only_train = sorted(set(names) - set(other_names))
        only_other = sorted(set(other_names) - set(names))
        raise UserError(
            f"The classes of {train} and {other} differ: only in {train.name} {only_train}, only in "
            f"{other.name} {only_other}. Both need the same class folders."
        )
