"""The layout of a folder of images and masks: the pairs of each split, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ofa.common.errors import UserError
from ofa.common.reading import read_text
from ofa.data.layout import HELD_OUT_NAMES, TRAIN_NAMES, SplitFolders, find_split_folders, first_folder
from ofa.data.listing import class_folders
from ofa.data.masks import IGNORED
from ofa.data.settings import DataSettings

IMAGES, MASKS, CLASSES_FILE = "images", "masks", "classes.txt"
EXPECTED = "expected images/ and masks/, or train/images/ and train/masks/ (and val/ and test/ alike)"


@dataclass(frozen=True)
class MaskLayout(SplitFolders):
    """Folders of an image set with masks.

    Attributes:
        pair_folders: folders of the images and of the masks in each of `folders`, by split.
    """

    pair_folders: dict[str, tuple[Path, Path]] = field(kw_only=True)


def find_mask_layout(settings: DataSettings) -> MaskLayout:
    """Return the layout of `settings.root`, from the names of its folders alone; see `find_split_folders`.

    Raises:
        UserError: if a folder is missing, or the splits lie inside of `images/`.
    """
    splits = find_split_folders(settings, EXPECTED, other_meaning="no split")
    pair_folders, unused, problems = dict[str, tuple[Path, Path]](), list(splits.unused), list[str]()
    for split, folder in splits.folders.items():
        names = class_folders(folder)
        images, masks = (first_folder(folder, names, (name,)) for name in (IMAGES, MASKS))
        if images is None or masks is None:
            missing = [f"{name}/" for name, path in ((IMAGES, images), (MASKS, masks)) if path is None]
            problems.append(f"{folder} has no {' and no '.join(missing)}; {EXPECTED}.")
            continue
        _check_no_splits_inside(images)
        pair_folders[split] = images, masks
        others = [folder / name for name in names if name not in (images.name, masks.name)]
        # Beside `train/` there are other splits and folders that are unused as a whole.
        unused += [other.relative_to(splits.root).as_posix() for other in others]
    if problems:
        raise UserError("\n".join(problems))
    return MaskLayout(splits.root, splits.folders, tuple(unused), pair_folders=pair_folders)


def _check_no_splits_inside(images: Path) -> None:
    """Refuse `images/train/` and `images/val/`: taken for one set, it would be split anew."""
    names = class_folders(images)
    train, held_out = first_folder(images, names, TRAIN_NAMES), first_folder(images, names, HELD_OUT_NAMES)
    if train is not None and held_out is not None:
        raise UserError(
            f"{images} has {train.name}/ and {held_out.name}/ inside; expected the splits outside: "
            f"{train.name}/{IMAGES}/ and {train.name}/{MASKS}/, {held_out.name}/{IMAGES}/ and "
            f"{held_out.name}/{MASKS}/. Move the folders."
        )


def read_class_names(root: Path) -> tuple[str, ...] | None:
    """Return the names in `classes.txt`, those of the values 0, 1, …; None without such a file.

    Raises:
        UserError: if it cannot be read, a line is empty, a name stands twice, or there are fewer than two or
            more than 255 names.
    """
    path = root / CLASSES_FILE
    if not path.exists():
        return None
    text = read_text(path, "list of classes").removeprefix("\ufeff").rstrip()
    names = tuple(line.strip() for line in text.splitlines())
    problems = [f"line {number} is empty" for number, name in enumerate(names, 1) if not name]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    problems += [f"{name!r} stands in it more than once" for name in repeated]
    if not 2 <= len(names) <= IGNORED:
        problems.append(f"it has {len(names)} names; expected 2 to {IGNORED}")
    if problems:
        raise UserError(
            f"{path}: {'; '.join(problems)}. Each line is the name of a class, the first that of the value 0."
        )
    return names
