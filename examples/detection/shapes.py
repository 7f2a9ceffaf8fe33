"""`draw_coco_folder`: pictures of circles, squares and triangles, with their boxes in COCO's format."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CLASS_NAMES = ("circle", "square", "triangle")


def draw_coco_folder(folder: Path, *, num_train: int, num_test: int, side: int = 96, seed: int = 0) -> Path:
    """Draw pictures into `train/` and `val/` of a folder, and return it; one that is there already stays.

    Args:
        folder: the folder; each part gets `images/` and `annotations.json`.
        num_train: pictures for training and validation.
        num_test: pictures for the final test.
        side: side of the pictures in pixels.
        seed: seed of what is drawn.
    """
    for split, count in (("train", num_train), ("val", num_test)):
        part = folder / split
        if (part / "annotations.json").exists():
            continue
        (part / "images").mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, split == "val"])
        images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
        for number in range(count):
            picture, shapes = _picture(rng, side)
            name = f"{number:05}.png"
            picture.save(part / "images" / name)
            images.append({"id": number, "file_name": name, "width": side, "height": side})
            for label, (left, top, right, bottom) in shapes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": label + 1,
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": label, "name": name} for label, name in enumerate(CLASS_NAMES, 1)]
        values = {"images": images, "annotations": annotations, "categories": categories}
        (part / "annotations.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def _picture(rng: np.random.Generator, side: int) -> tuple[Image.Image, list[tuple[int, list[float]]]]:
    """Return a picture of up to three shapes on a noisy ground, with the class and box of each."""
    ground = rng.integers(40, 200, 3) + rng.integers(-25, 26, (side, side, 3))
    picture = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    drawing, shapes = ImageDraw.Draw(picture), list[tuple[int, list[float]]]()
    for _ in range(int(rng.integers(1, 4))):
        size = float(rng.uniform(0.18, 0.45) * side)
        left, top = (float(value) for value in rng.uniform(0, side - size, 2))
        box = [left, top, left + size, top + size]
        if any(_overlap(box, other) for _, other in shapes):
            continue
        label, colour = int(rng.integers(3)), tuple(int(value) for value in rng.integers(0, 256, 3))
        shapes.append((label, _draw(drawing, label, box, colour)))
    return picture, shapes


def _draw(drawing: ImageDraw.ImageDraw, label: int, box: list[float], colour: tuple[int, ...]) -> list[float]:
    """Draw a shape into a square, and return its box."""
    left, top, right, _ = box
    if label == 0:
        drawing.ellipse(box, fill=colour, outline="black")
        return box
    if label == 1:
        drawing.rectangle(box, fill=colour, outline="black")
        return box
    height = (right - left) * math.sqrt(3) / 2
    corners = [(left, top + height), (right, top + height), ((left + right) / 2, top)]
    drawing.polygon(corners, fill=colour, outline="black")
    return [left, top, right, top + height]


def _overlap(box: list[float], other: list[float]) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
