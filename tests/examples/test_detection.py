"""The detection example: anchors, matching and losses are torchvision's, mAP is COCO's, graphs convert."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detection.anchors import Anchors, decoded, encoded
from detection.coco import CocoData
from detection.model import small_ssdlite, ssdlite320
from detection.shapes import CLASS_NAMES, draw_coco_folder
from detection.task import DetectionTask, Ssdlite320Task, detections, matched
from torch import Tensor
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from ofa.common.errors import UserError
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.tasks import output_kind
from ofa.graph.convert import make_elastic

pytest.importorskip("pycocotools")
CPU = torch.device("cpu")
SMALL = DetectionTask.anchors


@pytest.fixture
def task() -> DetectionTask:
    return DetectionTask(LossSettings(0.0, 1.0))


def made_targets(num_images: int = 3, seed: int = 0) -> Tensor:
    """Return one to three boxes for each image, padded to four rows."""
    rng = np.random.default_rng(seed)
    targets = torch.full((num_images, 4, 5), -1.0)
    for rows in targets:
        for row in range(int(rng.integers(1, 4))):
            corner, size = rng.uniform(0, 0.6, 2), rng.uniform(0.15, 0.4, 2)
            values = [float(rng.integers(3)), *corner, *(corner + size)]
            rows[row] = torch.tensor(values)
    return targets


def test_default_boxes_are_those_of_torchvision() -> None:
    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    with torch.no_grad():
        maps = list(network.backbone(torch.zeros(1, 3, 320, 320)).values())
    (expected,) = network.anchor_generator(ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)]), maps)
    boxes = Ssdlite320Task.anchors.boxes(len(expected), CPU)
    torch.testing.assert_close(320 * boxes, expected)
    with torch.no_grad():
        assert small_ssdlite().eval()(torch.zeros(2, 3, 96, 96)).shape == (2, SMALL.num_boxes(96), 8)
    with pytest.raises(UserError, match=r"outputs are of 3234 boxes; maps with strides \(8, 16, 32\)"):
        SMALL.boxes(3234, CPU)


def test_offsets_are_those_of_torchvision() -> None:
    anchors, coder = SMALL.boxes(SMALL.num_boxes(64), CPU), BoxCoder((10.0, 10.0, 5.0, 5.0))
    corners = torch.rand(len(anchors), 2, generator=torch.Generator().manual_seed(0)) / 2
    boxes = torch.cat([corners, corners + 0.3], 1)
    offsets = encoded(boxes, anchors)
    torch.testing.assert_close(offsets, coder.encode_single(boxes, anchors), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decoded(offsets, anchors), boxes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_matching_and_loss_are_those_of_torchvision(task: DetectionTask, seed: int) -> None:
    targets, anchors = made_targets(seed=seed), SMALL.boxes(SMALL.num_boxes(96), CPU)
    outputs = torch.randn(3, len(anchors), 8, generator=torch.Generator().manual_seed(seed))
    labels, boxes = matched(targets, anchors)
    own, matches = [], []
    for rows, own_labels, own_boxes in zip(targets, labels, boxes, strict=True):
        rows = rows[rows[:, 0] >= 0]
        indices = SSDMatcher(0.5)(box_iou(rows[:, 1:], anchors))
        expected = torch.where(indices >= 0, rows[:, 0][indices.clamp(min=0)].long() + 1, 0)
        assert torch.equal(own_labels, expected)
        assert torch.equal(own_boxes[indices >= 0], rows[:, 1:][indices[indices >= 0]])
        own.append({"boxes": rows[:, 1:], "labels": rows[:, 0].long() + 1})
        matches.append(indices)
    ssd: Any = SimpleNamespace(box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3)
    parts = {"bbox_regression": outputs[..., :4], "cls_logits": outputs[..., 4:]}
    losses = SSD.compute_loss(ssd, own, parts, [anchors] * 3, matches)
    torch.testing.assert_close(task.loss(outputs, targets), sum(losses.values()), rtol=1e-4, atol=1e-4)


def test_images_without_boxes_show_background_alone(task: DetectionTask) -> None:
    outputs = torch.zeros(2, SMALL.num_boxes(32), 8, requires_grad=True)
    for targets in (torch.full((2, 3, 5), -1.0), torch.zeros(2, 0, 5)):
        outputs.grad = None
        task.loss(outputs, targets).backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None
        # Background more, classes less; no box has offsets.
        assert float(outputs.grad[..., 4].sum()) < 0 < float(outputs.grad[..., 5:].sum())
        assert not outputs.grad[..., :4].any()


def test_a_teacher_is_followed_where_it_sees_something(task: DetectionTask) -> None:
    teacher = torch.zeros(1, SMALL.num_boxes(32), 8)
    teacher[..., 4] = 8.0
    teacher[0, 7] = torch.tensor([1.0, -1.0, 0.5, 0.5, 0.0, 9.0, 0.0, 0.0])
    outputs = teacher.clone().requires_grad_()
    task.soft_loss(outputs, teacher).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None and float(outputs.grad.abs().max()) < 1e-6
    other = torch.zeros_like(teacher).requires_grad_()
    loss = task.soft_loss(other, teacher, 2.0)
    torch.testing.assert_close(loss, 2 * task.soft_loss(other, teacher))
    loss.backward()  # type: ignore[no-untyped-call]
    assert other.grad is not None
    strength = other.grad.abs().sum(-1)[0]
    assert int(strength.argmax()) == 7 and float(strength[7]) > 20 * float(strength[8])


def perfect_outputs(targets: Tensor, anchors: Anchors) -> Tensor:
    boxes = anchors.boxes(anchors.num_boxes(96), CPU)
    labels, matched_boxes = matched(targets, boxes)
    logits = 12.0 * torch.nn.functional.one_hot(labels, 4).float()
    return torch.cat([encoded(matched_boxes, boxes), logits], -1)


def test_the_metrics_are_those_of_coco(task: DetectionTask) -> None:
    targets = made_targets(8)
    outputs = perfect_outputs(targets, SMALL)
    meter = task.meter()
    meter.add(outputs[:5], targets[:5])
    meter.add(outputs[5:], targets[5:])
    assert meter.values() == pytest.approx({"map": 1.0, "map_50": 1.0})
    # Moved by a quarter of its width, a box overlaps the right one by 0.6: at 0.5, 0.55 and 0.6 of ten.
    alone = torch.full((1, 1, 5), -1.0)
    alone[0, 0] = torch.tensor([1.0, 0.3, 0.3, 0.7, 0.7])
    moved = alone.clone()
    moved[0, 0, [1, 3]] += 0.0995
    meter = task.meter()
    meter.add(perfect_outputs(moved, SMALL), alone)
    assert meter.values() == pytest.approx({"map": 0.3, "map_50": 1.0})
    meter = task.meter()
    background = torch.tensor([0.0, 0.0, 0.0, 0.0, 30.0, 0.0, 0.0, 0.0])
    meter.add(background.expand(1, SMALL.num_boxes(96), 8), alone)
    assert meter.values() == {"map": 0.0, "map_50": 0.0}
    empty = task.meter()
    empty.add(outputs[:2], torch.full((2, 1, 5), -1.0))
    with pytest.raises(UserError, match="No image of this split has a box"):
        empty.values()
    assert {metric.name for metric in task.metrics} == set(meter.values())


def test_one_object_is_detected_once() -> None:
    targets = made_targets(4)
    found = detections(perfect_outputs(targets, SMALL), SMALL, min_score=0.5)
    for rows, (boxes, scores, labels) in zip(targets, found, strict=True):
        rows = rows[rows[:, 0] >= 0]
        assert len(boxes) <= len(rows) and bool((scores > 0.99).all())
        overlaps = box_iou(boxes, rows[:, 1:])
        assert float(overlaps.max(1).values.min()) > 0.99
        assert torch.equal(labels, rows[overlaps.argmax(1), 0].long())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"pycocotools, which is not installed: pip install -e '\.\[detection\]'"
    ):
        DetectionTask(LossSettings(0.0, 1.0))


@pytest.mark.parametrize(("make", "side"), [(small_ssdlite, 64), (ssdlite320, 64)])
def test_the_detectors_are_elastic(make: Any, side: int) -> None:
    torch.manual_seed(0)
    detector, images = make(3).eval(), torch.rand(2, 3, side, side)
    supernet = make_elastic(detector, images).eval()
    space = supernet.space
    with torch.no_grad():
        assert torch.equal(supernet(images, space.largest), detector(images))
        for genome in space.sample(3, np.random.default_rng(0)):
            config = space.config(genome)
            network = supernet.extract(config).eval()
            assert torch.equal(supernet(images, config), network(images))
            assert network(images).shape == detector(images).shape
    # Every layer but the outputs varies.
    assert float(supernet.costs["macs"](space.genomes([space.smallest]))[0]) < 0.2 * float(
        supernet.costs["macs"](space.genomes([space.largest]))[0]
    )


def test_its_outputs_are_of_a_kind_of_their_own(tmp_path: Path) -> None:
    root = draw_coco_folder(tmp_path / "shapes", num_train=12, num_test=4, side=40)
    from ofa.data import DataSettings, load_data

    settings = DataSettings(
        "own", str(root), source="detection.coco:CocoData", image_size=32, validation_size=4
    )
    data = load_data(settings)
    assert isinstance(data, CocoData) and data.info.class_names == CLASS_NAMES
    assert data.info.task == output_kind(data.info.task) == "detection.task:DetectionTask"
