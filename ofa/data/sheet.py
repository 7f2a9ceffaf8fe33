"""`picture_sheet`: pictures side by side with captions, as one image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = Image.Image | NDArray[np.uint8]
"""A picture of any size: an image of Pillow, or pixels (height, width), (height, width, 1) or (…, 3)."""

FONT_SHARE, MIN_FONT, MAX_FONT = 0.1, 10, 18
MARGIN, BORDER = 6, 3


def picture_sheet(
    images: Sequence[Picture],
    captions: Sequence[str],
    *,
    columns: int,
    side: int,
    colours: Sequence[str | None] | None = None,
) -> Image.Image:
    """Return pictures in rows, each scaled whole into a square with its caption below.

    Small pictures are enlarged without smoothing, so that their pixels can be seen.

    Args:
        images: pictures, at least one.
        captions: text of each, of one line or several; lines that are too wide end in "…".
        columns: pictures per row.
        side: side of the squares in pixels.
        colours: colour of each picture's border and caption; None for none and black.
    """
    assert images and len(images) == len(captions), (len(images), len(captions))
    assert columns >= 1 and side >= 1, (columns, side)
    colours = colours or [None] * len(images)
    font = _font(round(min(max(FONT_SHARE * side, MIN_FONT), MAX_FONT)))
    line_height = sum(font.getmetrics()) + 2
    width, columns = side + MARGIN, min(columns, len(images))
    rows = [slice(start, start + columns) for start in range(0, len(images), columns)]
    num_lines = [max(caption.count("\n") + 1 for caption in captions[row]) for row in rows]
    heights = [side + count * line_height + 2 * MARGIN for count in num_lines]
    sheet = Image.new("RGB", (columns * width + MARGIN, sum(heights) + MARGIN), "white")
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for row, height in zip(rows, heights, strict=True):
        cells = zip(images[row], captions[row], colours[row], strict=True)
        for column, (image, caption, colour) in enumerate(cells):
            left = MARGIN + column * width
            thumbnail = _fitted(image, side - 2 * BORDER)
            offset = ((side - thumbnail.width) // 2, (side - thumbnail.height) // 2)
            sheet.paste(thumbnail, (left + offset[0], top + offset[1]))
            if colour is not None:
                draw.rectangle((left, top, left + side - 1, top + side - 1), outline=colour, width=BORDER)
            for number, line in enumerate(caption.split("\n")):
                text = _shortened(line, font, side)
                place = (left, top + side + 2 + number * line_height)
                draw.text(place, text, fill=colour or "black", font=font)
        top += height
    return sheet


def _fitted(picture: Picture, side: int) -> Image.Image:
    """Return the whole picture in RGB, with a longer side of `side` pixels."""
    if isinstance(picture, Image.Image):
        image = picture
    else:
        image = Image.fromarray(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)
    factor = side / max(image.size)
    method = Image.Resampling.BILINEAR if factor < 1 else Image.Resampling.NEAREST
    size = (max(1, round(factor * image.width)), max(1, round(factor * image.height)))
    return image.convert("RGB").resize(size, method)


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return the line, or as much of it as fits into `width` pixels with "…" behind."""
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of the figures, which has the letters of most European languages."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
