"""The inputs of the accuracy MLP, its prior, and its exact posterior."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
import yaml

from ofa.architecture.cost import compile_cost, macs, parameters
from ofa.common.config import build
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec
from predictors.model.evidence import Scales, _negative_log_evidence, covariance, fit_scales, group_products
from predictors.model.features import FeatureMap, space_views
from predictors.model.posterior import Posterior, _ridge

SPACES = sorted((Path(__file__).parents[3] / "conf/space").glob("*.yaml"))
SCALES = Scales(0.1, 0.3, 0.7, 0.5, np.array([0.4, 0.2]), np.array([0.8, 1.5]))
GROUP = np.array([0, 0, 0, 1, 1], np.intp)


def make_space() -> StagedSpace:
    stage = StageSpec(8, 2, (1, 2, 3), (3, 5, 7), (2, 3, 4), "relu", False)
    return StagedSpace("small", "mobilenet_v3", (16, 24, 32), 8, 1, (stage, stage), (16, 16))


def make_columns(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, len(GROUP)))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_inputs_of_every_space_are_one_hot_choices_and_costs(path: Path) -> None:
    space = build(StagedSpace, yaml.safe_load(path.read_text()))
    features = FeatureMap.from_space(space)
    genomes = space.sample(50, np.random.default_rng(0))
    inputs = features(genomes)
    assert inputs.dtype == np.float32
    assert inputs.shape == (50, features.num_inputs)
    for row, genome, active in zip(inputs, genomes, space.active(genomes), strict=True):
        blocks = [np.eye(len(gene.choices))[i] for gene, i in zip(space.genes, genome, strict=True)]
        expected = np.concatenate([block * on for block, on in zip(blocks, active, strict=True)])
        np.testing.assert_array_equal(row[: features.num_choices], expected)
    logs = np.log([[compile_cost(space, cost)(genomes)] for cost in (macs, parameters)])[:, 0].T
    np.testing.assert_allclose(features.log_costs(genomes) * features.cost_std + features.cost_mean, logs)
    assert (
        np.abs(features.log_costs(space.sample(1000, np.random.default_rng(1))).std(axis=0) - 1).max() < 0.1
    )


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_views_of_every_space_are_standardised_and_merge(path: Path) -> None:
    space = build(StagedSpace, yaml.safe_load(path.read_text()))
    features = FeatureMap.from_space(space)
    views = space_views(features)
    columns = views(features(space.sample(3000, np.random.default_rng(1))))
    totals = np.bincount(views.group, columns.var(axis=0))
    assert views.num_groups == 6
    np.testing.assert_allclose(totals, 1.0, atol=0.1)
    np.testing.assert_allclose(columns.mean(axis=0), 0.0, atol=0.1)


def test_a_view_sums_what_belongs_together() -> None:
    space = make_space()
    views = space_views(FeatureMap.from_space(space))
    features = FeatureMap.from_space(space)
    genomes = space.sample(200, np.random.default_rng(2))
    columns = views(features(genomes))[:, views.group == 1]
    # Group 1 is the sum of each kind over the network; for the resolution that is the resolution itself.
    resolution = np.log(np.array(space.resolutions, float))[genomes[:, 0]]
    assert columns.shape == (200, 4)
    assert abs(np.corrcoef(columns[:, 0], resolution)[0, 1]) == pytest.approx(1.0)


def test_the_covariance_is_that_of_random_mlps() -> None:
    columns = make_columns(6)
    rng = np.random.default_rng(1)
    draws, width = 4000, 50
    linear = columns * SCALES.linear_weights[GROUP]
    inner = columns * SCALES.hidden_weights[GROUP]
    outputs = []
    for _ in range(draws):
        first, bias = rng.normal(size=(5, width)), SCALES.hidden_bias * rng.normal(size=width)
        hidden = np.maximum(inner @ first + bias, 0) @ rng.normal(size=width)
        output = SCALES.hidden * np.sqrt(2 / width) * hidden + linear @ rng.normal(size=5)
        outputs.append(output + SCALES.bias * rng.normal() + SCALES.noise * rng.normal(size=6))
    sampled = np.cov(np.array(outputs).T)
    expected = covariance(group_products(columns, GROUP), SCALES).total
    np.testing.assert_allclose(sampled, expected, atol=0.08 * expected.max())


def test_the_gradient_of_the_evidence_is_that_of_finite_differences() -> None:
    products = group_products(make_columns(20), GROUP)
    targets = np.random.default_rng(2).normal(size=20)
    logs = np.random.default_rng(3).normal(-0.5, 0.5, 8)
    found = _negative_log_evidence(products, targets, logs)[1]
    expected = scipy.optimize.approx_fprime(
        logs, lambda x: _negative_log_evidence(products, targets, x)[0], 1e-6
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_scales_find_the_noise_and_what_matters() -> None:
    columns = make_columns(300)
    targets = columns[:, :3] @ np.array([0.5, -0.5, 0.6]) + np.random.default_rng(4).normal(0, 0.3, 300)
    iterations: list[int] = []
    scales = fit_scales(columns, GROUP, targets, 60, lambda iteration, evidence: iterations.append(iteration))
    assert scales.noise == pytest.approx(0.3, rel=0.15)
    assert scales.linear_weights[0] > 4 * scales.linear_weights[1]
    assert scales.hidden * scales.hidden_weights[1] < 0.1
    assert iterations == list(range(1, len(iterations) + 1))
    assert len(iterations) <= 60


def make_posterior(count: int, hidden_units: int = 40, members: int = 4) -> tuple[Posterior, FeatureMap]:
    space = make_space()
    features = FeatureMap.from_space(space)
    genomes = space.sample(count, np.random.default_rng(5))
    inputs = features(genomes)
    targets = inputs[:, -1] + np.random.default_rng(6).normal(0, 0.2, count)
    rng = np.random.default_rng(0)
    posterior = Posterior(
        space_views(features),
        inputs,
        targets,
        hidden_units=hidden_units,
        members=members,
        evidence_records=50,
        max_iterations=20,
        rng=rng,
    )
    return posterior, features


@pytest.mark.parametrize("count", [30, 400])
def test_the_network_is_the_posterior_mean_with_the_views_merged(count: int) -> None:
    posterior, features = make_posterior(count)
    inputs = features(make_space().sample(60, np.random.default_rng(7)))
    network = posterior.network()
    with torch.inference_mode():
        mean, members = network(torch.from_numpy(inputs)), network.members(torch.from_numpy(inputs))
    units = posterior.units(inputs)
    np.testing.assert_allclose(mean, units @ posterior.weights, atol=2e-5)
    np.testing.assert_allclose(members, units @ posterior.members, atol=2e-4)


def test_the_weights_are_the_same_from_either_side() -> None:
    rng = np.random.default_rng(0)
    for rows, columns in ((5, 12), (12, 5)):
        units, targets = rng.normal(size=(rows, columns)), rng.normal(size=(rows, 2))
        expected = np.linalg.solve(units.T @ units + 0.09 * np.eye(columns), units.T @ targets)
        np.testing.assert_allclose(_ridge(units, targets, 0.3), expected)


@pytest.mark.parametrize("count", [30, 400])
def test_members_spread_as_the_posterior_does(count: int) -> None:
    posterior, features = make_posterior(count, members=4000)
    inputs = features(make_space().sample(20, np.random.default_rng(8)))
    members = posterior.units(inputs) @ posterior.members
    rows = posterior.directions(inputs)
    exact = rows @ rows.T
    np.testing.assert_allclose(members.mean(axis=1), posterior.units(inputs) @ posterior.weights, atol=0.05)
    np.testing.assert_allclose(np.cov(members), exact, atol=0.1 * exact.max())
