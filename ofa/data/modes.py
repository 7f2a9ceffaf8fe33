"""Pixels of any mode as 8-bit RGB, by a written rule."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Modes that Pillow itself turns into RGB without loss of range.
PLAIN_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV")
# Grey in other depths than 8 bits, and 8 bits without colour.
GREY_MODES = ("1", "L", "F")
# So few that a band stays in the processor's cache while it is converted.
BAND_PIXELS = 2**18
ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")


class ModeError(Exception):
    """A mode of pixels without a rule."""


def has_transparency(image: Image.Image) -> bool:
    """Return whether the image has an alpha channel or a transparent colour."""
    return image.mode in ALPHA_MODES or "transparency" in image.info


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB.

    Transparent parts become white. 16 bits of grey, and integers of 32 bits, are taken as 0..65535;
    floating point as 0..1. Colour profiles are not applied.

    Raises:
        ModeError: for pixels outside of these ranges and for other modes.
    """
    return plain_part(image, (0, 0, *image.size)).convert("RGB")


def plain_part(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Return the part (left, top, right, bottom) of an image, converted as `to_rgb` says; grey stays grey.

    Grey pixels are in mode L: scaled before they become RGB they are the same, in a third of the time. The
    conversion goes in bands, which saves memory.

    Raises:
        ModeError: see `to_rgb`.
    """
    left, top, right, bottom = box
    transparent = has_transparency(image)
    grey = not transparent and (image.mode in GREY_MODES or image.mode.startswith("I"))
    result = Image.new("L" if grey else "RGB", (right - left, bottom - top), "white")
    rows = max(1, BAND_PIXELS // max(1, right - left))
    for start in range(top, bottom, rows):
        band = image.crop((left, start, right, min(start + rows, bottom)))
        if transparent:
            band = band if band.mode == "RGBA" else band.convert("RGBA")
            result.paste(band, (0, start - top), mask=band)
        else:
            result.paste(_opaque(band, result.mode), (0, start - top))
    return result


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """Return an image without transparency in mode L or RGB."""
    if image.mode in PLAIN_MODES:
        return image if image.mode == mode else image.convert(mode)
    if image.mode.startswith("I"):
        return _grey(image, 65535.0)
    if image.mode == "F":
        return _grey(image, 1.0)
    raise ModeError(f"pixels of mode {image.mode}; save the picture in 8-bit RGB")


def _grey(image: Image.Image, white: float) -> Image.Image:
    """Return grey pixels of 0 to `white` in mode L."""
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    # Written so that NaN does not pass.
    if not (low >= 0 and high <= white):
        raise ModeError(
            f"pixels of mode {image.mode} from {low:g} to {high:g}; expected 0 to {white:g}: scale them, or "
            "save the picture in 8 or 16 bits"
        )
    # In 32 bits: enough for 16, and half the memory of 64.
    scaled = np.multiply(pixels, np.float32(255 / white), dtype=np.float32)
    return Image.fromarray(np.rint(scaled, out=scaled).astype(np.uint8))
