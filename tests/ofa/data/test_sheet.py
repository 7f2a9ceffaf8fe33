"""A sheet of pictures: each in its square, whole, with its caption, whatever its size and mode."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ofa.data.sheet import BORDER, MARGIN, picture_sheet

SIDE = 60
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", size, colour)


def middle_of(sheet: Image.Image, row: int, column: int, num_rows: int) -> object:
    """Return the colour in the middle of a square."""
    height = (sheet.height - MARGIN) // num_rows
    return sheet.getpixel((MARGIN + column * (SIDE + MARGIN) + SIDE // 2, MARGIN + row * height + SIDE // 2))


def test_pictures_fill_the_rows_in_their_order() -> None:
    images = [plain((200, 100), RED), plain((7, 9), GREEN), plain((60, 60), BLUE)]
    sheet = picture_sheet(images, ["a", "b", "c"], columns=2, side=SIDE)
    colours = [middle_of(sheet, row, column, 2) for row, column in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert colours == [RED, GREEN, BLUE, (255, 255, 255)]
    assert sheet.width == 2 * (SIDE + MARGIN) + MARGIN


def test_the_whole_picture_is_in_its_square() -> None:
    sheet = picture_sheet([plain((300, 100), RED)], ["wide"], columns=4, side=SIDE)
    pixels = np.asarray(sheet)[MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE]
    is_red = np.all(pixels == RED, axis=2)
    assert is_red.any(0).sum() == SIDE - 2 * BORDER
    assert is_red.any(1).sum() == pytest.approx((SIDE - 2 * BORDER) / 3, abs=1)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3)])
def test_pixels_of_any_shape_are_pictures(shape: tuple[int, ...]) -> None:
    sheet = picture_sheet([np.full(shape, 90, np.uint8)], [""], columns=1, side=SIDE)
    assert middle_of(sheet, 0, 0, 1) == (90, 90, 90)


def test_colours_mark_border_and_caption() -> None:
    images = [plain((9, 9), (0, 0, 0))] * 2
    sheet = picture_sheet(images, ["IIII"] * 2, columns=2, side=SIDE, colours=["#ff0000", None])
    pixels = np.array(sheet)
    assert sheet.getpixel((MARGIN, MARGIN)) == RED
    assert sheet.getpixel((2 * MARGIN + SIDE, MARGIN)) == (255, 255, 255)
    caption = pixels[MARGIN + SIDE + 2 :, : MARGIN + SIDE].astype(int)
    assert caption[..., 0].min() > 200 > caption[..., 1].min()


def test_long_captions_stay_below_their_own_picture() -> None:
    black = plain((9, 9), (255, 255, 255))
    for caption in ("W" * 200, "first\n" + "W" * 200):
        pixels = np.array(picture_sheet([black, black], [caption, ""], columns=2, side=SIDE))
        is_ink = np.all(pixels < 128, axis=2)
        assert is_ink.any() and not is_ink[:, SIDE + MARGIN + 2 :].any()


def test_only_the_row_of_a_caption_of_two_lines_is_higher() -> None:
    image = plain((9, 9), RED)
    one, two, both = (
        picture_sheet([image] * 2, captions, columns=1, side=SIDE)
        for captions in (["a", "b"], ["a", "b\nc"], ["a\nb", "c\nd"])
    )
    assert two.height - one.height == both.height - two.height > 0


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_a_line_of_pixels_is_a_picture_as_well(size: tuple[int, int]) -> None:
    sheet = picture_sheet([plain(size, RED)], ["line"], columns=1, side=SIDE)
    assert np.all(np.asarray(sheet) == RED, axis=2).sum() == SIDE - 2 * BORDER
