"""Sensitivity of groups, the plan that loses least, and pruning in steps on one conversion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from pruning_toys import fast_smallest, full_macs, num_parameters, two_convolutions
from torch import nn

from ofa.common.errors import UserError
from ofa.common.score_file import ScoreFile
from ofa.graph.convert import make_elastic
from ofa.graph.iterative_pruning import PruningStep, iterative, narrowed, step_limits
from ofa.graph.measured_cost import MeasuredCost
from ofa.graph.pruning_plan import least_loss_plan
from ofa.graph.sensitivity import GroupSensitivity, measure_sensitivity
from ofa.graph.supernet import GraphSupernet
from ofa.space.plain import GeneConfig

NUM_UNITS = {"0": 32, "3": 48}


@pytest.fixture
def supernet() -> GraphSupernet:
    return two_convolutions()


def share(config: GeneConfig, name: str) -> float:
    return dict(config.values)[f"width:{name}"] / NUM_UNITS[name]


def test_each_group_alone_gets_narrower(supernet: GraphSupernet) -> None:
    scored: list[GeneConfig] = []
    steps: list[tuple[int, int]] = []

    def score(config: GeneConfig) -> float:
        scored.append(config)
        return share(config, "0") + 2 * share(config, "3")

    first, second = measure_sensitivity(
        supernet.space, score, num_points=2, progress=lambda done, total, text: steps.append((done, total))
    )
    assert (first.name, first.counts, second.counts) == ("0", (8, 24, 32), (16, 32, 48))
    assert np.allclose(first.losses, (0.75, 0.25, 0)) and np.allclose(second.losses, (4 / 3, 2 / 3, 0))
    assert np.allclose(first.losses_at([8, 16, 32]), (0.75, 0.5, 0))
    assert scored[0] == supernet.space.largest and len(set(scored)) == len(scored) == 5
    assert all(sum(share(config, name) < 1 for name in NUM_UNITS) == 1 for config in scored[1:])
    assert steps == [(number, 5) for number in range(1, 6)]


def test_noise_is_no_gain() -> None:
    noisy = GroupSensitivity("a", (8, 16, 24, 32), (0.7, 0.6, 0.95, 0.9))
    assert np.allclose(noisy.losses, (0.3, 0.3, 0, 0))


def test_an_analysis_has_points(supernet: GraphSupernet) -> None:
    with pytest.raises(UserError, match="are 0; expected at least 1"):
        measure_sensitivity(supernet.space, lambda config: 0.0, num_points=0)


@pytest.mark.parametrize(("weights", "expected"), [((10, 1), "0"), ((1, 10), "3")])
def test_the_plan_narrows_what_matters_less(
    supernet: GraphSupernet, weights: Sequence[float], expected: str
) -> None:
    def score(config: GeneConfig) -> float:
        return weights[0] * share(config, "0") + weights[1] * share(config, "3")

    space = supernet.space
    sensitivity = measure_sensitivity(space, score)
    limits = {"macs": 0.55 * full_macs(supernet)}
    config = least_loss_plan(space, sensitivity, limits, supernet.costs)
    assert supernet.costs["macs"](space.genomes([config]))[0] <= limits["macs"]
    assert {name for name in NUM_UNITS if share(config, name) == 1} == {expected}


def test_no_network_that_fits_loses_clearly_less(supernet: GraphSupernet) -> None:
    """Where more channels win less and less, the greedy choice is near the best of all networks."""
    space, rng, gaps = supernet.space, np.random.default_rng(0), []
    genomes = np.array([[0, a, b] for a in range(4) for b in range(4)], np.int8)
    costs = supernet.costs["macs"](genomes)
    for _ in range(30):
        sensitivity = [
            GroupSensitivity(
                name,
                tuple(map(int, gene.choices)),
                tuple(np.cumsum(-np.sort(-(rng.random(4) ** 2))).tolist()),
            )
            for name, gene in zip(NUM_UNITS, space.genes[1:], strict=True)
        ]
        lost_by_group = [
            group.losses_at(space.genes[column].choices)[genomes[:, column]]
            for column, group in enumerate(sensitivity, 1)
        ]
        losses = np.sum(lost_by_group, axis=0)
        limit = rng.uniform(0.2, 1) * full_macs(supernet)
        config = least_loss_plan(space, sensitivity, {"macs": limit}, supernet.costs)
        row = int(np.flatnonzero((genomes == space.genome(config)).all(axis=1))[0])
        assert costs[row] <= limit
        gaps.append(losses[row] - losses[costs <= limit].min())
    assert np.mean(gaps) < 0.05 and np.mean(np.array(gaps) < 1e-9) > 0.7


def test_an_inserted_network_comes_back_bit_for_bit(supernet: GraphSupernet) -> None:
    space = supernet.space
    config = space.config_of({"resolution": 8, "width:0": 16, "width:3": 32})
    network = supernet.extract(config)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else tensor + 3)
    supernet.insert(config, network)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(supernet(images, config), network(images))
    assert all(
        torch.equal(tensor, network.state_dict()[name])
        for name, tensor in supernet.extract(config).state_dict().items()
    )
    # All other units are silent.
    assert torch.allclose(supernet(images, space.largest), network(images), atol=1e-6)


def check_inserted(supernet: GraphSupernet, config: GeneConfig, images: torch.Tensor) -> None:
    """Check that a changed network is in the supernet bit for bit, under its own config."""
    network = supernet.extract(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.rand_like(parameter))
    supernet.insert(config, network)
    assert torch.equal(supernet(images, config), network(images))


class Block(nn.Module):
    """A residual block whose channels are cut in halves, which only the captured graph makes narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = nn.Conv2d(16, 64, 1), nn.BatchNorm2d(64), nn.Conv2d(32, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.norm(self.inner(x))
        outer: torch.Tensor = self.outer(inner[:, :32] * inner[:, 32:].sigmoid())
        return x + outer


def test_networks_of_a_graph_without_some_blocks_are_inserted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), Block(), Block(), nn.Flatten(), nn.Linear(576, 4))
    supernet = make_elastic(network.eval(), torch.randn(2, 3, 8, 8), depths=[0.5, 1.0]).eval()
    assert not supernet.keeps_class(supernet.space.smallest)
    for config in (supernet.space.smallest, supernet.space.largest):
        check_inserted(supernet, config, torch.randn(2, 3, 8, 8))


