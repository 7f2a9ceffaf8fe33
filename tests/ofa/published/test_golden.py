"""Logits, MACs and parameters against those of the published once-for-all package.

The folder of shared data holds logits that the published code computed on deterministic weights
(float64, eval mode), and 1,081 networks with their MACs and parameters.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from published_names import (
    mobile_config,
    mobilenet_v3_name,
    proxyless_name,
    resnet_config,
    resnet_name,
)

from ofa.architecture.cost import compile_cost, macs, network_cost, parameters
from ofa.architecture.lowering import lower
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet


@dataclass(frozen=True)
class Published:
    """A published network: our space of it, and what its names and architectures mean."""

    space: str
    width_multiplier: float
    name: Callable[[str, int], str]
    config: Callable[[StagedSpace, int, dict[str, Any]], SubnetConfig]


NETWORKS = {
    "mbv3_w1.0": Published("mobilenet_v3", 1.0, mobilenet_v3_name, mobile_config),
    "mbv3_w1.2": Published("mobilenet_v3", 1.2, mobilenet_v3_name, mobile_config),
    "proxyless_w1.3": Published("proxyless_nas", 1.3, proxyless_name, mobile_config),
    "resnet50": Published("resnet50", 1.0, resnet_name, resnet_config),
}


@torch.no_grad()
def load_published(
    supernet: Supernet,
    shapes: dict[str, list[int]],
    weights: ModuleType,
    name_of: Callable[[str, int], str],
) -> None:
    """Fill every tensor of `supernet`; all names and shapes of the checkpoint must be met."""
    unused = {name for name in shapes if not name.endswith("num_batches_tracked")}
    for name, tensor in supernet.state_dict().items():
        published = name_of(name, len(supernet.layers))
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


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_logits_and_macs_equal_the_published_ones(
    network: str, load_space: Callable[[str], StagedSpace], golden: dict[str, Any], weights: ModuleType
) -> None:
    published = NETWORKS[network]
    space = dataclasses.replace(
        load_space(published.space),
        width_multiplier=published.width_multiplier,
        num_classes=10,
        resolutions=tuple(range(96, 257, 16)),
    )
    supernet = Supernet(space).double().eval()
    load_published(supernet, golden[network]["state_dict"], weights, published.name)
    assert len(golden[network]["cases"]) == 6
    for case in golden[network]["cases"]:
        config = published.config(space, case["resolution"], case["arch"])
        images = torch.from_numpy(weights.images_for(case["image_seed"], case["resolution"]))
        logits = supernet(images, config)
        expected = torch.tensor(case["logits"], dtype=torch.float64)
        assert (logits - expected).abs().max() <= 1e-9 * expected.abs().max()
        assert torch.equal(supernet.extract(config)(images), logits)
        assert abs(network_cost(lower(space, config)).macs / 1e6 - case["macs_m"]) <= 1e-6


def test_macs_and_parameters_of_all_measured_networks_are_exact(
    full_space: StagedSpace, shared_data: Path
) -> None:
    lines = (shared_data / "accuracy" / "ofa_mbv3_w1.0_imagenet.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 1081
    genomes = full_space.genomes([mobile_config(full_space, row["resolution"], row) for row in rows])
    for cost, field in ((macs, "macs"), (parameters, "params")):
        assert np.array_equal(compile_cost(full_space, cost)(genomes), [row[field] for row in rows])
