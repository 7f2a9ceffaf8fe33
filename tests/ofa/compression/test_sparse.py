"""Zeros in weights: exactly so many in each block, and none revived by a training."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import onnxruntime
import pytest
import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.compression.facts import CompressionFacts
from ofa.compression.settings import SparsePattern
from ofa.compression.sparse import (
    largest_inputs,
    make_inputs_sparse,
    make_sparse,
    sparse_layers,
    zeros_kept,
)
from ofa.runtimes.onnx_export import export_onnx


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32 * 16, 5)
    )


def weight_of(model: nn.Module, name: str) -> torch.Tensor:
    """Return the weight of a layer as it computes."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    return weight


def zeros_of(model: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return where the weights of layers are zero."""
    return {name: torch.eq(weight_of(model, name), 0) for name in names}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def zeros_per_block(weight: torch.Tensor, block: int) -> torch.Tensor:
    """Return the number of zeros in each block along the input channels, or those of images."""
    rows = torch.eq(weight, 0).movedim(1, -1)
    return rows.reshape(*rows.shape[:-1], -1, block).sum(-1)


@pytest.mark.parametrize(("share", "block", "num_zeros"), [(0.5, 4, 2), (0.75, 16, 12), (0.25, 8, 2)])
def test_every_block_has_its_zeros(share: float, block: int, num_zeros: int) -> None:
    sparse, pattern = network(), SparsePattern(share, block)
    names, obstacles = sparse_layers(sparse, pattern)
    assert names == ("2", "4") and obstacles == {"0": f"3 inputs a group are no multiple of {block}"}
    dense = copy.deepcopy(sparse)
    make_sparse(sparse, pattern, names)
    for name in names:
        weight, before = weight_of(sparse, name), weight_of(dense, name)
        assert (zeros_per_block(weight, block) == num_zeros).all()
        # The others stay as they were, and are the largest.
        assert torch.equal(weight[weight != 0], before[weight != 0])
    assert torch.equal(weight_of(sparse, "0"), weight_of(dense, "0"))


def test_the_smallest_of_a_block_become_zero() -> None:
    layer = nn.Sequential(nn.Linear(4, 1, bias=False))
    layer[0].weight = nn.Parameter(torch.tensor([[0.1, -3.0, 2.0, -0.2]]))
    make_sparse(layer, SparsePattern(), ["0"])
    assert weight_of(layer, "0").tolist() == [[0.0, -3.0, 2.0, 0.0]]


def test_zeros_anywhere() -> None:
    sparse, pattern = network(), SparsePattern(0.9, None)
    names, obstacles = sparse_layers(sparse, pattern)
    assert names == ("0", "2", "4") and not obstacles
    make_sparse(sparse, pattern, names)
    for name in names:
        weight = weight_of(sparse, name)
        assert int(torch.eq(weight, 0).sum()) == int(0.9 * weight.numel())


def test_a_training_revives_no_zero() -> None:
    sparse, pattern = network(), SparsePattern()
    names, _ = sparse_layers(sparse, pattern)
    make_sparse(sparse, pattern, names)
    zeros = zeros_of(sparse, names)
    before = weight_of(sparse, "2").clone()
    with zeros_kept(sparse, names):
        optimizer = torch.optim.SGD(sparse.parameters(), 0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
        for _ in range(5):
            optimizer.zero_grad()
            sparse(torch.randn(4, 3, 8, 8)).square().sum().backward()
            optimizer.step()
            assert same(zeros_of(sparse, names), zeros)
        state = copy.deepcopy(sparse.state_dict())
    assert not torch.equal(weight_of(sparse, "2"), before)
    assert same(zeros_of(sparse, names), zeros)
    assert set(sparse.state_dict()) == set(network().state_dict())
    # A training that goes on has the masks in its state.
    resumed = network()
    with zeros_kept(resumed, names):
        resumed.load_state_dict(state)
    assert same(zeros_of(resumed, names), zeros)


def test_copies_from_before_and_after_are_whole() -> None:
    sparse = network()
    names, _ = sparse_layers(sparse, SparsePattern())
    make_sparse(sparse, SparsePattern(), names)
    before = copy.deepcopy(sparse)
    with zeros_kept(sparse, names):
        pass
    after = copy.deepcopy(sparse)
    with zeros_kept(after, names):
        pass
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(sparse(images), before(images)) and torch.equal(sparse(images), after(images))


@pytest.mark.parametrize(
    ("share", "block", "text"),
    [
        (0.0, 4, "share is 0; expected a share of zeros between 0 and 1"),
        (0.5, 5, "block is 5; expected 4, 8, 16, or null"),
        (0.3, 4, "0.3 of 4 weights are no whole number"),
    ],
)
def test_impossible_patterns_are_named(share: float, block: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        SparsePattern(share, block)


@pytest.mark.parametrize(
    ("share", "block", "inputs", "text"),
    [
        (0.75, 8, 0.25, "inputs is 0.25; expected 0 or 0.5"),
        (0.5, 8, 0.5, "inputs of 0.5 need a share of 0.75 in blocks"),
        (0.75, None, 0.5, "inputs of 0.5 need a share of 0.75 in blocks"),
    ],
)
def test_impossible_zeros_of_inputs_are_named(
    share: float, block: int | None, inputs: float, text: str
) -> None:
    with pytest.raises(UserError, match=text):
        SparsePattern(share, block, inputs)


def test_layers_read_the_largest_of_each_block() -> None:
    pattern = SparsePattern(0.75, 4, 0.5)
    assert pattern.text == "3 of 4 weights and 2 of 4 inputs are zero"
    rows = torch.tensor([[0.1, -3.0, 2.0, -0.2, 5.0, 5.0, 5.0, 0.0]])
    expected = [[0.0, -3.0, 2.0, 0.0], [5.0, 5.0]]
    read = largest_inputs(pattern, rows, 1)
    assert read[0, :4].tolist() == expected[0] and read[0, 4:][read[0, 4:] != 0].tolist() == expected[1]
    images = torch.randn(2, 8, 3, 5)
    read = largest_inputs(pattern, images, 1)
    assert torch.equal(read, largest_inputs(pattern, images.movedim(1, -1), 3).movedim(-1, 1))
    assert (zeros_per_block(read, 4) == 2).all()


def test_a_network_computes_exports_and_is_copied_with_its_zeros_of_inputs() -> None:
    sparse, pattern = network(), SparsePattern(0.75, 16, 0.5)
    names, _ = sparse_layers(sparse, pattern)
    make_sparse(sparse, pattern, names)
    seen: list[torch.Tensor] = []
    sparse[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        expected = sparse.eval()(images)
    assert (zeros_per_block(seen[0], 16) >= 8).all()
    # Weights alone do not tell of the zeros; the call that makes them in a network that is loaded does.
    loaded = network().eval()
    loaded.load_state_dict(sparse.state_dict())
    with torch.no_grad():
        assert not torch.allclose(loaded(images), expected)
        make_inputs_sparse(loaded, pattern, names)
        assert torch.equal(loaded(images), expected)
        assert torch.equal(copy.deepcopy(loaded)(images), expected)
    session = onnxruntime.InferenceSession(export_onnx(loaded, images))
    (outputs,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs), expected)


def test_a_layer_that_cannot_read_zeros_is_named_and_no_layer_changes() -> None:
    own = network()
    with pytest.raises(UserError, match=r"0 cannot read inputs .* 3 inputs a group are no multiple of 4"):
        make_inputs_sparse(own, SparsePattern(0.75, 4, 0.5), ["2", "0"])
    assert not own[2]._forward_pre_hooks


def test_gradients_pass_through_what_is_read() -> None:
    pattern = SparsePattern(0.75, 4, 0.5)
    values = torch.tensor([[0.1, -3.0, 2.0, -0.2]], requires_grad=True)
    largest_inputs(pattern, values, 1).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None and values.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"0: 3 inputs a group are no multiple of 4"):
        sparse_layers(nn.Sequential(nn.Conv2d(3, 8, 3)), SparsePattern())


def test_a_pattern_that_leaves_inputs_whole_has_the_digest_of_earlier_versions() -> None:
    assert CompressionFacts(pattern=SparsePattern(), sparse_layers=("a",)).digest == "f8fc6b19"
    with_inputs = CompressionFacts(pattern=SparsePattern(0.75, 4, 0.5), sparse_layers=("a",))
    assert with_inputs.digest != CompressionFacts(pattern=SparsePattern(0.75), sparse_layers=("a",)).digest
