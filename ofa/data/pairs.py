"""Pairs of images and masks: files of equal names in two folders, and what does not fit in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ofa.data.header import FileHeader
from ofa.data.listing import list_folder
from ofa.data.mask_layout import MaskLayout

MASK_ENDINGS = (".png",)
MAX_EXAMPLES = 5


@dataclass
class Pairs:
    """Images with their masks, a row each.

    Attributes:
        root: folder of the whole set.
        image_paths: file of each image.
        mask_paths: file of its mask.
        folders: split whose folder it lies in.
        left_out: number of other files by ending; see `Listing`.
        problems: texts about files that form no pair.
    """

    root: Path
    image_paths: list[Path] = field(default_factory=list)
    mask_paths: list[Path] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """Return the name of a file in texts: its path inside `root`."""
        return path.relative_to(self.root).as_posix()


def list_pairs(layout: MaskLayout) -> Pairs:
    """Return the images and masks whose paths, relative to their folders and without ending, are equal.

    Raises:
        UserError: if a folder has no images or no masks, or cannot be read.
    """
    pairs = Pairs(layout.root)
    without_mask, without_image, repeated = list[Path](), list[Path](), list[Path]()
    for split, (image_folder, mask_folder) in layout.pair_folders.items():
        images, masks = list_folder(image_folder), list_folder(mask_folder, MASK_ENDINGS)
        pairs.left_out += images.left_out + masks.left_out
        image_by_name, repeated_images = _by_name(image_folder, images.paths)
        mask_by_name, repeated_masks = _by_name(mask_folder, masks.paths)
        repeated += repeated_images + repeated_masks
        without_mask += [path for name, path in image_by_name.items() if name not in mask_by_name]
        without_image += [path for name, path in mask_by_name.items() if name not in image_by_name]
        names = [name for name in image_by_name if name in mask_by_name]
        pairs.image_paths += [image_by_name[name] for name in names]
        pairs.mask_paths += [mask_by_name[name] for name in names]
        pairs.folders += [split] * len(names)
    advice = "An image and its mask have the same name, apart from the ending."
    for description, paths in (
        ("Images without a mask", without_mask),
        ("Masks without an image", without_image),
        ("Files of the same name as another one, apart from the ending", repeated),
    ):
        pairs.problems += problem_text(description, [pairs.name(path) for path in paths], advice)
    return pairs


def _by_name(folder: Path, paths: Sequence[Path]) -> tuple[dict[PurePath, Path], list[Path]]:
    """Return the first file of each name, and those whose name is not new."""
    by_name, repeated = dict[PurePath, Path](), list[Path]()
    for path in paths:
        if by_name.setdefault(path.relative_to(folder).with_suffix(""), path) is not path:
            repeated.append(path)
    return by_name, repeated


def size_problems(
    pairs: Pairs, images: Sequence[FileHeader | str], masks: Sequence[FileHeader | str]
) -> list[str]:
    """Return the text about masks of another size than their image as displayed; none if there are none."""
    texts = []
    for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
        if isinstance(image, str) or isinstance(mask, str):
            continue
        image_size, mask_size = (image.width, image.height), (mask.width, mask.height)
        if image_size != mask_size:
            is_turned = image_size == mask_size[::-1]
            texts.append(
                f"{pairs.name(pairs.mask_paths[row])} has {mask.width}x{mask.height} pixels, "
                f"{pairs.name(pairs.image_paths[row])} {image.width}x{image.height}"
                f"{' as it is displayed: the mask is turned by a quarter' if is_turned else ''}"
            )
    advice = "A mask is as large as its image when that is turned as its EXIF orientation says."
    return problem_text("Masks of another size than their image", texts, advice)


def unreadable_problems(
    pairs: Pairs, images: Sequence[FileHeader | str], masks: Sequence[FileHeader | str]
) -> list[str]:
    """Return the text about files that cannot be read, given the reasons; none if there are none."""
    advice = "Replace or remove them, or leave their pairs out with data.on_unreadable=skip."
    return problem_text("Files that cannot be read", unreadable_texts(pairs, images, masks), advice)


def unreadable_texts(
    pairs: Pairs, images: Sequence[FileHeader | str], masks: Sequence[FileHeader | str]
) -> list[str]:
    """Return texts `NAME (REASON)` of the files that cannot be read."""
    files = [*zip(pairs.image_paths, images, strict=True), *zip(pairs.mask_paths, masks, strict=True)]
    return [f"{pairs.name(path)} ({reason})" for path, reason in files if isinstance(reason, str)]


def problem_text(description: str, examples: Sequence[str], advice: str) -> list[str]:
    """Return a text with the first examples, a line each; none without any example."""
    if not examples:
        return []
    lines = [f"  {example}" for example in examples[:MAX_EXAMPLES]]
    if len(examples) > MAX_EXAMPLES:
        lines.append(f"  and {len(examples) - MAX_EXAMPLES} more")
    return ["\n".join([f"{description} ({len(examples)}):", *lines, advice])]