def test_networks_with_smaller_kernels_are_inserted_unless_these_were_trained() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 4, 1))
    supernet = make_elastic(network.eval(), torch.randn(2, 3, 8, 8)).eval()
    smallest = supernet.space.smallest
    check_inserted(supernet, smallest, torch.randn(2, 3, 8, 8))
    with torch.no_grad():
        for matrix in supernet.kernel_matrices.values():
            matrix.add_(1)
    with pytest.raises(ValueError, match="were trained"):
        supernet.insert(smallest, supernet.extract(smallest))


def test_networks_no_wider_than_another(supernet: GraphSupernet) -> None:
    config = supernet.space.config_of({"resolution": 8, "width:0": 16, "width:3": 48})
    space = narrowed(supernet.space, config)
    assert space.largest == config
    assert space.allowed_values("width:0") == (8, 16)
    assert space.fingerprint == supernet.space.fingerprint


def test_the_budget_shrinks_by_equal_factors() -> None:
    present, seen = 800.0, []
    for num_left in (3, 2, 1):
        present = step_limits({"macs": 100.0}, {"macs": present}, num_left)["macs"]
        seen.append(present)
    assert np.allclose(seen, [400, 200, 100])
    assert step_limits({"macs": 100.0}, {"macs": 60.0}, 3) == {"macs": 100.0}


