"""Logits, MACs and parameters against those of the published once-for-all package.

The folder of shared data holds logits that the published code computed on deterministic weights
(float64, eval mode), and 1,081 networks with their MACs and parameters.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ofa.cost import compile_cost, macs, network_cost, parameters
from ofa.extract import extract_subnet
from ofa.lowering import lower
from ofa.space import SearchSpace
from ofa.subnet import BlockConfig, SubnetConfig
from ofa.supernet import Supernet

BLOCKS_PER_STAGE = 4


def config_of(resolution: int, arch: dict[str, list[int]]) -> SubnetConfig:
    """Return the config of a published architecture: values of every block and the depth of each stage."""
    stages = []
    for stage, depth in enumerate(arch["d"]):
        first = BLOCKS_PER_STAGE * stage
        chosen = range(first, first + depth)
        stages.append(tuple(BlockConfig(arch["ks"][i], arch["e"][i]) for i in chosen))
    return SubnetConfig(resolution, tuple(stages))


def published_name(name: str, num_layers: int) -> str:
    """Return the published checkpoint's name for one of a supernet's tensors."""
    _, index, rest = name.split(".", 2)
    layer = int(index)
    ends = {
        0: "first_conv",
        num_layers - 4: "final_expand_layer",
        num_layers - 2: "feature_mix_layer",
        num_layers - 1: "classifier",
    }
    if layer in ends:
        return f"{ends[layer]}.{rest.removeprefix('layer.')}"
    part, _, leaf = rest.partition(".")
    # The first block is not elastic; elastic operators wrap their convolution and batch norm once more.
    inner = "" if layer == 1 else "{kind}."
    kind = "bn" if part == "depthwise_bn" else leaf.split(".")[0]
    if part == "squeeze_excite":
        renamed = f"depth_conv.se.fc.{leaf}"
    elif part == "depthwise":
        matrices = {"matrices.5": "7to5_matrix", "matrices.3": "5to3_matrix"}
        renamed = "depth_conv.conv." + matrices.get(leaf, inner.format(kind="conv") + leaf)
    elif part == "depthwise_bn":
        renamed = f"depth_conv.bn.{inner.format(kind=kind)}{leaf}"
    else:
        place = {"expand": "inverted_bottleneck", "project": "point_linear"}[part]
        renamed = f"{place}.{kind}.{inner.format(kind=kind)}{leaf.split('.', 1)[1]}"
    return f"blocks.{layer - 1}.conv.{renamed}"


@torch.no_grad()
def load_published(supernet: Supernet, shapes: dict[str, list[int]], weights: ModuleType) -> None:
    """Fill every tensor of `supernet`; all names and shapes of the checkpoint must be met."""
    unused = {name for name in shapes if not name.endswith("num_batches_tracked")}
    for name, tensor in supernet.state_dict().items():
        published = published_name(name, len(supernet.layers))
        assert list(tensor.shape) == shapes[published], (name, published)
        tensor.copy_(torch.from_numpy(weights.tensor_for(published, shapes[published])))
        unused.remove(published)
    assert not unused


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_weights", shared_data / "golden" / "weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((shared_data / "golden" / "once_for_all.json").read_text())
    return values


@pytest.mark.parametrize(("family", "width_multiplier"), [("mbv3_w1.0", 1.0), ("mbv3_w1.2", 1.2)])
@torch.no_grad()
def test_logits_and_macs_equal_the_published_ones(
    family: str,
    width_multiplier: float,
    full_space: SearchSpace,
    golden: dict[str, Any],
    weights: ModuleType,
) -> None:
    space = dataclasses.replace(
        full_space,
        width_multiplier=width_multiplier,
        num_classes=10,
        resolutions=tuple(range(96, 257, 16)),
    )
    supernet = Supernet(space).double().eval()
    load_published(supernet, golden[family]["state_dict"], weights)
    assert len(golden[family]["cases"]) == 6
    for case in golden[family]["cases"]:
        config = config_of(case["resolution"], case["arch"])
        images = torch.from_numpy(weights.images_for(case["image_seed"], case["resolution"]))
        logits = supernet(images, config)
        expected = torch.tensor(case["logits"], dtype=torch.float64)
        assert (logits - expected).abs().max() <= 1e-9 * expected.abs().max()
        assert torch.equal(extract_subnet(supernet, config)(images), logits)
        assert abs(network_cost(lower(space, config)).macs / 1e6 - case["macs_m"]) <= 1e-6


def test_macs_and_parameters_of_all_measured_networks_are_exact(
    full_space: SearchSpace, shared_data: Path
) -> None:
    lines = (shared_data / "accuracy" / "ofa_mbv3_w1.0_imagenet.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 1081
    genomes = full_space.genomes([config_of(row["resolution"], row) for row in rows])
    for cost, field in ((macs, "macs"), (parameters, "params")):
        assert np.array_equal(compile_cost(full_space, cost)(genomes), [row[field] for row in rows])
