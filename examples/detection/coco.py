"""`CocoData`: a folder in COCO's format as images in memory with padded boxes."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ofa.common.errors import UserError
from ofa.data import DataSettings, TensorData

TASK = "detection.task:DetectionTask"
MAX_BYTES = 4 * 10**9
_MAX_EXAMPLES = 3


class CocoData(TensorData):
    """Images of `train/` and `val/`, each with `images/` and `annotations.json`; `val/` is the final test.

    Images are scaled to squares of `settings.image_size` pixels. Targets are float32 (n, max_boxes, 5): the
    position of the class in the order of the ids, and the box (x1, y1, x2, y2) in shares of the image; rows
    of -1 are none. An image without boxes shows background alone. Boxes of crowds are left out.
    """

    def __init__(self, settings: DataSettings, task: str = TASK) -> None:
        """Read all files.

        Args:
            settings: settings of the images: folder, size and split.
            task: class of the task.

        Raises:
            UserError: for files that are missing or unreadable, and naming everything in the annotations
                that does not fit, with some examples of each kind.
        """
        if settings.root is None:
            raise UserError("There is no folder of images; give data.root=DIR.")
        root = Path(settings.root).expanduser()
        parts = [_Part(root / name) for name in ("train", "val")]
        if parts[0].classes != parts[1].classes:
            raise UserError(
                f"The categories of train/ and val/ in {root} differ: {dict(parts[0].classes)} and "
                f"{dict(parts[1].classes)}; expected the same ids and names."
            )
        num_boxes = max(part.max_boxes for part in parts)
        train, test = (part.tensors(settings.image_size, num_boxes) for part in parts)
        super().__init__(settings, tuple(parts[0].classes.values()), train, test, task)


class _Part:
    """One split of a folder: its annotations, checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        values = _read_json(folder / "annotations.json")
        self.classes = {int(c["id"]): str(c["name"]) for c in sorted(values["categories"], key=_id)}
        self.images = {image["id"]: image for image in values["images"]}
        self._problems: dict[str, list[str]] = defaultdict(list)
        self.boxes: dict[Any, list[tuple[int, list[float]]]] = {key: [] for key in self.images}
        names = Counter(image["file_name"] for image in values["images"])
        self._problems["images are listed twice"] += [name for name, count in names.items() if count > 1]
        labels = {key: label for label, key in enumerate(self.classes)}
        for annotation in values["annotations"]:
            self._add(annotation, labels)
        self._check_files()
        if not self.images:
            self._problems["images are not there at all"].append("the list of images is empty")
        elif not any(self.boxes.values()):
            self._problems["boxes are not there at all"].append("no image has one")
        self._raise_problems()

    @property
    def max_boxes(self) -> int:
        """Largest number of boxes in an image."""
        return max(map(len, self.boxes.values()))

    def _add(self, annotation: Mapping[str, Any], labels: Mapping[int, int]) -> None:
        """Add the box of an annotation, or a problem."""
        name = f"annotation {annotation.get('id', '?')}"
        if annotation.get("iscrowd"):
            return
        image, label = self.images.get(annotation["image_id"]), labels.get(annotation["category_id"])
        if image is None:
            self._problems["boxes are of unknown images"].append(f"{name}: {annotation['image_id']!r}")
            return
        if label is None:
            text = f"{name}: {annotation['category_id']!r}"
            self._problems[f"boxes are of categories other than {list(labels)}"].append(text)
            return
        box = _shares(annotation.get("bbox"), image)
        if isinstance(box, str):
            self._problems[box].append(f"{name} of {image['file_name']}: {annotation.get('bbox')}")
        else:
            self.boxes[image["id"]].append((label, box))

    def _check_files(self) -> None:
        """Compare the files with their annotations, without decoding them."""
        for image in self.images.values():
            path = self.folder / "images" / image["file_name"]
            if not path.resolve().is_relative_to((self.folder / "images").resolve()):
                self._problems["files are outside of images/"].append(image["file_name"])
                continue
            try:
                with Image.open(path) as picture:
                    size = ImageOps.exif_transpose(picture).size if _is_turned(picture) else picture.size
            except OSError as error:
                self._problems["images cannot be read"].append(f"{image['file_name']}: {_reason(error)}")
                continue
            if size != (image["width"], image["height"]):
                text = f"{image['file_name']}: {size[0]}x{size[1]}, not {image['width']}x{image['height']}"
                self._problems["images have another size than their annotations say"].append(text)

    def _raise_problems(self) -> None:
        lines = []
        for kind, examples in self._problems.items():
            if examples:
                shown = "; ".join(examples[:_MAX_EXAMPLES])
                lines.append(f"  {len(examples)} {kind}: {shown}{'; …' * (len(examples) > _MAX_EXAMPLES)}")
        if lines:
            raise UserError(f"{self.folder / 'annotations.json'}:\n" + "\n".join(lines))

    def tensors(self, side: int, num_boxes: int) -> tuple[Tensor, Tensor]:
        """Return uint8 images (n, 3, side, side), and their boxes (n, num_boxes, 5)."""
        num_bytes = len(self.images) * 3 * side**2
        if num_bytes > MAX_BYTES:
            raise UserError(
                f"The {len(self.images)} images of {self.folder} take {num_bytes / 1e9:.1f} GB of memory at "
                f"{side} px; at most {MAX_BYTES / 1e9:.0f} are allowed. Take a smaller data.image_size."
            )
        pixels = np.empty((len(self.images), side, side, 3), np.uint8)
        targets = torch.full((len(self.images), num_boxes, 5), -1.0)
        for row, (key, image) in enumerate(self.images.items()):
            try:
                with Image.open(self.folder / "images" / image["file_name"]) as picture:
                    upright = ImageOps.exif_transpose(picture).convert("RGB")
                pixels[row] = np.asarray(upright.resize((side, side), Image.Resampling.BILINEAR))
            except OSError as error:
                raise UserError(f"{self.folder / 'images' / image['file_name']}: {_reason(error)}") from error
            for column, (label, box) in enumerate(self.boxes[key]):
                targets[row, column] = torch.tensor([label, *box])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), targets


def _read_json(path: Path) -> dict[str, Any]:
    """Return a file of annotations, whose lists have the entries that are read here."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {_reason(error)}") from error
    wanted = {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    if not isinstance(values, dict) or not all(isinstance(values.get(name), list) for name in wanted):
        raise UserError(f"{path} is no file of annotations; expected the lists {', '.join(wanted)}.")
    for name, entries in wanted.items():
        for position, item in enumerate(values[name]):
            missing = [key for key in entries if not isinstance(item, dict) or key not in item]
            if missing:
                raise UserError(f"{path}: {name}[{position}] has no {', '.join(missing)}.")
    return values


def _shares(box: Any, image: Mapping[str, Any]) -> list[float] | str:
    """Return a box (x, y, width, height) as corners in shares, cut at the edges; or what is wrong."""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    if not numbers or not all(map(math.isfinite, box)):
        return "boxes are not four numbers"
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return "boxes have no area"
    sizes = image["width"], image["height"]
    corners = [left / sizes[0], top / sizes[1], (left + width) / sizes[0], (top + height) / sizes[1]]
    cut = [min(max(value, 0.0), 1.0) for value in corners]
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return "boxes are outside of their image"
    return cut


def _id(category: Mapping[str, Any]) -> int:
    return int(category["id"])


def _is_turned(picture: Image.Image) -> bool:
    return bool(picture.getexif().get(0x0112, 1) != 1)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