def test_a_network_is_pruned_in_steps_and_keeps_what_it_learned(supernet: GraphSupernet) -> None:
    tuned: list[dict[str, torch.Tensor]] = []

    def fine_tune(network: nn.Module, step: PruningStep) -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        tuned.append(network.state_dict())

    limit = 0.3 * full_macs(supernet)
    steps = iterative(
        supernet,
        {"macs": limit},
        num_steps=3,
        recalibrate=nn.Module.eval,
        evaluate=lambda network: float(sum(p.detach().abs().sum() for p in network.parameters())),
        fine_tune=fine_tune,
    )
    assert [step.number for step in steps] == [1, 2, 3]
    costs = [step.costs["macs"] for step in steps]
    assert all(step.costs["macs"] <= step.limits["macs"] for step in steps)
    assert costs == sorted(costs, reverse=True) and costs[-1] <= limit < costs[-2]
    extracted = supernet.extract(steps[-1].config).state_dict()
    assert all(torch.equal(tensor, extracted[name]) for name, tensor in tuned[-1].items())


def test_steps_are_continued_from_their_scores(supernet: GraphSupernet) -> None:
    files = {1: ScoreFile(), 2: ScoreFile()}
    num_scored: list[int] = []

    def run() -> list[PruningStep]:
        torch.manual_seed(0)
        network = make_elastic(
            supernet.extract(supernet.space.largest), torch.randn(2, 3, 8, 8), kernel_sizes=[]
        )

        def evaluate(network: nn.Module) -> float:
            num_scored.append(1)
            return float(sum(p.detach().abs().sum() for p in network.parameters()))

        return iterative(
            network,
            {"parameters": 5000.0},
            num_steps=2,
            recalibrate=nn.Module.eval,
            evaluate=evaluate,
            fine_tune=lambda network, step: None,
            scores_of=files.__getitem__,
        )

    first = run()
    count = len(num_scored)
    assert count == len(files[1]) + len(files[2]) > 8
    assert run() == first and len(num_scored) == count


def test_a_measured_limit_is_kept_as_measured(supernet: GraphSupernet) -> None:
    """The line through the multiply-accumulates is wrong by up to a third; the limit is kept all the same."""
    space = supernet.space

    def measure(configs: Sequence[GeneConfig]) -> list[float]:
        return [1 + 3 * share(c, "0") ** 2 + share(c, "3") for c in configs]

    latency = MeasuredCost(space, measure)
    assert latency.measured([space.smallest])[0] == measure([space.smallest])[0]
    steps = iterative(
        supernet,
        {"latency_ms": 2.5},
        num_steps=2,
        recalibrate=nn.Module.eval,
        evaluate=lambda network: 0.0,
        fine_tune=lambda network, step: None,
        measured={"latency_ms": latency},
    )
    assert steps[-1].costs["latency_ms"] == measure([steps[-1].config])[0] <= 2.5


@pytest.mark.parametrize(
    ("limits", "num_steps", "words"),
    [
        ({"macs": 1e6}, 0, "steps is 0; expected at least 1"),
        ({"macs": 10.0}, 2, "The limit of macs is 10; the smallest network of Sequential has"),
        ({"joules": 1.0}, 2, "There is no cost 'joules'; expected one of macs, "),
        ({}, 2, "There is no limit"),
    ],
)
def test_mistakes_are_explained(
    supernet: GraphSupernet, limits: dict[str, float], num_steps: int, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        iterative(
            supernet,
            limits,
            num_steps=num_steps,
            recalibrate=nn.Module.eval,
            evaluate=lambda network: 0.0,
            fine_tune=lambda network, step: None,
        )


@pytest.mark.parametrize("limit", [1.2, 2.0])
def test_a_measured_limit_that_only_the_smallest_network_keeps(supernet: GraphSupernet, limit: float) -> None:
    (step,) = iterative(
        supernet,
        {"latency_ms": limit},
        num_steps=1,
        recalibrate=nn.Module.eval,
        evaluate=num_parameters,
        fine_tune=lambda network, step: None,
        measured={"latency_ms": MeasuredCost(supernet.space, fast_smallest(supernet))},
    )
    assert step.config == supernet.space.smallest
