"""Pictures of every odd kind, with the pixels that a viewer shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 36, 24
TURNS = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: np.rot90(shown, 1),
    7: lambda shown: np.rot90(shown[::-1], 1),
    8: lambda shown: np.rot90(shown, -1),
}
"""How a picture is stored, by EXIF orientation, so that a viewer shows it upright."""


def smooth(width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """Return a smooth picture without any symmetry, shape (height, width, 3)."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = (40 + 180 * x, 30 + 200 * y, 60 + 150 * x * y)
    return np.stack(channels, -1).round().astype(np.uint8)


def grey() -> Pixels:
    """Return the grey values of a smooth picture, shape (height, width)."""
    return smooth()[:, :, 0]


def write_kinds(folder: Path) -> dict[str, tuple[Path, Pixels]]:
    """Write a picture of every kind, and return its file and the RGB pixels to be seen, by kind."""
    folder.mkdir(parents=True, exist_ok=True)
    shown, line = smooth(), grey()
    opaque = np.where(np.arange(WIDTH)[None, :] < WIDTH // 2, 255, 0) * np.ones((HEIGHT, 1))
    on_white = np.where(opaque[:, :, None] > 0, shown, 255).astype(np.uint8)
    as_rgb = np.repeat(line[:, :, None], 3, 2)
    grey_on_white = np.where(opaque[:, :, None] > 0, as_rgb, 255).astype(np.uint8)
    alpha = opaque.astype(np.uint8)[:, :, None]
    rgba = Image.fromarray(np.concatenate([shown, alpha], 2), "RGBA")
    wide = line.astype(np.uint16) * 257
    images: dict[str, tuple[Image.Image, str, npt.NDArray[Any]]] = {
        "grey 8 bit": (Image.fromarray(line), "png", as_rgb),
        "grey 16 bit": (Image.fromarray(wide), "png", as_rgb),
        "grey 16 bit big-endian": (Image.fromarray(wide.astype(">u2")), "tif", as_rgb),
        "integers": (Image.fromarray(wide.astype(np.int32)), "tif", as_rgb),
        "floats": (Image.fromarray((line / 255).astype(np.float32)), "tif", as_rgb),
        "alpha": (rgba, "png", on_white),
        "webp alpha": (rgba, "webp", on_white),
        "grey alpha": (Image.fromarray(np.stack([line, alpha[:, :, 0]], 2), "LA"), "png", grey_on_white),
        "cmyk": (Image.fromarray(shown).convert("CMYK"), "tif", shown),
        "bilevel": (Image.fromarray(line).point(lambda v: 255 * (v > 127), "1"), "png", 255 * (as_rgb > 127)),
    }
    files = {}
    for name, (image, ending, expected) in images.items():
        path = folder / f"{name.replace(' ', '_')}.{ending}"
        image.save(path, lossless=True, exact=True)
        files[name] = path, expected.astype(np.uint8)
    files["palette"] = _palette(folder / "palette.png", line)
    files["animated"] = _animated(folder / "animated.gif", line)
    for orientation in TURNS:
        path = folder / f"orientation_{orientation}.jpg"
        write_turned(path, shown, orientation)
        files[f"orientation {orientation}"] = path, shown
    return files


def write_turned(path: Path, shown: Pixels, orientation: int) -> None:
    """Write pixels as a picture whose EXIF orientation turns them upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(TURNS[orientation](shown))
    Image.fromarray(stored).save(path, exif=exif, quality=98, subsampling=0)


def _palette(path: Path, line: Pixels) -> tuple[Path, Pixels]:
    """Write a palette of greys whose entry 40 is transparent and hides another colour."""
    indices = line // 4
    image = Image.fromarray(indices, "P")
    image.putpalette([value for index in range(64) for value in (4 * index, 255 - 4 * index, 7)])
    image.save(path, transparency=40)
    colours = np.stack([4 * indices, 255 - 4 * indices, np.full_like(indices, 7)], 2)
    return path, np.where(indices[:, :, None] == 40, 255, colours).astype(np.uint8)


def _animated(path: Path, line: Pixels) -> tuple[Path, Pixels]:
    first = Image.fromarray(line // 8 * 8)
    first.save(path, save_all=True, append_images=[Image.new("L", first.size, 0)])
    return path, np.repeat((line // 8 * 8)[:, :, None], 3, 2)
