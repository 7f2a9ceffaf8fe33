"""A segmentation for people: an overlay and a mask for each picture, a sheet of them, and a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from ofa.common.files import json_writer, write_atomic
from ofa.data.sheet import MARGIN, picture_sheet
from ofa.export.segment import SegmentedPicture, class_colours

MAX_PICTURES, COLUMNS, SIDE, MAX_LISTED = 48, 6, 200, 3


def picture_line(picture: SegmentedPicture, class_names: Sequence[str]) -> str:
    """Return e.g. "background 61.2 %, circle 30.1 %", of the most frequent classes."""
    shares = list(picture.shares(class_names).items())
    texts = [f"{name} {100 * share:.1f} %" for name, share in shares[:MAX_LISTED]]
    return ", ".join(texts + ["…"] * (len(shares) > MAX_LISTED))


def save_segmented(
    pictures: Sequence[SegmentedPicture],
    unreadable: Mapping[Path, str],
    class_names: Sequence[str],
    folder: Path,
    root: Path,
) -> str:
    """Write everything into a folder, and return what is where as text.

    `NAME-overlay.png` and `NAME-mask.png` (palette; its values are the positions of the classes) for each
    picture, `overlays.png` with the first ones side by side, and `segmented.json` with the share of each
    class.

    Args:
        pictures: the pictures.
        unreadable: reasons by file of those that cannot be read.
        class_names: names of all classes.
        folder: folder to write to; it is made.
        root: folder that the names of the pictures begin from.

    Raises:
        UserError: if a file cannot be written.
    """
    palette, values = class_colours(class_names), {}
    for picture in pictures:
        name = picture.path.relative_to(root)
        stem = folder / name
        stem.parent.mkdir(parents=True, exist_ok=True)
        mask = Image.fromarray(picture.classes, "P")
        mask.putpalette(palette.tobytes())
        for kind, image in (("overlay", picture.overlay), ("mask", mask)):
            write_atomic(stem.with_name(f"{name.name}-{kind}.png"), partial(_save, image))
        values[name.as_posix()] = picture.shares(class_names)
    write_atomic(folder / "overlays.png", partial(_save, _sheet(pictures[:MAX_PICTURES], class_names)))
    record = {
        "class_names": list(class_names),
        "colours": palette.tolist(),
        "shares": values,
        "unreadable": {str(path): reason for path, reason in unreadable.items()},
    }
    write_atomic(folder / "segmented.json", json_writer(record))
    return f"overlays and masks: {folder}; side by side: {folder / 'overlays.png'}; shares: segmented.json"


def _sheet(pictures: Sequence[SegmentedPicture], class_names: Sequence[str]) -> Image.Image:
    """Return each picture beside its overlay, and below them the colours of the classes."""
    palette = class_colours(class_names)
    cells = [(picture.picture, picture.path.name) for picture in pictures]
    lines = [picture_line(picture, class_names).replace(", ", "\n") for picture in pictures]
    overlays = zip((picture.overlay for picture in pictures), lines, strict=True)
    pairs = [cell for pair in zip(cells, overlays, strict=True) for cell in pair]
    images, captions = zip(*pairs, strict=True)
    sheet = picture_sheet(images, captions, columns=COLUMNS, side=SIDE)
    swatches = [Image.new("RGB", (SIDE // 4, SIDE // 4), tuple(colour)) for colour in palette.tolist()]
    columns = max(1, (sheet.width - MARGIN) // (SIDE // 2 + MARGIN))
    legend = picture_sheet(swatches, list(class_names), columns=columns, side=SIDE // 2)
    both = Image.new("RGB", (max(sheet.width, legend.width), sheet.height + legend.height), "white")
    both.paste(sheet, (0, 0))
    both.paste(legend, (0, sheet.height))
    return both


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, "PNG")
