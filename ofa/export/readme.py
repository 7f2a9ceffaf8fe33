"""The README of a bundle: how to run each of its files in a few lines of Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa.export.bundle import DESCRIPTION_FILE, BundleInfo
from ofa.export.formats import format_of
from ofa.export.record import ExportedFile

README_FILE = "README.md"


def bundle_readme(info: BundleInfo, files: Mapping[str, ExportedFile]) -> str:
    """Return the text of a bundle's README, in Markdown.

    Args:
        info: what the bundle says about its network.
        files: its files by format.
    """
    sections = [_about(info)]
    for name, file in files.items():
        paths = [part.file for part in file.every_part]
        code = format_of(name, file.precision).example(paths, file.precision)
        if name != "weights":
            code = f"{_images(info)}\n{code}"
        sections.append(f"## {name}: {_names(file)}\n\n{_facts(file)}\n\n```python\n{code}\n```")
    return "\n\n".join(sections) + "\n"


def _about(info: BundleInfo) -> str:
    side, kept = info.config.resolution, "the whole, "
    if info.preprocessing.centre_share < 1:
        kept = f"the centred square of {info.preprocessing.centre_share:g} of the short side, "
    expected = "" if info.expected_top1 is None else f" Expected top-1: {100 * info.expected_top1:.2f} %."
    return f"""# Sub-network {info.config.id}

`{info.config}` of the space `{info.space.name}`, {info.space.num_classes} classes.{expected} Everything that
is known of it is in `{DESCRIPTION_FILE}`.

Each part below runs in this folder. Images are {side} x {side} pixels; of others take {kept}scaled bilinearly
with antialiasing (Pillow: `image.resize(({side}, {side}), Image.Resampling.BILINEAR)`). The answer is the
position of the largest logit among `class_names` in `{DESCRIPTION_FILE}`."""


def _names(file: ExportedFile) -> str:
    return ", ".join(f"`{part.file}`" for part in file.every_part)


def _facts(file: ExportedFile) -> str:
    facts = [f"{file.total_bytes / 1e6:.2f} MB, {file.precision}."]
    if file.batch_size is not None:
        facts.append(f"It takes {file.batch_size} image a run.")
    if file.kept_layers:
        facts.append(f"Layers {', '.join(map(str, file.kept_layers))} are in floating point.")
    if file.validation_top1 is not None and file.fp32_validation_top1 is not None:
        facts.append(
            f"Top-1 on validation images: {100 * file.validation_top1:.2f} %, in fp32 "
            f"{100 * file.fp32_validation_top1:.2f} %."
        )
    return " ".join(facts)


def _images(info: BundleInfo) -> str:
    """Return the lines that make the input `images` of pixels."""
    side, channels, values = info.config.resolution, info.space.in_channels, info.preprocessing
    scale = "/ 255" if values.pixel_scale == 1 / 255 else f"* {values.pixel_scale!r}"
    mean, std = _per_channel(values.mean), _per_channel(values.std)
    return f"""import numpy as np
pixels = np.zeros((1, {channels}, {side}, {side}), np.uint8)  # your image, 0 to 255
images = ((pixels {scale} - {mean}) / {std}).astype(np.float32)"""


def _per_channel(values: Sequence[float]) -> str:
    """Return numbers as a nested list that broadcasts over height and width."""
    return "[" + ", ".join(f"[[{value!r}]]" for value in values) + "]"
