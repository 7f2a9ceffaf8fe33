"""`read_picture`: the one function that reads a picture's file, for training, evaluation and export."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ofa.common.errors import UserError
from ofa.data.formats import register_optional_formats
from ofa.data.modes import plain_part
from ofa.data.views import View, ViewOf, whole_view

# JPEG files are decoded at half, a quarter or an eighth of their size where at least this factor is left to
# the antialiased scaling, which then hides the coarser steps.
DRAFT_GAP = 2.0
JPEG_FORMATS = ("JPEG", "MPO")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableError(UserError):
    """A picture that cannot be read; `path` and `reason` are texts."""

    def __init__(self, path: str, reason: str) -> None:
        """Name the file and what is wrong with it."""
        self.path, self.reason = path, reason
        super().__init__(
            f"{path} cannot be read as an image ({reason}). Replace or remove the file and run the same "
            "command again."
        )

    def __reduce__(self) -> tuple[type[UnreadableError], tuple[str, str]]:
        """Let worker processes send it."""
        return UnreadableError, (self.path, self.reason)


def read_picture(path: str | Path, view_of: ViewOf = whole_view) -> Image.Image:
    """Return a picture, or a part of it, as an 8-bit RGB image.

    The picture is turned as its EXIF orientation says; transparency is laid on white; other modes than 8-bit
    colour follow `modes.to_rgb`; of an animation it is the first frame. The part is cut out before it is
    scaled, bilinearly with antialiasing, and a JPEG is decoded no larger than needed.

    Args:
        path: file of any format that Pillow reads.
        view_of: returns the part and the size of the result from width and height as displayed.

    Raises:
        UnreadableError: if the file is missing, damaged, too large, or of a mode without a rule.
    """
    register_optional_formats(str(path))
    try:
        with Image.open(path) as image:
            return _view(image, view_of)
    except Exception as error:  # Decoders raise almost anything on damaged files.
        raise UnreadableError(str(path), reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """Return why a picture cannot be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels"
    if isinstance(error, FileNotFoundError):
        return "no such file, or a link to one"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or Pillow turns the image itself."""
    if image.format == "TIFF":
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Damaged EXIF data is no reason to lose the picture.
        return 1
    return int(value) if value in _TURNS else 1


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image as it is displayed."""
    width, height = image.size
    return (height, width) if orientation_of(image) >= 5 else (width, height)


def _view(image: Image.Image, view_of: ViewOf) -> Image.Image:
    """Return the part of an opened image."""
    orientation = orientation_of(image)
    view = view_of(*displayed_size(image))
    box = _stored_box(view, orientation, *image.size)
    size = (view.out_width, view.out_height)
    # Scaled as it is stored, and turned when it is small.
    stored_size = size if orientation < 5 else size[::-1]
    box = _draft(image, box, stored_size)
    scaled = _scaled(image, box, stored_size)
    return scaled.transpose(_TURNS[orientation]) if orientation in _TURNS else scaled


def _stored_box(view: View, orientation: int, width: int, height: int) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of a view in an image of `width` x `height` pixels as stored."""
    left, top, right, bottom = view.x, view.y, view.x + view.width, view.y + view.height
    if orientation >= 5:
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _draft(
    image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Let a JPEG be decoded at a smaller size where that is enough, and return the box in its pixels."""
    if image.format not in JPEG_FORMATS:
        return box
    factor = min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]) / DRAFT_GAP
    scale = next((scale for scale in (8, 4, 2) if scale <= factor), 1)
    if scale == 1:
        return box
    width, height = image.size
    drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
    if drafted is None:
        return box
    # The last column and row may stand for less than `scale` pixels.
    _, (_, _, exact_width, exact_height) = drafted
    x_scale, y_scale = exact_width / width, exact_height / height
    return box[0] * x_scale, box[1] * y_scale, box[2] * x_scale, box[3] * y_scale


def _scaled(image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
    """Return the box of an image in RGB, scaled to `size`."""
    image.load()
    # Sums of fractions may end a little beyond the border, which Pillow refuses.
    box = (max(0, box[0]), max(0, box[1]), min(image.size[0], box[2]), min(image.size[1], box[3]))
    if image.mode not in ("RGB", "L") or "transparency" in image.info:
        # Only what is needed is converted, in whole pixels.
        left, top = math.floor(box[0]), math.floor(box[1])
        image = plain_part(image, (left, top, math.ceil(box[2]), math.ceil(box[3])))
        box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    resized = image.resize(size, Image.Resampling.BILINEAR, box=box)
    return resized.convert("RGB")
