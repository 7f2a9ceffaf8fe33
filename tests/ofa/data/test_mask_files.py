"""Files of masks: modes, depths, what is refused, parts scaled to the nearest neighbour, and headers."""

from __future__ import annotations

import re
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mask_folders import draw_mask, write_mask
from PIL import Image

from ofa.data.mask_files import read_mask
from ofa.data.mask_headers import MaskHeader, read_mask_header, total_counts
from ofa.data.pictures import UnreadableError, read_picture
from ofa.data.views import View, centre_view, fixed_view, random_view


def write_grey(path: Path, rows: list[bytes], *, width: int, depth: int) -> None:
    """Write a grey PNG of any depth from packed rows, which Pillow cannot."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, len(rows), depth, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_every_mode_gives_the_values_of_the_file(tmp_path: Path, mode: str) -> None:
    mask = draw_mask(np.random.default_rng(0))
    mask = mask % 2 if mode == "1" else mask
    mask[0, 0] = 1 if mode == "1" else 255
    write_mask(tmp_path / "mask.png", mask, mode)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == mode
    values = read_mask(tmp_path / "mask.png")
    assert values.dtype == np.uint8 and np.array_equal(values, mask)


def test_transparency_and_turns_do_not_change_values(tmp_path: Path) -> None:
    mask = draw_mask(np.random.default_rng(0))
    image, exif = Image.fromarray(mask, "P"), Image.Exif()
    image.putpalette(list(range(256)) * 3)
    exif[0x0112] = 6
    image.save(tmp_path / "mask.png", transparency=1, exif=exif)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)


@pytest.mark.parametrize(
    ("depth", "row", "values"),
    [(1, [0b01100000], [0, 1, 1, 0]), (2, [0b00011011], [0, 1, 2, 3]), (4, [0x01, 0x2F], [0, 1, 2, 15])],
)
def test_grey_of_few_bits_is_not_stretched(
    tmp_path: Path, depth: int, row: list[int], values: list[int]
) -> None:
    write_grey(tmp_path / "mask.png", [bytes(row)] * 2, width=4, depth=depth)
    assert read_mask(tmp_path / "mask.png").tolist() == [values, values]
    header = read_mask_header(tmp_path / "mask.png")
    assert isinstance(header, MaskHeader) and [value for value, _ in header.pixel_counts] == sorted({*values})


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (
            "RGB",
            "mode RGB; expected the number of a class in each pixel.*: convert the colours to the numbers$",
        ),
        ("RGBA", "mode RGBA; expected the number.*: convert the colours to the numbers$"),
        (
            "LA",
            "mode LA; expected the number of a class in each pixel, in an indexed, 8-bit grey or 1-bit PNG$",
        ),
        ("I;16", "mode I;16; expected the number of a class .* or 1-bit PNG$"),
    ],
)
def test_other_modes_are_refused(tmp_path: Path, mode: str, words: str) -> None:
    Image.new(mode, (9, 7)).save(tmp_path / "mask.png")
    with pytest.raises(UnreadableError) as caught:
        read_mask(tmp_path / "mask.png")
    assert re.search(words, caught.value.reason)
    assert read_mask_header(tmp_path / "mask.png") == caught.value.reason


def test_files_that_lose_values_are_refused_whatever_their_ending(tmp_path: Path) -> None:
    Image.new("L", (9, 7)).save(tmp_path / "mask.png", "JPEG")
    assert str(read_mask_header(tmp_path / "mask.png")).startswith("a file of the format JPEG; expected the")


def test_damaged_files_are_no_masks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_mask(tmp_path / "mask.png", rng.integers(0, 4, (40, 40), np.uint8))
    content = (tmp_path / "mask.png").read_bytes()
    for damaged, words in ((b"", "empty"), (b"<html>", "not an image"), (content[:200], "truncated")):
        (tmp_path / "mask.png").write_bytes(damaged)
        assert words in str(read_mask_header(tmp_path / "mask.png"))
    assert "no such file" in str(read_mask_header(tmp_path / "missing.png"))


def test_parts_show_the_pixel_under_each_centre(tmp_path: Path) -> None:
    """A picture whose red and green tell column and row is cut alike: centres agree within half a pixel."""
    columns, rows = np.meshgrid(np.arange(36, dtype=np.uint8), np.arange(28, dtype=np.uint8))
    for name, values in (("columns", columns), ("rows", rows)):
        write_mask(tmp_path / f"{name}.png", values)
    Image.fromarray(np.stack([6 * columns, 6 * rows, 0 * rows], 2)).save(tmp_path / "image.png")
    rng = np.random.default_rng(0)
    views = [random_view(36, 28, size=20, min_area=0.1, rng=rng) for _ in range(20)]
    views += [centre_view(36, 28, size=20, share=0.875), View(0, 0, 36, 28, 72, 7)]
    for view in views:
        view_of = partial(fixed_view, view=view, size=(36, 28))
        image = np.asarray(read_picture(tmp_path / "image.png", view_of)).astype(float) / 6
        parts = [read_mask(tmp_path / f"{name}.png", view_of) for name in ("columns", "rows")]
        for axis, part in enumerate(parts):
            assert part.shape == (view.out_height, view.out_width)
            # Within half a pixel inside; at the border of the picture antialiasing sees one side alone.
            assert np.abs(part - image[:, :, axis])[1:-1, 1:-1].max() <= 0.5 + 0.1
        start, step = view.x, view.width / view.out_width
        expected = [int(start + (i + 0.5) * step) for i in range(view.out_width)]
        assert parts[0][0].tolist() == expected


def test_a_view_is_for_one_size(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", np.zeros((7, 9), np.uint8))
    view = centre_view(9, 8, size=4, share=1)
    with pytest.raises(UnreadableError, match="9x7 pixels, where 9x8 were expected"):
        read_mask(tmp_path / "mask.png", partial(fixed_view, view=view, size=(9, 8)))


def test_headers_count_pixels_and_come_back(tmp_path: Path) -> None:
    mask = np.array([[0, 3, 3], [255, 3, 0]], np.uint8)
    write_mask(tmp_path / "mask.png", mask)
    header = read_mask_header(tmp_path / "mask.png")
    assert isinstance(header, MaskHeader) and (header.width, header.height) == (3, 2)
    assert header.pixel_counts == ((0, 2), (3, 3), (255, 1))
    assert MaskHeader.from_values(header.values()) == header
    totals = total_counts([header, header])
    assert totals.shape == (256,) and totals[[0, 1, 3, 255]].tolist() == [4, 0, 6, 2] and totals.sum() == 12


@pytest.mark.parametrize("counts", [[], [0], [0, 5, 256, 1], [-1, 5], [0, 0]])
def test_foreign_values_are_no_header(counts: list[int]) -> None:
    with pytest.raises(ValueError):
        MaskHeader.from_values([10, 20, 3, 2, *counts])
