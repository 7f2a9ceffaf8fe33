"""torchvision's segmentation networks: converted, with new classes, trained by pixels at every size."""

from __future__ import annotations

import pytest
import torch

from ofa.data.settings import SEGMENTATION
from ofa.evaluation.segmentation import SegmentationTask
from ofa.evaluation.settings import LossSettings
from ofa.graph import make_elastic
from ofa.graph.adaptation import adapt_to_images
from ofa.graph.factory import load_model

SIDE, NUM_CLASSES = 64, 4


@pytest.mark.parametrize(
    ("name", "num_genes"), [("lraspp_mobilenet_v3_large", 37), ("deeplabv3_mobilenet_v3_large", 43)]
)
def test_they_are_elastic_and_learn(name: str, num_genes: int) -> None:
    torch.manual_seed(0)
    network = load_model(f"torchvision:{name}").eval()
    report = adapt_to_images(network, side=SIDE, in_channels=3, num_classes=NUM_CLASSES, task=SEGMENTATION)
    assert report.has_new_classifier
    images = torch.randn(4, 3, SIDE, SIDE)
    supernet = make_elastic(network, images[:2], name=name).eval()
    space = supernet.space
    assert len(space.genes) == num_genes
    with torch.no_grad():
        assert torch.equal(supernet(images, space.largest), network(images))
        for config in (space.largest, space.smallest):
            small = supernet.extract(config).eval()
            outputs = small(images)
            assert outputs.shape == (4, NUM_CLASSES, SIDE, SIDE)
            assert torch.equal(outputs, supernet(images, config))
    task = SegmentationTask(LossSettings(label_smoothing=0.0, distillation_ratio=1.0))
    masks = (images[:, 0] > 0).long() * (NUM_CLASSES - 1)
    optimizer = torch.optim.SGD(supernet.train().parameters(), 0.02)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        for config in (space.largest, space.smallest):
            loss = task.loss(supernet(images, config), masks)
            torch.autograd.backward(loss)
        losses.append(float(loss.detach()))
        optimizer.step()
    assert losses[-1] < losses[0]
