"""Bundles of compressed sub-networks of a published family: made again from card and weights alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from ofa.architecture.lowering import lower
from ofa.common.errors import UserError
from ofa.compression.candidates import find_candidates
from ofa.compression.changes import LayerChange, apply_changes
from ofa.compression.facts import CompressionFacts, TensorShape
from ofa.compression.settings import SparsePattern
from ofa.compression.unused_units import with_shapes
from ofa.data.settings import DataInfo
from ofa.export.bundle import load_bundle
from ofa.export.card import ModelCard, subnet_card
from ofa.export.write import export_bundle
from ofa.modules.static import StaticNetwork
from ofa.space.load import load_space


@pytest.fixture(scope="module")
def compressed() -> tuple[nn.Module, ModelCard]:
    """The smallest sub-network of the ResNet-50 space with its 3x3 convolutions split, and its card."""
    space = load_space("resnet50")
    config = dataclasses.replace(space.smallest, resolution=128)
    torch.manual_seed(0)
    network = StaticNetwork(lower(space, config)).eval()
    candidates = find_candidates(network, (3, 128, 128), ["split", "tucker"])
    assert candidates.text.startswith("11 of 36 convolutions qualify")
    changes = tuple(layer.changes[-1] for layer in candidates.layers)
    names = tuple(map(str, range(space.num_classes)))
    card = subnet_card(space, config, DataInfo("photographs", 3, names, (0.5,) * 3, (0.5,) * 3))
    assert card.subnet is not None
    facts = dataclasses.replace(card.subnet, compression=CompressionFacts(changes))
    return apply_changes(network, changes), dataclasses.replace(card, subnet=facts)


@pytest.fixture(scope="module")
def path(compressed: tuple[nn.Module, ModelCard], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compressed") / "bundle"
    export_bundle(*compressed, path, [])
    return path


def test_it_is_made_again_bit_for_bit(compressed: tuple[nn.Module, ModelCard], path: Path) -> None:
    network, card = compressed
    bundle = load_bundle(path)
    assert bundle.card == card
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(bundle.network(images), network(images))


def without_channels(network: nn.Module) -> tuple[nn.Module, tuple[TensorShape, ...]]:
    """Return the network with 20 instead of 32 channels between two layers, and the shapes that say so."""
    state = network.state_dict()
    cuts = {f"layers.3.reduce.bn.{name}": 0 for name in ("weight", "bias", "running_mean", "running_var")}
    cuts |= {"layers.3.reduce.conv.weight": 0, "layers.3.middle.conv.0.weight": 1}
    tensors = {name: state[name].narrow(axis, 0, 20) for name, axis in cuts.items()}
    shapes = tuple(TensorShape(name, tuple(tensor.shape)) for name, tensor in tensors.items())
    smaller = with_shapes(network, shapes)
    smaller.load_state_dict(state | tensors)
    return smaller.eval(), shapes


def test_smaller_layers_are_made_again(compressed: tuple[nn.Module, ModelCard], tmp_path: Path) -> None:
    network, card = compressed
    assert card.subnet is not None and card.subnet.compression is not None
    smaller, shapes = without_channels(network)
    facts = dataclasses.replace(card.subnet.compression, shapes=shapes)
    assert facts.digest != card.subnet.compression.digest and "channels left out" in facts.text
    card = dataclasses.replace(card, subnet=dataclasses.replace(card.subnet, compression=facts))
    export_bundle(smaller, card, tmp_path / "bundle", [])
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.card == card
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(bundle.network(images), smaller(images))
    file = tmp_path / "bundle" / "subnet.json"
    values = json.loads(file.read_text())
    values["subnet"]["compression"]["shapes"][0]["shape"] = [10**6]
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match="layers.3.reduce.bn.weight has shape .* cannot become"):
        load_bundle(tmp_path / "bundle")


def test_other_layers_than_those_of_the_card_are_refused(
    compressed: tuple[nn.Module, ModelCard], tmp_path: Path
) -> None:
    network, card = compressed
    assert card.subnet is not None and card.subnet.compression is not None
    fewer = CompressionFacts(card.subnet.compression.changes[1:])
    other = dataclasses.replace(card, subnet=dataclasses.replace(card.subnet, compression=fewer))
    with pytest.raises(UserError):
        export_bundle(network, other, tmp_path / "bundle", [])
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("entry", "value", "text"),
    [
        ("form", "fold", "fold"),
        ("layer", "layers.99", "no layer 'layers.99'"),
        ("ranks", [10**6], "rank must be 1 to"),
        ("ranks", "many", "ranks"),
    ],
)
def test_a_changed_card_is_refused(path: Path, tmp_path: Path, entry: str, value: object, text: str) -> None:
    shutil.copytree(path, tmp_path / "bundle")
    file = tmp_path / "bundle" / "subnet.json"
    values = json.loads(file.read_text())
    values["subnet"]["compression"]["changes"][0][entry] = value
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match=text):
        load_bundle(tmp_path / "bundle")


def test_zeros_of_unknown_layers_are_refused(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "bundle")
    file = tmp_path / "bundle" / "subnet.json"
    values = json.loads(file.read_text())
    values["subnet"]["compression"] |= {"pattern": {"share": 0.5, "block": 4}, "sparse_layers": ["layers"]}
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match="no convolution or linear layer layers"):
        load_bundle(tmp_path / "bundle")


def test_facts_belong_together() -> None:
    change = LayerChange("a", "split", (8,))
    with pytest.raises(UserError, match="changed twice"):
        CompressionFacts((change, change))
    with pytest.raises(UserError, match="belong together"):
        CompressionFacts((), SparsePattern())
    assert CompressionFacts((change,)).digest != CompressionFacts().digest
