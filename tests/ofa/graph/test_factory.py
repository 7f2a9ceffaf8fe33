"""Networks by name and their weights: what is loaded, and what every mistake says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from ofa.common.errors import UserError
from ofa.graph.factory import load_model
from ofa.graph.weights import load_weights

NETWORKS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, depth=1):
        super().__init__()
        if width > 99:
            raise ValueError("too wide")
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(depth)))
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, width)

    @classmethod
    def deep(cls):
        return cls(depth=2)

def number():
    return 3

size = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The present folder, with modules that nothing else has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets" / "__init__.py").write_text("")
    (tmp_path / "my_nets" / "small.py").write_text(NETWORKS)
    (tmp_path / "my_broken.py").write_text("import torch\nimport no_such_package\n")
    (tmp_path / "my_typo.py").write_text("x = 1\ndef f(:\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def net(width: int = 4) -> nn.Module:
    """Return the network of `NETWORKS` with weights of its own."""
    return load_model("my_nets.small:Net", {"width": width})


def test_a_torchvision_model_is_loaded_without_weights_from_elsewhere() -> None:
    model = load_model("torchvision:squeezenet1_1", {"num_classes": 3})
    assert isinstance(model, models.SqueezeNet) and not model.training
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3)


def test_backbones_of_segmentation_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    assert isinstance(load_model("torchvision:lraspp_mobilenet_v3_large"), nn.Module)


@pytest.mark.parametrize("name", ["my_nets.small:Net", "my_nets.small:Net.deep"])
def test_a_function_of_the_present_folder_is_called(folder: Path, name: str) -> None:
    model = load_model(name)
    assert type(model).__name__ == "Net" and not model.training
    assert sys.path[0] != str(folder) and sys.path[-1] == str(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet18", "expected torchvision:NAME, timm:NAME, ofa:NAME, or package.module:function"),
        ("torchvision:resnet_18", "Unknown torchvision model 'resnet_18'; similar: resnet18"),
        ("my_net:Net", "Unknown module 'my_net'; similar: my_nets"),
        ("my_nets.little:Net", "Unknown module in my_nets 'little'; known: small"),
        ("my_nets.small:net", "Unknown name in module my_nets.small 'net'; similar: Net"),
        ("my_nets.small:Net.dep", "Unknown name in module my_nets.small:Net 'dep'; similar: deep"),
        (
            "my_nets/small.py:Net",
            "is a file; a module is named from the present folder on: my_nets.small:Net",
        ),
        ("my_nets.small:size", "is of type int; expected a function or class"),
        ("my_nets.small:number", "returned a value of type int; expected a torch.nn.Module"),
        ("my_broken:Net", r"my_broken cannot be imported: .*no_such_package.* \(my_broken.py:2\)"),
        ("my_typo:Net", r"my_typo cannot be imported: SyntaxError: .*\(my_typo.py:2\)"),
    ],
)
def test_a_wrong_name_is_explained(folder: Path, name: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        load_model(name)


def test_a_function_that_fails_is_named_with_its_error_and_line(folder: Path) -> None:
    text = r"my_nets.small:Net\(width=100\) failed: ValueError: too wide \(small.py:9\)"
    with pytest.raises(UserError, match=text):
        load_model("my_nets.small:Net", {"width": 100})
    with pytest.raises(
        UserError, match=r"Net\(wide=1\) failed: TypeError: .*unexpected keyword argument 'wide'"
    ):
        load_model("my_nets.small:Net", {"wide": 1})


@pytest.mark.parametrize("argument", ["weights", "weights_backbone", "pretrained"])
def test_arguments_that_download_are_refused(argument: str) -> None:
    with pytest.raises(UserError, match=f"arguments hold {argument}; nothing is downloaded"):
        load_model("torchvision:resnet18", {argument: "DEFAULT"})


# -- timm ------------------------------------------------------------------------------------------


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[timm\]'"):
        load_model("timm:vit_tiny_patch16_224")


def test_timm_makes_known_models_without_weights_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def create_model(name: str, pretrained: bool, **kwargs: object) -> nn.Module:
        calls.append((name, pretrained, kwargs))
        return nn.Linear(2, 2)

    library = ModuleType("timm")
    vars(library).update(
        create_model=create_model,
        is_model=lambda name: name == "vit_tiny",
        list_models=lambda: ["vit_tiny", "resnet10t"],
    )
    monkeypatch.setitem(sys.modules, "timm", library)
    assert isinstance(load_model("timm:vit_tiny", {"depth": 2}), nn.Linear)
    assert calls == [("vit_tiny", False, {"depth": 2})]
    with pytest.raises(UserError, match="Unknown timm model 'vit_tin'; similar: vit_tiny"):
        load_model("timm:vit_tin")
    with pytest.raises(UserError, match="Unknown timm model 'hf-hub:a/b'"):
        load_model("timm:hf-hub:a/b")


# -- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model"])
def test_weights_are_found_below_wrappers_and_prefixes(folder: Path, prefix: str, wrapper: str) -> None:
    trained, network = net(), net()
    state = {f"{prefix}{name}": tensor for name, tensor in trained.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, folder / "weights.pth")
    load_weights(network, folder / "weights.pth", "Net")
    expected = trained.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


def test_safetensors_of_half_precision_without_counters_fit(folder: Path) -> None:
    trained, network = net().half(), net()
    state = {n: t for n, t in trained.state_dict().items() if not n.endswith("num_batches_tracked")}
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    load_weights(network, folder / "weights.safetensors", "Net")
    weight = network.get_parameter("head.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, trained.get_parameter("head.weight").float())


def test_one_name_of_a_shared_tensor_is_enough(folder: Path) -> None:
    def tied() -> nn.Module:
        layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        layers[1].weight = layers[0].weight
        return layers

    trained, network = tied(), tied()
    state = {name: tensor for name, tensor in trained.state_dict().items() if name != "1.weight"}
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    load_weights(network, folder / "weights.safetensors", "tied")
    assert torch.equal(network.get_parameter("1.weight"), trained.get_parameter("0.weight"))


def test_the_first_five_mismatches_are_named(folder: Path) -> None:
    other = load_model("my_nets.small:Net", {"width": 5, "depth": 4})
    torch.save(other.state_dict(), folder / "weights.pth")
    before = {name: tensor.clone() for name, tensor in net().state_dict().items()}
    network = net()
    network.load_state_dict(before)
    with pytest.raises(UserError) as caught:
        load_weights(network, folder / "weights.pth", "my_nets.small:Net")
    text = str(caught.value)
    assert "weights.pth for my_nets.small:Net does not have the expected entries" in text
    assert (
        "6 unexpected: layers.1.weight, layers.1.bias, layers.2.weight, layers.2.bias, layers.3.weight"
        in text
    )
    assert "and 1 more" in text and "layers.3.bias" not in text
    assert "2 of another shape: head.weight has shape [5, 3], expected [4, 3]" in text
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_files_that_are_no_weights_are_refused(folder: Path) -> None:
    class Run:
        def __reduce__(self) -> tuple[object, ...]:
            return (print, ("run",))

    torch.save({"weight": Run()}, folder / "code.pth")
    (folder / "text.safetensors").write_text("no tensors")
    for name, text in (
        ("code.pth", "Nothing of it was run"),
        ("text.safetensors", "cannot be read"),
        ("none.safetensors", "No file of weights"),
        ("none.pth", "No file of weights"),
    ):
        with pytest.raises(UserError, match=text):
            load_weights(nn.Linear(2, 2), folder / name, "linear")
