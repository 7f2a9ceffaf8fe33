"""Convolutions in other forms: exact at full rank, the best ones below, counted as they are computed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.compression.changes import FORMS, LayerChange, apply_changes, apply_structure
from ofa.compression.form import convolution_macs
from ofa.compression.split import Split
from ofa.modules.cost import module_cost

CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Conv2d], tuple[int, int]]] = {
    "plain": (lambda: nn.Conv2d(24, 16, 3, padding=1), (9, 9)),
    "strided, odd sizes": (lambda: nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False), (11, 8)),
    "other kernel": (lambda: nn.Conv2d(16, 24, (3, 5), stride=(2, 1), padding=(0, 2)), (9, 12)),
    "dilated": (lambda: nn.Conv2d(8, 16, 3, padding=2, dilation=2), (10, 10)),
    "one output": (lambda: nn.Conv2d(16, 1, 3), (7, 7)),
    "one input": (lambda: nn.Conv2d(1, 16, 3), (7, 7)),
}


@pytest.fixture(params=CONVOLUTIONS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Conv2d, tuple[int, int]]:
    torch.manual_seed(0)
    make, size = CONVOLUTIONS[request.param]
    return make(), size


def error_of_all_ranks(name: str, network: nn.Sequential, images: torch.Tensor) -> float:
    """Return the largest error of the outputs at full rank, as a part of the largest output."""
    convolution = network[0]
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        expected = network(images)
        ranks = FORMS[name].full_ranks(convolution)
        outputs = apply_changes(network, [LayerChange("0", name, ranks)])(images)
    return float((outputs - expected).abs().max() / expected.abs().max())


# Sums of the order of `escalate` round up to 1.3e-6 in single precision.
@pytest.mark.parametrize("name", [name for name in FORMS if name != "escalate"])
def test_all_ranks_compute_the_convolution(name: str, case: tuple[nn.Conv2d, tuple[int, int]]) -> None:
    convolution, size = case
    images = torch.randn(2, convolution.in_channels, *size)
    assert error_of_all_ranks(name, nn.Sequential(convolution), images) <= 1e-6


@pytest.mark.parametrize("name", FORMS)
def test_they_do_so_in_double_precision(name: str, case: tuple[nn.Conv2d, tuple[int, int]]) -> None:
    convolution, size = case
    images = torch.randn(2, convolution.in_channels, *size, dtype=torch.float64)
    assert error_of_all_ranks(name, nn.Sequential(convolution).double(), images) <= 1e-12


@pytest.mark.parametrize("name", FORMS)
def test_costs_are_those_that_are_counted(name: str, case: tuple[nn.Conv2d, tuple[int, int]]) -> None:
    convolution, size = case
    network, shape = nn.Sequential(convolution), (convolution.in_channels, *size)
    full = module_cost(network, shape).macs
    assert convolution_macs(convolution, size) == full
    choices = FORMS[name].choices(convolution, size)
    costs = [FORMS[name].macs(convolution, ranks, size) for ranks in choices]
    assert costs == sorted(costs) and all(cost < full for cost in costs)
    for ranks, cost in zip(choices, costs, strict=True):
        assert FORMS[name].problem(convolution, ranks) is None
        assert module_cost(apply_structure(network, [LayerChange("0", name, ranks)]), shape).macs == cost


def test_half_of_the_channels_takes_a_third() -> None:
    convolution = nn.Conv2d(64, 64, 3, padding=1)
    share = Split().macs(convolution, (32,), (14, 14)) / convolution_macs(convolution, (14, 14))
    assert share == pytest.approx(1 / 3)


def kernel_of(split: nn.Module) -> torch.Tensor:
    """Return the kernel that a vertical and a horizontal convolution compute together."""
    first, last = (split.get_parameter(f"{index}.weight").detach().double() for index in (0, 1))
    return torch.einsum("rci,orj->ocij", first[..., 0], last[:, :, 0])


def test_the_error_of_a_split_is_what_the_decomposition_drops() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(12, 20, 3)
    weight = convolution.weight.detach().double()
    values = torch.linalg.svdvals(weight.permute(1, 2, 0, 3).reshape(36, 60))
    split = Split().factors(convolution, (10,))
    error = (kernel_of(split) - weight).norm()
    assert float(error) == pytest.approx(float(values[10:].norm()), rel=1e-6)
    # Both factors carry the same scale, and no change of them comes closer.
    first, last = (split.get_parameter(f"{index}.weight").detach() for index in (0, 1))
    assert float(first.norm()) == pytest.approx(float(last.norm()), rel=1e-5)
    for step in (1e-2, -1e-2):
        other = copy.deepcopy(split)
        with torch.no_grad():
            other.get_parameter("0.weight").add_(step * torch.randn_like(first))
        assert (kernel_of(other) - weight).norm() > error


def test_tucker_beats_random_subspaces() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(12, 20, 3)
    weight = convolution.weight.detach().double()
    inner, core, outer = FORMS["tucker"].weights(weight, (6, 9))

    def error(basis_in: torch.Tensor, basis_out: torch.Tensor) -> float:
        kept = torch.einsum("ocij,op,cq->pqij", weight, basis_out @ basis_out.T, basis_in @ basis_in.T)
        return float((weight - kept).norm())

    approximated = torch.einsum("os,srij,rc->ocij", outer[..., 0, 0], core, inner[..., 0, 0])
    own = float((weight - approximated).norm())
    for _ in range(5):
        basis_in, _ = torch.linalg.qr(torch.randn(12, 6, dtype=torch.float64))
        basis_out, _ = torch.linalg.qr(torch.randn(20, 9, dtype=torch.float64))
        assert own < error(basis_in, basis_out)


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3)
    ).eval()


def test_a_plan_is_applied_bit_for_bit_and_leaves_the_network_alone() -> None:
    network = small_network()
    state = copy.deepcopy(network.state_dict())
    changes = [LayerChange("3", "split", (8,))]
    first, second = (apply_changes(network, changes) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(first.get_parameter("0.weight"), network.get_parameter("0.weight"))
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    unchanged = apply_changes(network, [])
    assert all(torch.equal(state[name], tensor) for name, tensor in unchanged.state_dict().items())


def test_the_structure_alone_takes_the_weights() -> None:
    network = small_network()
    changes = [LayerChange("0", "tucker", (2, 8)), LayerChange("3", "split", (8,))]
    changed = apply_changes(network, changes)
    with torch.device("meta"):
        empty = nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3)
        )
    made = apply_structure(empty, changes)
    made.load_state_dict(changed.state_dict(), assign=True)
    images = torch.randn(2, 3, 9, 9)
    assert torch.equal(made.eval()(images), changed(images))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (LayerChange("9", "split", (8,)), "no layer '9'"),
        (LayerChange("1", "split", (8,)), "BatchNorm2d; expected a Conv2d"),
        (LayerChange("3", "split", (49,)), "rank must be 1 to 48"),
        (LayerChange("3", "split", (8, 8)), "rank must be 1 to 48"),
        (LayerChange("3", "tucker", (8, 0)), "in_rank and out_rank must be 1 to 16, 1 to 32"),
    ],
)
def test_impossible_changes_are_named(change: LayerChange, text: str) -> None:
    with pytest.raises(UserError, match=text):
        apply_changes(small_network(), [change])


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(UserError, match="split"):
        LayerChange("0", "splitt", (8,))
