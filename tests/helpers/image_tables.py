"""Folders of small images with a CSV file about them, drawn so that the colour of an image tells its row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ofa.data.settings import DataSettings

LABEL_NAMES = ("red", "green", "blue")


def settings(root: Path, kind: str = "multi_label", **changes: Any) -> DataSettings:
    return DataSettings(f"{kind}_folder", str(root), **{"image_size": 16, "workers": 0, **changes})


def write_picture(path: Path, colour: Sequence[int]) -> None:
    """Write a picture of one colour, with noise that keeps it apart from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), tuple(colour)).save(path)


def write_table(folder: Path, lines: Sequence[str], name: str = "table.csv", encoding: str = "utf-8") -> Path:
    """Write a CSV file of these lines, which end as on Windows, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    return folder


def write_labels(folder: Path, count: int, seed: int = 0) -> Path:
    """Write pictures whose red, green and blue say which of `LABEL_NAMES` they have, and their table."""
    rng, lines = np.random.default_rng(seed), ["file," + ",".join(LABEL_NAMES)]
    for number in range(count):
        labels = rng.integers(0, 2, 3).tolist()
        write_picture(folder / "pictures" / f"{number:02d}.png", [220 * label + 10 for label in labels])
        lines.append(f"pictures/{number:02d}.png," + ",".join(map(str, labels)))
    return write_table(folder, lines)


def write_numbers(folder: Path, count: int, seed: int = 0) -> Path:
    """Write pictures whose red and green are 100 times `width` and the tenth of `height`, and their table."""
    rng, lines = np.random.default_rng(seed), ["file,width,height"]
    for number in range(count):
        red, green = rng.integers(0, 256, 2).tolist()
        write_picture(folder / f"{number:02d}.png", (red, green, 0))
        lines.append(f"{number:02d}.png,{red / 100},{green * 10}")
    return write_table(folder, lines)
