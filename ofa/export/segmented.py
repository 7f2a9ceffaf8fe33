"""A segmentation for people: an overlay and a mask for each picture, a sheet of them, and a JSON file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ofa.common.errors import UserError
from ofa.common.files import json_writer, write_atomic
from ofa.data.sheet import MARGIN, picture_sheet
from ofa.export.classify import unreadable_text
from ofa.export.segment import SegmentedPicture, UnreadablePicture, class_colours

SHEET_FILE, SHARES_FILE = "overlays.png", "segmented.json"
MAX_LINES = 40
MAX_PICTURES, COLUMNS, SIDE, MAX_LISTED = 48, 6, 200, 3


def picture_line(picture: SegmentedPicture, class_names: Sequence[str]) -> str:
    """Return e.g. "background 61.2 %, circle 30.1 %", of the most frequent classes."""
    shares = list(picture.shares(class_names).items())
    texts = [f"{name} {100 * share:.1f} %" for name, share in shares[:MAX_LISTED]]
    return ", ".join(texts + ["…"] * (len(shares) > MAX_LISTED))


@dataclass
class SegmentedFolder:
    """What was written about pictures; of their pixels, only those of the first `MAX_PICTURES` are kept.

    Attributes:
        lines: a line for each of the first `MAX_LINES` pictures.
        shares: share of each class by the name of the picture.
        unreadable: reasons by file of the pictures that cannot be read.
        run_ms: milliseconds of the run for each picture.
    """

    lines: list[str] = field(default_factory=list)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)
    run_ms: list[float] = field(default_factory=list)


def save_segmented(
    pictures: Iterable[SegmentedPicture | UnreadablePicture],
    class_names: Sequence[str],
    folder: Path,
    root: Path,
) -> SegmentedFolder:
    """Write everything into a folder, each picture as it comes, and return what was written.

    `NAME-overlay.png` and `NAME-mask.png` (palette; its values are the positions of the classes) for each
    picture. At the end, when all of them are there, `overlays.png` with the first ones side by side, and
    `segmented.json` with the share of each class.

    Args:
        pictures: the pictures; see `segment_pictures`.
        class_names: names of all classes.
        folder: folder to write to; it is made.
        root: folder that the names of the pictures begin from.

    Raises:
        UserError: if no picture can be read, or a file cannot be written; as `pictures`.
    """
    palette, written, first = class_colours(class_names), SegmentedFolder(), list[SegmentedPicture]()
    for picture in pictures:
        if isinstance(picture, UnreadablePicture):
            written.unreadable[picture.path] = picture.reason
            continue
        name = picture.path.relative_to(root)
        _save_picture(picture, folder / name, palette)
        written.shares[name.as_posix()] = picture.shares(class_names)
        written.run_ms.append(picture.run_ms)
        if len(written.lines) < MAX_LINES:
            written.lines.append(f"{name}: {picture_line(picture, class_names)}")
        if len(first) < MAX_PICTURES:
            first.append(picture)
    if not first:
        raise UserError(unreadable_text(written.unreadable))
    write_atomic(folder / SHEET_FILE, partial(_save, _sheet(first, class_names)))
    record = {
        "class_names": list(class_names),
        "colours": palette.tolist(),
        "shares": written.shares,
        "unreadable": {str(path): reason for path, reason in written.unreadable.items()},
    }
    write_atomic(folder / SHARES_FILE, json_writer(record))
    return written


def _save_picture(picture: SegmentedPicture, stem: Path, palette: NDArray[np.uint8]) -> None:
    """Write overlay and mask of a picture beside `stem`."""
    mask = Image.fromarray(picture.classes, "P")
    mask.putpalette(palette.tobytes())
    for kind, image in (("overlay", picture.overlay), ("mask", mask)):
        write_atomic(stem.with_name(f"{stem.name}-{kind}.png"), partial(_save, image))


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
