"""The optimiser: its groups, its momentum, steps that are left out, and the learning rate."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from training_run import SPACE

from ofa.common.errors import UserError
from ofa.supernet.supernet import Supernet, build_supernet
from ofa.training.optimizer import build_optimizer, learning_rate, load_optimizer, step_if
from ofa.training.phases import Phase

TRUE, FALSE = torch.tensor(True), torch.tensor(False)


def gradients_of(supernet: Supernet, step: int) -> None:
    """Give the parameters of one sub-network their gradients, and the others none."""
    generator = torch.Generator().manual_seed(step)
    config = (SPACE.smallest, SPACE.largest, SPACE.middle)[step % 3]
    supernet.zero_grad()
    images = torch.randn(4, 1, config.resolution, config.resolution, generator=generator)
    supernet(images.to(memory_format=torch.channels_last), config).square().sum().backward()


def plain_sgd(supernet: Supernet) -> torch.optim.Optimizer:
    """Return unfused SGD with the groups of the fused one."""
    groups = [
        {"params": group["params"], "weight_decay": group["weight_decay"]}
        for group in build_optimizer(supernet, 0.1, 0.9, 1e-3).param_groups
    ]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, foreach=False)


def supernets(number: int) -> list[Supernet]:
    return [build_supernet(SPACE, 0).to(memory_format=torch.channels_last).train() for _ in range(number)]


def copies(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def test_steps_are_those_of_plain_sgd_with_whatever_parameters_a_step_uses() -> None:
    fused, plain = supernets(2)
    ours, theirs = build_optimizer(fused, 0.1, 0.9, 1e-3), plain_sgd(plain)
    for step in range(6):
        gradients_of(fused, step)
        gradients_of(plain, step)
        step_if(ours, TRUE)
        theirs.step()
    expected = copies(plain)
    assert any(not torch.equal(expected[name], start) for name, start in copies(supernets(1)[0]).items())
    for name, found in copies(fused).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-6)


def test_loaded_momentum_takes_the_memory_format_of_its_parameter() -> None:
    """Fused SGD on CPUs would mix up the elements of two formats without an error."""
    weight, image = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 5)
    first, second = copy.deepcopy(weight), copy.deepcopy(weight).to(memory_format=torch.channels_last)
    ours, theirs = (build_optimizer(network, 0.1, 0.9, 0.0) for network in (first, second))

    def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        network.zero_grad()
        network(image).square().sum().backward()
        optimizer.step()

    step(first, ours)
    load_optimizer(theirs, ours.state_dict())
    second.load_state_dict(first.state_dict())
    step(first, ours)
    step(second, theirs)
    torch.testing.assert_close(second.weight, first.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("left_out", [0, 2])
def test_a_step_left_out_changes_nothing(left_out: int) -> None:
    disturbed, undisturbed = supernets(2)
    first, second = (build_optimizer(network, 0.1, 0.9, 1e-3) for network in (disturbed, undisturbed))
    for step in range(4):
        if step == left_out:
            gradients_of(disturbed, 9)
            for parameter in disturbed.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(math.nan)
            step_if(first, FALSE)
        for network, optimizer in ((disturbed, first), (undisturbed, second)):
            gradients_of(network, step)
            step_if(optimizer, TRUE)
    expected = copies(undisturbed)
    assert all(torch.equal(found, expected[name]) for name, found in copies(disturbed).items())


def test_the_momentum_of_unfused_steps_goes_on_fused() -> None:
    before, after = supernets(2)
    theirs = plain_sgd(before)
    gradients_of(before, 0)
    theirs.step()
    saved = copy.deepcopy(theirs.state_dict())
    after.load_state_dict(before.state_dict())
    ours = build_optimizer(after, 0.1, 0.9, 1e-3)
    load_optimizer(ours, saved)
    for network, optimizer in ((before, theirs), (after, ours)):
        gradients_of(network, 1)
        optimizer.step()
    assert len(saved["state"]) < len(ours.state_dict()["state"])
    assert all(group["fused"] for group in ours.param_groups)
    expected = copies(before)
    for name, found in copies(after).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-6)


def test_no_weight_decay_on_norms_and_biases() -> None:
    supernet = Supernet(SPACE)
    names = {id(parameter): name for name, parameter in supernet.named_parameters()}
    decayed, free = build_optimizer(supernet, 0.1, 0.9, 1e-4).param_groups
    assert decayed["weight_decay"] == 1e-4
    assert free["weight_decay"] == 0
    assert all(
        ".bn." in n or "_bn." in n or n.endswith("bias") for n in (names[id(p)] for p in free["params"])
    )
    assert not any("bn" in n or n.endswith("bias") for n in (names[id(p)] for p in decayed["params"]))
    assert len(free["params"]) + len(decayed["params"]) == len(names)


def test_schedule_warms_up_and_follows_a_cosine() -> None:
    assert learning_rate(0, 110, 10, 1.0) == pytest.approx(0.1)
    assert learning_rate(9, 110, 10, 1.0) == pytest.approx(1.0)
    assert learning_rate(10, 110, 10, 1.0) == pytest.approx(1.0)
    assert learning_rate(60, 110, 10, 1.0) == pytest.approx(0.5)
    assert learning_rate(85, 110, 10, 1.0) == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)))


def test_schedule_ends_at_the_final_learning_rate() -> None:
    assert learning_rate(10, 110, 10, 1.0, 0.4) == pytest.approx(1.0)
    assert learning_rate(60, 110, 10, 1.0, 0.4) == pytest.approx(0.7)
    assert learning_rate(110, 110, 10, 1.0, 0.4) == pytest.approx(0.4)
    with pytest.raises(UserError, match=r"final_lr of a phase is 0\.2; expected from 0 to its lr, 0\.1"):
        Phase(epochs=1, lr=0.1, final_lr=0.2)
