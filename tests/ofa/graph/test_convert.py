"""`make_elastic`: its settings, and what it says of networks and inputs that it cannot take."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torchvision import models

from ofa.common.errors import UserError
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.graph.capture import CaptureError
from ofa.graph.convert import NothingElasticError, make_elastic
from ofa.graph.genes import ChoiceRule

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def residual_network() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = models.ResNet(models.resnet.BasicBlock, [3, 1, 1, 1], num_classes=10)
    return network.eval()


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.b.weight = self.a.weight

    def forward(self, values: Tensor) -> Any:
        return self.head(self.b(self.a(values).relu()).relu())


class Branching(nn.Module):
    """A body that can be captured within a forward that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))
        self.other = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Any:
        maps = self.body(images)
        return self.other(maps) if maps.sum() > 0 else maps


def values_of(supernet: Any, kind: str) -> dict[str, tuple[float, ...]]:
    return {gene.part: gene.choices for gene in supernet.space.genes if gene.kind == kind}


def test_genes_of_a_residual_network() -> None:
    supernet = make_elastic(residual_network(), IMAGES, depths=(0.3, 1.0))
    assert values_of(supernet, "kernel_size") == {"conv1": (3, 5, 7)}
    assert values_of(supernet, "depth") == {"layer1": (1, 3)}
    widths = values_of(supernet, "width")
    assert widths["layer1.0.conv1"] == (16, 32, 48, 64)
    conditions = {gene.part: gene.active_if for gene in supernet.space.genes if gene.active_if}
    assert set(conditions) == {"layer1.1.conv1", "layer1.2.conv1"}
    assert conditions["layer1.2.conv1"] is not None and conditions["layer1.2.conv1"].values == (3.0,)


def test_rules_divisor_and_patterns() -> None:
    rules = (ChoiceRule("layer1.*", widths=(0.5, 1.0)), ChoiceRule("conv1", kernel_sizes=(7,)))
    supernet = make_elastic(
        residual_network(), IMAGES, divisor=32, rules=rules, exclude=["layer4"], include=["conv1", "layer1"]
    )
    assert values_of(supernet, "kernel_size") == {}
    assert values_of(supernet, "width") == {
        "conv1": (32, 64),
        **{f"layer1.{index}.conv1": (32, 64) for index in range(3)},
    }


def test_several_resolutions_and_their_costs() -> None:
    supernet = make_elastic(residual_network(), torch.randn(2, 3, 64, 64), resolutions=(32, 64))
    largest = supernet.space.largest
    small = supernet.space.read({**largest.to_dict(), "resolution": 32})
    macs = supernet.costs["macs"](supernet.space.genomes([small, largest]))
    # All but the classifier runs over four times the pixels.
    assert 4 * (macs[0] - 512 * 10) == pytest.approx(macs[1] - 512 * 10)
    with pytest.raises(UserError, match="resolution is 64"):
        supernet(IMAGES, largest)


def test_parts_of_a_network_that_cannot_be_captured() -> None:
    torch.manual_seed(0)
    network = Branching().eval()
    supernet = make_elastic(network, IMAGES).eval()
    assert supernet.graph is None
    assert set(values_of(supernet, "width")) == {"body.0"}
    assert torch.equal(supernet(IMAGES, supernet.space.largest), network(IMAGES))
    smallest = supernet.space.smallest
    extracted = supernet.extract(smallest)
    assert type(extracted) is Branching
    assert torch.equal(supernet(IMAGES, smallest), extracted(IMAGES))
    parameters = supernet.costs["parameters"](supernet.space.genomes([smallest]))
    assert parameters[0] == sum(parameter.numel() for parameter in extracted.parameters())


def test_peak_memory_is_that_of_the_extracted_networks() -> None:
    supernet = make_elastic(residual_network(), IMAGES, depths=(0.0, 0.5, 1.0), divisor=2)
    space = supernet.space
    genomes = np.concatenate(
        [space.genomes([space.largest, space.smallest]), space.sample(2, np.random.default_rng(0))]
    )
    peaks = supernet.costs["peak_activation_bytes"](genomes)
    # The first convolution's 64 maps of 16 x 16 in float32, before and after batch norm.
    assert peaks[0] == 4 * 2 * 64 * 16 * 16
    for genome, peak in zip(genomes, peaks, strict=True):
        extracted = supernet.extract(space.config(genome)).eval()
        alone = make_elastic(extracted, IMAGES, divisor=2, min_channels=2)
        assert alone.costs["peak_activation_bytes"](alone.space.genomes([alone.space.largest]))[0] == peak


