"""`DetectionTask`: matching, losses, distillation and mAP of detectors with one output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from detection.anchors import Anchors, decoded, encoded
from detection.average_precision import Detections, average_precisions, check_installed
from ofa.common.metric import Metric
from ofa.evaluation import Task
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.task import Meter

MAP = Metric("map", "mAP", counts_images=False)
MAP_50 = Metric("map_50", "mAP at IoU 0.5", counts_images=False)
MIN_OVERLAP = 0.5
NEGATIVES_PER_POSITIVE = 3
MIN_SCORE, MAX_NMS_OVERLAP, MAX_CANDIDATES, MAX_DETECTIONS = 0.02, 0.5, 200, 100


class DetectionTask(Task):
    """Outputs (n, num_anchors, 5 + classes) of a `Detector`; targets (n, max_boxes, 5).

    A row of the targets is a class, and a box (x1, y1, x2, y2) in shares of the image; rows of -1 are none.
    """

    metrics = (MAP, MAP_50)
    anchors = Anchors((8, 16, 32), 0.15, 0.6)

    def __init__(self, settings: LossSettings, *, class_weights: Sequence[float] | None = None) -> None:
        """Take the settings of the losses; classes have no weights.

        Raises:
            UserError: if pycocotools is not installed.
        """
        check_installed()
        self._smoothing = settings.label_smoothing

    def meter(self) -> Meter:
        """Return a new meter of the mean average precision."""
        return DetectionMeter(self.anchors)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of SSD: of offsets, and of classes with the hardest background boxes alone."""
        anchors = self.anchors.boxes(outputs.shape[1], outputs.device)
        labels, boxes = matched(targets, anchors)
        is_positive = labels > 0
        num_positives = is_positive.sum().clamp(min=1)
        offsets = encoded(boxes, anchors)
        box_losses = F.smooth_l1_loss(outputs[..., :4], offsets, reduction="none").sum(-1)
        class_losses = F.cross_entropy(
            outputs[..., 4:].flatten(0, 1),
            labels.flatten(),
            reduction="none",
            label_smoothing=self._smoothing,
        ).view_as(labels)
        with torch.no_grad():
            # The rank of each background box among those of its image, the hardest first.
            hardness = class_losses.masked_fill(is_positive, -torch.inf)
            ranks = hardness.argsort(1, descending=True).argsort(1)
            is_hard = ranks < NEGATIVES_PER_POSITIVE * is_positive.sum(1, keepdim=True).clamp(min=1)
        used_losses = (class_losses * (is_positive | is_hard)).sum()
        return ((box_losses * is_positive).sum() + used_losses) / num_positives

    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return the weighted distance from a teacher; where that sees an object it counts for more."""
        teacher = teacher_outputs.detach()
        shares = teacher[..., 4:].softmax(-1)
        objectness = 1 - shares[..., 0]
        importance = objectness + 0.01
        class_losses = -(shares * outputs[..., 4:].log_softmax(-1)).sum(-1)
        box_losses = F.smooth_l1_loss(outputs[..., :4], teacher[..., :4], reduction="none").sum(-1)
        total = (importance * class_losses + objectness * box_losses).sum()
        return weight * total / importance.sum()


class Ssdlite320Task(DetectionTask):
    """`DetectionTask` for the feature maps of torchvision's SSDlite320."""

    anchors = Anchors((16, 32, 64, 128, 256, 512), 0.2, 0.95)


class DetectionMeter(Meter):
    """Keeps what is detected, and what is there."""

    def __init__(self, anchors: Anchors) -> None:
        """Begin with no images."""
        self._anchors = anchors
        self._found: list[Detections] = []
        self._targets: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the detections in a batch."""
        self._found += detections(outputs, self._anchors)
        self._targets += [rows[rows[:, 0] >= 0].cpu() for rows in targets]

    def values(self) -> dict[str, float]:
        """Return the mean average precision, over overlaps of 0.5 to 0.95 and at 0.5."""
        over_all, at_half = average_precisions(self._found, self._targets)
        return {MAP.name: over_all, MAP_50.name: at_half}


@torch.no_grad()
def matched(targets: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each anchor shall tell.

    An anchor belongs to the box that it overlaps most, if by `MIN_OVERLAP`; and the best anchor of each box
    to that box in any case.

    Args:
        targets: classes and boxes (n, max_boxes, 5); rows of -1 are none.
        anchors: boxes (num_anchors, 4).

    Returns:
        Labels (n, num_anchors), 0 for the background and the class plus 1 for others, and the box of each
        anchor (n, num_anchors, 4).
    """
    classes, boxes = targets[..., 0].long(), targets[..., 1:]
    if not boxes.shape[1]:
        labels = torch.zeros(len(targets), len(anchors), dtype=torch.int64, device=targets.device)
        return labels, anchors.expand(len(targets), -1, -1)
    overlaps = _overlaps(boxes, anchors).masked_fill(classes[..., None] < 0, -1.0)
    best_overlap, best_box = overlaps.max(1)
    best_anchor = overlaps.argmax(2)
    for row in range(boxes.shape[1]):
        is_box = classes[:, row] >= 0
        images, columns = torch.arange(len(boxes), device=boxes.device)[is_box], best_anchor[is_box, row]
        best_overlap[images, columns] = 2.0
        best_box[images, columns] = row
    labels = torch.where(best_overlap >= MIN_OVERLAP, classes.gather(1, best_box) + 1, 0)
    return labels, boxes.gather(1, best_box[..., None].expand(-1, -1, 4))


def _overlaps(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the intersection over union of boxes (n, m, 4) and anchors (a, 4): (n, m, a)."""
    top_left = torch.maximum(boxes[:, :, None, :2], anchors[:, :2])
    sizes = (torch.minimum(boxes[:, :, None, 2:], anchors[:, 2:]) - top_left).clamp(min=0)
    shared = sizes.prod(-1)
    areas, anchor_areas = ((b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (boxes, anchors))
    return shared / (areas[..., None] + anchor_areas - shared).clamp(min=1e-12)


@torch.no_grad()
def detections(outputs: Tensor, anchors: Anchors, min_score: float = MIN_SCORE) -> list[Detections]:
    """Return what is detected in each image: boxes that overlap less than others of their class, on the CPU.

    Args:
        outputs: outputs of a `Detector` (n, num_anchors, 5 + classes).
        anchors: default boxes of the task.
        min_score: smallest probability of a detection.
    """
    outputs = outputs.float().cpu()
    boxes = decoded(outputs[..., :4], anchors.boxes(outputs.shape[1], outputs.device))
    scores = outputs[..., 4:].softmax(-1)[..., 1:]
    found = []
    for image_boxes, image_scores in zip(boxes, scores, strict=True):
        best, indices = image_scores.flatten().topk(min(MAX_CANDIDATES, image_scores.numel()))
        indices = indices[best >= min_score]
        rows, labels = indices // scores.shape[-1], indices % scores.shape[-1]
        values = best[best >= min_score]
        kept = batched_nms(image_boxes[rows], values, labels, MAX_NMS_OVERLAP)[:MAX_DETECTIONS]
        found.append(Detections(image_boxes[rows[kept]], values[kept], labels[kept]))
    return found
