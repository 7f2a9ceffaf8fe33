"""Linear layers that compute with half of their weights; without a GPU, which of them could and why not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.compression.semi_structured import make_semi_structured, semi_structured_obstacle
from ofa.compression.settings import SparsePattern
from ofa.compression.sparse import make_sparse

HAS_SPARSE_CORES = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def network(dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> nn.Sequential:
    """Return two layers with 2 of 4 zeros, one without, and one of an odd size."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.Linear(64, 32), nn.Linear(32, 10)
    )
    make_sparse(layers, SparsePattern(), ["0", "2", "4"])
    return layers.to(device, dtype)


@pytest.mark.skipif(not HAS_SPARSE_CORES, reason="no CUDA device with sparse tensor cores")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_outputs_stay(dtype: torch.dtype) -> None:
    dense = network(dtype, "cuda")
    sparse = copy.deepcopy(dense)
    assert set(make_semi_structured(sparse)) == {"3", "4"}
    images = torch.randn(24, 64, device="cuda", dtype=dtype)
    with torch.inference_mode():
        torch.testing.assert_close(sparse(images), dense(images), rtol=0.02, atol=0.02)


def test_a_network_on_a_processor_is_refused_and_stays() -> None:
    dense = network()
    before = copy.deepcopy(dense.state_dict())
    with pytest.raises(UserError, match="The network is on cpu. Sparse tensor cores are in CUDA devices"):
        make_semi_structured(dense)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_why_a_layer_stays() -> None:
    layers = network()
    weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
    obstacles = [semi_structured_obstacle(weight) for weight in weights]
    assert obstacles == [
        None,
        None,
        "more than 2 of 4 consecutive weights are not zero",
        "10x32 weights are no multiples of 32x64",
    ]


def test_without_any_layer_the_reasons_are_told() -> None:
    with pytest.raises(
        UserError, match="No linear layer .* 0: weights of torch.float32, not of fp16 or bf16"
    ):
        make_semi_structured(network(torch.float32))
    with pytest.raises(UserError, match="No linear layer .* it has none"):
        make_semi_structured(nn.Conv2d(4, 4, 1))
