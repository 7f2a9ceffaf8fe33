"""Segmentation: losses of labelled pixels, metrics by hand, and equal treatment of images and masks."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa.common.errors import UserError
from ofa.common.metric import MEAN_IOU, TOP1
from ofa.data.masks import IGNORED, MaskData
from ofa.data.memory import MemoryData
from ofa.data.settings import DataSettings
from ofa.data.shapes import CLASS_NAMES, draw_shapes
from ofa.data.sources import describe_data, load_data
from ofa.evaluation.confusion import PixelConfusion
from ofa.evaluation.evaluate import measure, measure_confusion, measure_with_loss
from ofa.evaluation.segmentation import SegmentationTask
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.soft_losses import kl_divergence
from ofa.evaluation.task import ClassificationTask
from ofa.evaluation.tasks import task_of

CPU = torch.device("cpu")
TASK = SegmentationTask(LossSettings(0.0, 1.0, "kl_divergence", 2.0))


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_mean_of_the_labelled_pixels() -> None:
    logits, masks = random_logits(2, 3, 4, 5), torch.arange(40).view(2, 4, 5) % 3
    masks[0, :2] = IGNORED
    pixels = logits.movedim(1, -1).reshape(-1, 3)
    labels = masks.flatten()
    known = labels != IGNORED
    torch.testing.assert_close(TASK.loss(logits, masks), F.cross_entropy(pixels[known], labels[known]))
    nothing = torch.full_like(masks, IGNORED)
    assert float(TASK.loss(logits, nothing)) == 0.0
    weights = (1.0, 2.0, 0.5)
    weighted = SegmentationTask(LossSettings(0.0, 1.0), class_weights=weights).loss(logits, masks)
    each = F.cross_entropy(pixels[known], labels[known], reduction="none")
    torch.testing.assert_close(weighted, (each * torch.tensor(weights)[labels[known]]).mean())


def test_logits_of_another_size_are_enlarged_to_the_mask() -> None:
    logits, masks = random_logits(2, 3, 4, 4), torch.randint(0, 3, (2, 8, 12))
    whole = F.interpolate(logits, size=(8, 12), mode="bilinear", align_corners=False)
    assert float(TASK.loss(logits, masks)) == float(TASK.loss(whole, masks))
    assert measure(lambda images: logits, [(logits, masks)], TASK) == measure(
        lambda images: whole, [(logits, masks)], TASK
    )


def test_the_soft_loss_is_the_mean_of_all_pixels() -> None:
    student, teacher = random_logits(2, 3, 4, 5), random_logits(2, 3, 4, 5, seed=1)
    by_hand = [
        kl_divergence(student[n, :, y, x][None] / 2, teacher[n, :, y, x][None] / 2)
        for n in range(2)
        for y in range(4)
        for x in range(5)
    ]
    found = TASK.soft_loss(student, teacher, weight=0.5)
    torch.testing.assert_close(found, 0.5 * 4 * torch.stack(by_hand).mean())


def test_metrics_are_those_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 1, 1], [2, 2, IGNORED, 1]]])
    answers = torch.tensor([[[0, 1, 1, 1], [2, 0, 2, 1]]])
    logits = F.one_hot(answers, 5).movedim(-1, 1).float()
    # Classes 0 to 2: 1 of 3, 3 of 4, 1 of 2 pixels of either; 3 and 4 do not occur.
    expected = {"mean_iou": (1 / 3 + 3 / 4 + 1 / 2) / 3, "pixel_accuracy": 5 / 7}
    halves = [(logits[..., :2], labels[..., :2]), (logits[..., 2:], labels[..., 2:])]
    assert measure(lambda images: images, halves, TASK) == pytest.approx(expected)
    assert [metric.name for metric in TASK.metrics] == list(expected) and TASK.metric == MEAN_IOU
    assert float(TASK.batch_score(logits, labels)) == pytest.approx(expected["mean_iou"])
    assert measure(lambda images: images, [], TASK) == {"mean_iou": 0.0, "pixel_accuracy": 0.0}
    confusion = measure_confusion(lambda images: images, halves, list("abcde"), TASK)
    assert isinstance(confusion, PixelConfusion) and confusion.total == 7
    assert [str(each) for each in confusion.worst_classes(1)] == ["a: IoU 33.3 %"]
    values = confusion.to_dict()
    assert values["num_pixels"] == 7 and values["class_accuracy"] == [1 / 3, 3 / 4, 1 / 2, None, None]


def test_a_share_of_overlap_has_no_standard_error() -> None:
    assert MEAN_IOU.standard_error(0.5, 100) is None and TOP1.standard_error(0.5, 100) is not None
    assert MEAN_IOU.show_with_error(0.5, 100) == "50.00 %" and MEAN_IOU.basis(100) == "100 images"


def coloured_set(**settings: object) -> MaskData:
    """Pictures whose values are twice their masks."""
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.integers(0, 100, (30, 6, 8)).astype(np.uint8))
    pictures = 2 * masks[:, None].expand(-1, 3, -1, -1).contiguous()
    values = {"validation_size": 5, "crop_padding": 2, "horizontal_flip": True, **settings}
    names = tuple(map(str, range(100)))
    data = DataSettings("made up", **values)  # type: ignore[arg-type]
    return MaskData(data, names, (pictures, masks), (pictures[:4], masks[:4]))


def pixels_of(data: MemoryData, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.info.mean, data.info.std))
    return ((images * std + mean) * 255).round()


def test_masks_change_like_their_images() -> None:
    data = coloured_set()
    for images, masks in data.train_batches(10, 3, 0, CPU):
        shown, inside = pixels_of(data, images)[:, 0], masks != IGNORED
        assert masks.dtype == torch.int64 and masks.shape == (10, 6, 8)
        assert torch.equal(shown[inside], 2.0 * masks[inside]) and (shown[~inside] == 0).all()
        assert 0 < (~inside).sum() < inside.sum()
    again = [masks for _, masks in data.train_batches(10, 3, 0, CPU)]
    repeated = [masks for _, masks in data.train_batches(10, 3, 0, CPU)]
    assert len(again) == 2 and all(map(torch.equal, again, repeated))
    assert not torch.equal(again[0], next(data.train_batches(10, 4, 0, CPU))[1])


def test_classes_are_counted_in_pixels_and_weigh_the_loss() -> None:
    masks = torch.zeros(10, 2, 2, dtype=torch.uint8)
    masks[:, 0, 0], masks[:, 1, 1] = 1, IGNORED
    pictures = torch.arange(10 * 3 * 4).view(10, 3, 2, 2).byte()
    settings = DataSettings("made up", validation_size=2, balance="loss")
    data = MaskData(settings, ("often", "rare"), (pictures, masks), (pictures, masks))
    assert data.class_counts("train") == (16, 8)
    task = task_of(data, LossSettings(0.0, 1.0))
    assert isinstance(task, SegmentationTask)
    loss = float(task.loss(torch.zeros(1, 2, 2, 2), masks[:1].long()))
    # Weights inverse to the pixels, with mean 1 over the pixels: 0.75 and 1.5.
    assert loss == pytest.approx(math.log(2) * (0.75 * 2 + 1.5) / 3)


@pytest.mark.parametrize("settings", [{"balance": "sampling"}, {"stratified": True}])
def test_settings_of_images_with_a_class_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(
        UserError, match=f"data.{next(iter(settings))} is .* images with masks are of no class"
    ):
        coloured_set(**settings)


def test_the_task_is_that_of_the_images() -> None:
    data = coloured_set()
    assert isinstance(task_of(data), SegmentationTask)
    data.info = dataclasses.replace(data.info, task="classification")
    assert isinstance(task_of(data), ClassificationTask)
    data.info = dataclasses.replace(data.info, task="segmentatoin")
    with pytest.raises(UserError, match="Unknown task 'segmentatoin'"):
        task_of(data)


def test_shapes_are_drawn_by_seed_and_all_classes_occur() -> None:
    pictures, masks = draw_shapes(20, seed=3)
    assert pictures.shape == (20, 3, 32, 32) and masks.shape == (20, 32, 32)
    assert np.unique(masks).tolist() == list(range(len(CLASS_NAMES)))
    again = draw_shapes(20, seed=3)
    assert torch.equal(again[0], pictures) and torch.equal(again[1], masks)
    assert not torch.equal(draw_shapes(20, seed=4)[1], masks)
    # The colour changes where the class does.
    inner = masks[:, :, 1:] == masks[:, :, :-1]
    steps = (pictures[..., 1:].float() - pictures[..., :-1].float()).abs().sum(1)
    assert steps[~inner].mean() > 4 * steps[inner].mean()


def test_the_embedded_set_loads() -> None:
    data = load_data("shapes")
    assert describe_data(DataSettings("shapes")) == (3, 4)
    assert (data.size("train"), data.size("validation"), data.size("test")) == (1600, 400, 500)
    batches = data.batches("test", 100, CPU, 200)
    values, loss = measure_with_loss(
        lambda images: torch.zeros(len(images), 4, 32, 32), batches, task_of(data)
    )
    assert loss == pytest.approx(math.log(4), rel=1e-5)
    assert values["mean_iou"] == pytest.approx(values["pixel_accuracy"] / 4)
