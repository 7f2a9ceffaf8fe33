"""Kernels of basis kernels: the closest ones, trained with few coefficients, whose zeros stay."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.compression.changes import BASIS_FORMS, LayerChange, apply_filled, apply_structure
from ofa.compression.nonzero_cost import hybrid_bits, nonzero_macs, zero_share
from ofa.compression.penni import basis_and_coefficients
from ofa.compression.settings import PenniSettings
from ofa.compression.shared_basis import (
    KernelFactors,
    SparsePenalty,
    factors_of,
    pointwise_layers,
    prune_coefficients,
    share_bases,
    trained_factors,
)
from ofa.data.sources import load_data
from ofa.modules.cost import module_cost
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    ).eval()


NAMES = ("0", "3")


def shared(rank: int = 3) -> nn.Sequential:
    """Return the network with kernels of so many basis kernels."""
    model = network()
    share_bases(model, {name: factors_of(model.get_parameter(f"{name}.weight"), rank) for name in NAMES})
    return model


def weight_of(model: nn.Module, name: str) -> torch.Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach()


def test_the_basis_is_the_best_in_least_squares() -> None:
    weight = torch.randn(10, 6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis, coefficients = basis_and_coefficients(weight, 4)
    rows = basis.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(4, dtype=torch.float64), atol=1e-12)
    error = (torch.einsum("oir,rhw->oihw", coefficients, basis) - weight).norm()
    # Without centring: the values of the kernels as they are.
    dropped = torch.linalg.svdvals(weight.reshape(60, 9))[4:].norm()
    assert float(error) == pytest.approx(float(dropped), rel=1e-10)


def test_all_basis_kernels_compute_the_network() -> None:
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected, outputs = network()(images), shared(rank=9)(images)
    assert torch.allclose(outputs, expected, atol=1e-6)


@pytest.mark.parametrize("form", BASIS_FORMS)
def test_the_forms_compute_what_was_trained(form: str) -> None:
    model = shared()
    prune_coefficients(model, NAMES, (), 0.5)
    images = torch.randn(2, 1, 9, 9)
    with torch.no_grad():
        expected = model(images)
    factors = trained_factors(model, NAMES)
    weights = {name: BASIS_FORMS[form].arranged(own.basis, own.coefficients) for name, own in factors.items()}
    changes = [LayerChange(name, form, (3,)) for name in NAMES]
    changed = apply_filled(model, changes, weights)
    with torch.no_grad():
        assert torch.allclose(changed(images), expected, atol=1e-6)
        assert torch.equal(model(images), expected)
    zeros = int((factors["3"].coefficients == 0).sum())
    coefficients = weight_of(changed, f"3.{BASIS_FORMS[form].coefficient_index}")
    assert zeros > 0 and int((coefficients == 0).sum()) == zeros


def test_a_training_revives_no_coefficient() -> None:
    model = shared()
    prune_coefficients(model, NAMES, (), 1.0)
    before = {name: factors.coefficients for name, factors in trained_factors(model, NAMES).items()}
    share_bases(model, {name: KernelFactors(torch.randn(3, 3, 3), before[name]) for name in NAMES})
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=0.1, nesterov=True)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8)).square().sum().backward()
        optimizer.step()
    after = trained_factors(copy_state(model), NAMES)
    for name in NAMES:
        assert torch.equal(after[name].coefficients == 0, before[name] == 0)
        assert not torch.equal(after[name].coefficients, before[name])


def copy_state(model: nn.Module) -> nn.Module:
    """Return another network with the state of one, as a training that goes on makes it."""
    other = shared()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    return other


def test_small_coefficients_become_zero() -> None:
    model = shared()
    before = {name: factors.coefficients for name, factors in trained_factors(shared(), NAMES).items()}
    prune_coefficients(model, NAMES, ("5",), 1.0)
    for name, own in trained_factors(model, NAMES).items():
        is_small = before[name].abs() < before[name].std(correction=0)
        assert torch.equal(own.coefficients, before[name].masked_fill(is_small, 0.0))
    pointwise = weight_of(network(), "5")
    is_small = pointwise.abs() < pointwise.std(correction=0)
    assert torch.equal(weight_of(model, "5") == 0, is_small) and is_small.any()


def test_a_layer_without_coefficients_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"All coefficients of 0, 3, 5 are below 50 .* smaller penni.threshold"
    ):
        prune_coefficients(shared(), NAMES, ("5",), 50.0)


def test_basis_kernels_that_nothing_uses_go() -> None:
    coefficients = torch.zeros(4, 2, 3)
    coefficients[1, 0, 2] = 1.0
    own = KernelFactors(torch.arange(27.0).reshape(3, 3, 3), coefficients)
    assert torch.equal(own.without_unused.basis, own.basis[2:])
    assert torch.equal(own.without_unused.coefficients, coefficients[:, :, 2:])
    none = KernelFactors(own.basis, torch.zeros(4, 2, 3)).without_unused
    assert len(none.basis) == 1


def test_the_penalty_is_the_norm_and_is_trained_in_turns() -> None:
    model = shared()
    penalty = SparsePenalty(model, NAMES, ("5",), 0.5, turn_epochs=2)
    factors = trained_factors(shared(), NAMES)
    expected = sum(float(own.coefficients.abs().sum()) for own in factors.values())
    expected += float(weight_of(model, "5").abs().sum())
    assert float(penalty()) == pytest.approx(0.5 * expected, rel=1e-5)
    layer = model.get_submodule("0")
    pair = [layer.get_parameter(f"parametrizations.weight.original{index}") for index in (0, 1)]
    turns = []
    for epoch in range(5):
        penalty.before_epoch(epoch)
        turns.append([tensor.requires_grad for tensor in pair])
    coefficients, basis = [False, True], [True, False]
    assert turns == [coefficients, coefficients, basis, basis, coefficients]
    penalty.end()
    assert all(tensor.requires_grad for tensor in pair)
    SparsePenalty(model, NAMES, (), 0.5, turn_epochs=0).before_epoch(3)
    assert all(tensor.requires_grad for tensor in pair)


def test_a_penalty_makes_coefficients_small(tmp_path: Path) -> None:
    data = load_data("digits")
    settings = FinetuneSettings(
        epochs=2,
        lr=0.02,
        batch_size=128,
        momentum=0.9,
        weight_decay=0.0,
        label_smoothing=0.0,
        distillation_ratio=0.0,
        seed=0,
    )
    norms, bases = {}, {}
    for weight in (0.0, 0.02):
        model = shared()
        first = {name: own.basis for name, own in trained_factors(shared(), NAMES).items()}
        penalty = SparsePenalty(model, NAMES, (), weight, turn_epochs=2)
        fit(model, data, settings, resolution=8, penalty=penalty)
        trained = trained_factors(model, NAMES)
        norms[weight] = sum(float(own.coefficients.abs().sum()) for own in trained.values())
        bases[weight] = all(torch.equal(trained[name].basis, first[name]) for name in NAMES)
    assert norms[0.02] < 0.8 * norms[0.0]
    # Both epochs were a turn of the coefficients.
    assert all(bases.values())


def test_pointwise_layers_read_all_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 3), nn.Linear(4, 4)
    )
    assert pointwise_layers(model) == ("0",)


def test_macs_without_zeros_are_those_of_the_other_weights() -> None:
    model, shape = network(), (1, 8, 8)
    full = module_cost(model, shape).macs
    assert nonzero_macs(model, shape) == full and zero_share(model) == 0
    with torch.no_grad():
        model.get_parameter("3.weight")[:, :4] = 0.0
        model.get_parameter("8.weight")[0] = 0.0
    # 4 of 8 inputs at 16 positions, and one output of the linear layer.
    assert nonzero_macs(model, shape) == full - 4 * 12 * 9 * 16 - 16
    assert zero_share(model) == pytest.approx((4 * 12 * 9 + 16) / (72 + 864 + 192 + 160))


def test_bits_of_a_mixed_precision() -> None:
    model = shared()
    factors = trained_factors(model, NAMES)
    others = sum(parameter.numel() for parameter in model.parameters()) - 72 - 864
    expected = 32 * others + 2 * (8 * 27 + 64) + 2 * 3 * (8 + 96)
    assert hybrid_bits(model, factors) == expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rank": 0}, "penni.rank is 0; expected at least 1"),
        ({"length": 0}, "penni.length is 0"),
        ({"turn_epochs": -1}, "penni.turn_epochs is -1"),
        ({"penalty": -1.0}, "penni.penalty is -1"),
        ({"threshold": float("nan")}, "penni.threshold is nan"),
    ],
)
def test_impossible_settings_are_named(values: dict[str, float], text: str) -> None:
    with pytest.raises(UserError, match=text):
        PenniSettings(**values)  # type: ignore[arg-type]


def test_a_rank_beyond_the_kernel_is_named() -> None:
    with pytest.raises(UserError, match="3 cannot become penni 10: rank must be 1 to 9"):
        apply_structure(network(), [LayerChange("3", "penni", (10,))])