class InDouble(nn.Module):
    """A residual block that computes in a type of its own, which its graph asserts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, maps: Tensor) -> Any:
        return maps + self.layer(maps).relu().double().sqrt().to(maps.dtype)


def test_blocks_with_types_of_their_own_may_be_left_out() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 3), InDouble(), InDouble(), nn.Flatten(), nn.Linear(28800, 4))
    supernet = make_elastic(network.eval(), IMAGES, depths=(0.0, 1.0)).eval()
    assert values_of(supernet, "depth") == {"1": (0, 2)}
    assert torch.equal(supernet(IMAGES, supernet.space.largest), network(IMAGES))
    smallest = supernet.space.smallest
    assert torch.equal(supernet.extract(smallest)(IMAGES), supernet(IMAGES, smallest))


def test_heads_embedding_and_depth_of_a_transformer() -> None:
    torch.manual_seed(0)
    network: nn.Module = models.VisionTransformer(32, 16, 3, 4, 64, 128, num_classes=10)
    supernet = make_elastic(network.eval(), IMAGES).eval()
    space = supernet.space
    assert values_of(supernet, "depth") == {"encoder.layers": (2, 3)}
    widths = values_of(supernet, "width")
    assert widths["conv_proj"] == (16, 32, 48, 64)
    heads = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
    assert widths[heads] == (1, 2, 3, 4)
    # The graph was captured with two images and runs with any number, in training mode, too.
    images = torch.randn(5, 3, 32, 32)
    assert torch.equal(supernet(images, space.largest), network(images))
    smallest = supernet.extract(space.smallest)
    assert isinstance(smallest, fx.GraphModule)
    assert torch.equal(smallest(images), supernet(images, space.smallest))
    supernet.train()(images, space.smallest).sum().backward()
    elsewhere = copy.deepcopy(supernet).to("meta")
    assert elsewhere(images.to("meta"), space.smallest).device.type == "meta"
    narrow = space.read({**space.largest.to_dict(), "width:encoder.layers.encoder_layer_0.mlp.0": 32})
    assert type(supernet.extract(narrow)) is models.VisionTransformer


def test_graph_modules_can_be_recalibrated() -> None:
    torch.manual_seed(0)
    network: nn.Module = models.ShuffleNetV2([2, 2, 1], [24, 48, 96, 192, 64], 10)
    supernet = make_elastic(network.eval(), torch.randn(2, 3, 64, 64)).eval()
    extracted = supernet.extract(supernet.space.smallest)
    assert isinstance(extracted, fx.GraphModule)
    assert set(extracted.state_dict()) == set(network.state_dict())
    images = torch.randn(6, 3, 64, 64)
    expected = nn.functional.conv2d(images, extracted.get_parameter("conv1.0.weight"), None, 2, 1)
    recalibrate_batchnorm(extracted, [images])
    assert torch.allclose(
        extracted.get_buffer("conv1.1.running_mean"), expected.mean((0, 2, 3)), rtol=1e-4, atol=1e-6
    )
    # Later layers were computed with the statistics of those before.
    assert not torch.equal(extracted(images), supernet(images, supernet.space.smallest))


class Asking(nn.Module):
    """Nothing of it can be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, values: Tensor) -> Any:
        return self.layer.weight @ values.T if values.sum() > 0 else values


@pytest.mark.parametrize(
    ("network", "example", "settings", "words"),
    [
        (residual_network().train(), IMAGES, {}, "in training mode"),
        (residual_network(), IMAGES.double(), {}, "of type torch.float64"),
        (residual_network(), IMAGES.to("meta"), {}, "is on meta"),
        (residual_network(), (), {}, "holds no tensor"),
        (Branching().eval(), IMAGES, {"resolutions": (32, 64)}, "which have one resolution"),
        (nn.ReLU().eval(), IMAGES, {}, "has no parameters"),
        (residual_network(), IMAGES, {"exclude": ["layer9.*"]}, "'layer9.*', which matches no module"),
        (residual_network(), IMAGES, {"include": ["nothing"]}, "'nothing', which matches no module"),
        (residual_network(), IMAGES, {"exclude": ["*"]}, "leave nothing that may vary"),
        (residual_network(), IMAGES, {"widths": (0.5,)}, "1 among them"),
        (residual_network(), IMAGES, {"divisor": 0}, "divisor is 0"),
        (Tied().eval(), torch.randn(2, 32), {"exclude": ["a"]}, "a.weight and b.weight are one tensor"),
        (Asking().eval(), torch.randn(2, 4), {}, r"branches on values of tensors.*test_convert.py:\d+"),
    ],
)
def test_errors_say_what_was_found(
    network: nn.Module, example: Any, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        make_elastic(network, example, **settings)


def test_nothing_elastic_says_why() -> None:
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU()).eval()
    with pytest.raises(NothingElasticError, match="is an output of the model"):
        make_elastic(network, IMAGES)
    with pytest.raises(CaptureError):
        make_elastic(Asking().eval(), torch.randn(2, 4))
