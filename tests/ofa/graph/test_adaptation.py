"""Networks for images of other classes and channels: what is new, what stays, and what every refusal says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from ofa.common.errors import UserError
from ofa.graph.adaptation import adapt_to_images


class TwoHeads(nn.Module):
    """Two classifiers whose outputs are averaged, as in distilled transformers."""

    def __init__(self, in_channels: int = 3, classes: int = 16) -> None:
        super().__init__()
        # As wide as there are classes: no head, though it could be taken for one.
        self.body = nn.Sequential(nn.Conv2d(in_channels, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head, self.second_head = nn.Linear(16, classes), nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images).flatten(1)
        outputs: Tensor = (self.head(features) + self.second_head(features)) / 2
        return outputs


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_network_that_fits_is_unchanged() -> None:
    network = TwoHeads().eval()
    before = state(network)
    report = adapt_to_images(network, side=8, in_channels=3, num_classes=16)
    assert report.text == "6 of 6 tensors" and not report.new_names and not report.has_new_classifier
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_classifier_is_new_and_the_rest_stays() -> None:
    network = models.mobilenet_v2(num_classes=1000).eval()
    before = state(network)
    report = adapt_to_images(network, side=32, in_channels=3, num_classes=5, seed=1)
    assert report.new_names == report.classifier_names == ("classifier.1.weight", "classifier.1.bias")
    assert "new: classifier (1000 → 5 classes)" in report.text and report.has_new_classifier
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    classifier = network.classifier[1]
    assert isinstance(classifier, nn.Linear) and classifier.out_features == 5
    kept = {name: tensor for name, tensor in network.state_dict().items() if name not in report.new_names}
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())
    again = models.mobilenet_v2(num_classes=1000).eval()
    adapt_to_images(again, side=32, in_channels=3, num_classes=5, seed=1)
    assert torch.equal(again.classifier[1].weight, classifier.weight)


def test_a_convolution_can_be_the_classifier() -> None:
    network = models.squeezenet1_1(num_classes=7).eval()
    report = adapt_to_images(network, side=64, in_channels=3, num_classes=4)
    assert report.new_names == ("classifier.1.weight", "classifier.1.bias")
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 4)


def test_heads_that_make_the_outputs_together_are_both_new() -> None:
    network = TwoHeads(classes=10).eval()
    report = adapt_to_images(network, side=8, in_channels=3, num_classes=4)
    assert [name for name in report.new_names if name.endswith("weight")] == [
        "head.weight",
        "second_head.weight",
    ]


def test_grey_images_give_what_they_give_in_colour() -> None:
    network = TwoHeads().eval()
    grey = torch.rand(2, 1, 8, 8)
    expected = network(grey.expand(-1, 3, -1, -1))
    report = adapt_to_images(network, side=8, in_channels=1, num_classes=16)
    assert report.adapted_names == ("body.0.weight",)
    assert report.text == "5 of 6 tensors; adapted: first convolution (3 → 1 channels)"
    torch.testing.assert_close(network(grey), expected)


@pytest.mark.parametrize(
    ("network", "side", "channels", "text"),
    [
        (TwoHeads(), 2, 3, r"TwoHeads cannot take images \(2, 3, 2, 2\): RuntimeError: "),
        (TwoHeads(), 8, 4, "channels, and no first convolution could be adapted to the 4"),
        (nn.Conv2d(3, 4, 1), 8, 3, r"Conv2d returns \(2, 4, 8, 8\) for 2 images; expected logits"),
        (nn.Flatten(), 2, 3, "Flatten tells 12 classes, and the images have 5; no layer .*none was tried"),
    ],
)
def test_what_does_not_fit_is_explained(network: nn.Module, side: int, channels: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        adapt_to_images(network.eval(), side=side, in_channels=channels, num_classes=5)


def test_further_outputs_in_training_are_refused() -> None:
    network = models.googlenet(num_classes=3, aux_logits=True, init_weights=False).eval()
    with pytest.raises(UserError, match=r"GoogLeNetOutputs in training mode; .*aux_logits=false"):
        adapt_to_images(network, side=64, in_channels=3, num_classes=3)
