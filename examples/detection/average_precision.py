"""`average_precisions`: the mean average precision of COCO, by pycocotools."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ofa.common.errors import UserError

# The tool's areas are in pixels; shares of an image are counted as if it had so many.
_SIDE = 1000.0


class Detections(NamedTuple):
    """What is detected in one image: boxes (n, 4) in shares of the image, scores (n,), classes (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def check_installed() -> None:
    """Raise the error if pycocotools is not installed."""
    if importlib.util.find_spec("pycocotools") is None:
        raise UserError(
            "mAP needs the package pycocotools, which is not installed: pip install -e '.[detection]'"
        )


def average_precisions(found: Sequence[Detections], targets: Sequence[Tensor]) -> tuple[float, float]:
    """Return the mean average precision over overlaps of 0.5 to 0.95, and that at 0.5; both 0..1.

    Args:
        found: detections in each image.
        targets: classes and boxes (n, 5) of each image.

    Raises:
        UserError: if pycocotools is not installed, or there is no box in any image.
    """
    check_installed()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = sorted({int(label) for rows in targets for label in rows[:, 0]})
    if not labels:
        raise UserError("No image of this split has a box: mAP is not defined. Take a split with boxes.")
    annotations: list[dict[str, Any]] = [
        {"image_id": image, "category_id": int(row[0]), "bbox": _corner_and_size(row[1:]), "iscrowd": 0}
        for image, rows in enumerate(targets)
        for row in rows.tolist()
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation |= {"id": number, "area": annotation["bbox"][2] * annotation["bbox"][3]}
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(len(targets))],
        "categories": [{"id": label} for label in labels],
        "annotations": annotations,
    }
    rows = [
        [image, *_corner_and_size(box), score, label]
        for image, (boxes, scores, found_labels) in enumerate(found)
        for box, score, label in zip(boxes.tolist(), scores.tolist(), found_labels.tolist(), strict=True)
    ]
    if not rows:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # It prints what it does.
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(np.array(rows, np.float64)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # Overlaps, recalls, classes, areas, numbers of detections: all areas, and up to 100 detections.
    precisions = evaluation.eval["precision"][:, :, :, 0, -1]
    return _mean(precisions), _mean(precisions[0])


def _mean(precisions: np.ndarray) -> float:
    known = precisions[precisions > -1]
    return float(known.mean()) if known.size else 0.0


def _corner_and_size(box: Sequence[float]) -> list[float]:
    left, top, right, bottom = (_SIDE * value for value in box)
    return [left, top, right - left, bottom - top]
