"""`one_step`: candidates lie inside the limits, are recalibrated, and come back best first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pruning_toys import fast_smallest, full_macs, num_parameters, two_convolutions
from torch import nn

from ofa.architecture.cost import space_costs
from ofa.common.errors import UserError
from ofa.graph.convert import make_elastic
from ofa.graph.measured_cost import MeasuredCost
from ofa.graph.one_step_pruning import candidates_within, one_step
from ofa.graph.supernet import GraphSupernet
from ofa.space.plain import GeneConfig


@pytest.fixture
def supernet() -> GraphSupernet:
    return two_convolutions()


def test_candidates_are_within_the_limits_and_use_them(supernet: GraphSupernet) -> None:
    space, costs = supernet.space, supernet.costs
    full = space.genomes([space.largest])
    limits = {name: 0.5 * costs[name](full)[0] for name in ("macs", "parameters")}
    genomes = candidates_within(space, limits, costs, 6, np.random.default_rng(0))
    assert len({genome.tobytes() for genome in genomes}) == len(genomes) > 3
    shares = np.stack([costs[name](genomes) / limit for name, limit in limits.items()])
    assert (shares <= 1).all()
    uniform = [gene.choices[index] for gene, index in zip(space.genes, genomes[0], strict=True)]
    assert uniform == [8.0, 16.0, 24.0]  # 24 and 32 channels would need 51.5 % of the MACs.


def test_candidates_use_the_budget_where_the_choices_are_fine() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 48, 3), nn.ReLU(), nn.Conv2d(48, 4, 1)
    )
    widths = [share / 16 for share in range(1, 17)]
    space = make_elastic(network.eval(), torch.randn(2, 3, 8, 8), widths=widths, divisor=1).space
    costs = space_costs(space)
    limit = 0.5 * costs["macs"](space.genomes([space.largest]))[0]
    genomes = candidates_within(space, {"macs": limit}, costs, 20, np.random.default_rng(0))
    shares = costs["macs"](genomes) / limit
    assert len(genomes) > 8 and (shares <= 1).all() and (shares[1:] > 0.85).all()


def test_the_best_network_is_first_and_all_were_recalibrated(supernet: GraphSupernet) -> None:
    seen: list[int] = []
    steps: list[tuple[int, int]] = []

    def recalibrate(network: nn.Module) -> None:
        network.eval()
        seen.append(id(network))

    def evaluate(network: nn.Module) -> float:
        assert id(network) == seen[-1]
        return num_parameters(network)

    limit = 0.5 * full_macs(supernet)
    results = one_step(
        supernet,
        {"macs": limit},
        recalibrate=recalibrate,
        evaluate=evaluate,
        num_candidates=4,
        progress=lambda: nullcontext(lambda done, total, text: steps.append((done, total))),
    )
    scores = [result.score for result in results]
    assert scores == sorted(scores, reverse=True) and len(seen) == len(results) == len(steps)
    assert all(result.costs["macs"] <= limit for result in results)


def test_limits_that_cannot_be_reached_name_the_smallest_value(supernet: GraphSupernet) -> None:
    smallest = supernet.costs["macs"](supernet.space.genomes([supernet.space.smallest]))[0]
    for limits, words in (({"macs": 10.0}, f"has {smallest:g}"), ({"joules": 1.0}, "no cost 'joules'")):
        with pytest.raises(UserError, match=words):
            one_step(supernet, limits, recalibrate=nn.Module.eval, evaluate=lambda _: 0.0)


@pytest.mark.parametrize("limit", [1.2, 2.0])
def test_a_measured_limit_that_only_the_smallest_network_keeps(supernet: GraphSupernet, limit: float) -> None:
    results = one_step(
        supernet,
        {"latency_ms": limit},
        recalibrate=nn.Module.eval,
        evaluate=lambda network: 0.0,
        num_candidates=4,
        measured={"latency_ms": MeasuredCost(supernet.space, fast_smallest(supernet))},
    )
    assert [result.config for result in results] == [supernet.space.smallest]
    assert results[0].costs == {"latency_ms": 1.0}


def test_every_candidate_is_measured_within_a_limit(supernet: GraphSupernet) -> None:
    def measure(configs: Sequence[GeneConfig]) -> list[float]:
        return [1 + (dict(config.values)["width:0"] / 32) ** 3 for config in configs]

    results = one_step(
        supernet,
        {"latency_ms": 1.3},
        recalibrate=nn.Module.eval,
        evaluate=num_parameters,
        num_candidates=5,
        measured={"latency_ms": MeasuredCost(supernet.space, measure)},
    )
    assert len(results) >= 3
    assert all(result.costs["latency_ms"] == measure([result.config])[0] <= 1.3 for result in results)


def test_candidates_are_fitted_to_the_network(supernet: GraphSupernet) -> None:
    images, others = torch.randn(24, 3, 8, 8), torch.randn(24, 3, 8, 8)
    with torch.no_grad():
        expected = supernet.extract(supernet.space.largest).eval()(others)

    def closeness(network: nn.Module) -> float:
        with torch.no_grad():
            return -float(((network(others) - expected) ** 2).mean())

    limits = {"macs": 0.5 * full_macs(supernet)}
    sliced, fitted = (
        one_step(
            supernet,
            limits,
            recalibrate=nn.Module.eval,
            evaluate=closeness,
            fitting_images=fitting_images,
            num_candidates=3,
        )
        for fitting_images in (None, images)
    )
    scores = {candidate.config: candidate.score for candidate in sliced}
    assert all(candidate.score > scores[candidate.config] for candidate in fitted)
