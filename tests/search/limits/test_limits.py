"""Limits and reachability against enumeration of a small space."""

from __future__ import annotations

import itertools
import re
import zlib

import numpy as np
import pytest

from ofa.architecture.cost import compile_cost, macs, network_cost, parameters
from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import lower
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.subnet import BlockConfig, SubnetConfig
from search.limits.limit import Limit, check_limits, feasible, limit_values, violations
from search.limits.reachable import (
    loose_limit_lines,
    reachable_genome,
    reachable_range,
    smallest_reachable,
)


def enumerate_configs(space: StagedSpace) -> list[SubnetConfig]:
    """All networks of the whole space, straight from its choices."""
    per_stage = []
    for stage in space.stages:
        blocks = [BlockConfig(k, e) for k in stage.kernel_sizes for e in stage.expand_ratios]
        per_stage.append([c for depth in stage.depths for c in itertools.product(blocks, repeat=depth)])
    return [
        SubnetConfig(resolution, stages)
        for resolution in space.resolutions
        for stages in itertools.product(*per_stage)
    ]


def arbitrary_cost(spec: LayerSpec) -> float:
    """A cost that does not grow with size: a hash of the layer."""
    return 1.0 + zlib.crc32(spec.key.encode()) / 2**32


@pytest.mark.parametrize("maximum", [0.0, -1.0, float("nan")])
def test_limit_maximum_is_checked(micro_space: StagedSpace, maximum: float) -> None:
    with pytest.raises(UserError, match=r"Limit latency_ms is .*; expected a positive number"):
        Limit("latency_ms", compile_cost(micro_space, macs), maximum)


def test_names_of_limits_in_names_of_results(micro_space: StagedSpace) -> None:
    estimator = compile_cost(micro_space, macs)
    assert Limit("macs_m", estimator, 120.0, "M MACs").short == "120MMACs"
    assert Limit("macs_m", estimator, 5e6, "M MACs").short == "5000000MMACs"
    assert Limit("latency_ms", estimator, 2e-5, "ms").short == "0.00002ms"
    unbounded = Limit("latency_ms on phone", estimator, float("inf"), "ms")
    assert not unbounded.bounded
    assert unbounded.short == "latency_ms_on_phone"


def test_limits_need_names_that_differ(micro_space: StagedSpace) -> None:
    estimator = compile_cost(micro_space, macs)
    with pytest.raises(UserError, match="no name"):
        Limit("", estimator, 1.0)
    with pytest.raises(UserError, match="at least one limit"):
        check_limits([])
    with pytest.raises(UserError, match="More than one limit is named macs"):
        check_limits([Limit("macs", estimator, 1.0), Limit("macs", estimator, 2.0)])


def test_violation_and_feasibility(micro_space: StagedSpace) -> None:
    values = np.array([[1.0, 30.0], [2.0, 20.0], [3.0, 10.0]])
    limits = [
        Limit("a", lambda genomes: values[: len(genomes), 0], 2.0),
        Limit("b", lambda genomes: values[: len(genomes), 1], 20.0),
    ]
    genomes = np.zeros((3, 1), np.int8)
    assert limit_values(limits, genomes).tolist() == values.tolist()
    assert violations(limits, values).tolist() == [[0.0, 0.5], [0.0, 0.0], [0.5, 0.0]]
    assert feasible(limits, genomes).tolist() == [False, True, False]


@pytest.mark.parametrize("cost", [macs, parameters, arbitrary_cost])
def test_smallest_reachable_is_the_enumerated_minimum(micro_space: StagedSpace, cost) -> None:  # type: ignore[no-untyped-def]
    configs = enumerate_configs(micro_space)
    assert len(set(configs)) == micro_space.size
    expected = min(sum(cost(spec) for spec in lower(micro_space, config)) for config in configs)
    estimator = compile_cost(micro_space, cost)
    genome, value = smallest_reachable(micro_space, estimator, np.random.default_rng(0))
    assert value == pytest.approx(expected, rel=1e-12)
    assert estimator(genome[None])[0] == value


def test_smallest_reachable_stays_in_a_restricted_space(micro_space: StagedSpace) -> None:
    restricted = micro_space.restrict({"resolution": [12], "kernel_size": [5], "expand_ratio": [4, 6]})
    genome, value = smallest_reachable(restricted, compile_cost(restricted, macs), np.random.default_rng(0))
    config = restricted.config(genome)
    assert restricted.contains(config)
    assert config == restricted.smallest
    assert value == network_cost(lower(restricted, restricted.smallest)).macs


def test_unreachable_limit_names_the_reachable_range(micro_space: StagedSpace) -> None:
    costs = [network_cost(lower(micro_space, config)).macs for config in enumerate_configs(micro_space)]
    smallest = min(costs)
    estimator = compile_cost(micro_space, macs)
    with pytest.raises(UserError) as caught:
        reachable_genome(
            micro_space, [Limit("macs", estimator, smallest - 1, "MACs")], np.random.default_rng(0)
        )
    pattern = (
        rf"No sub-network of space 'micro' reaches macs = {smallest - 1} MACs; sub-networks have "
        r"(\d+) to (\d+) MACs\. Raise the limit to at least (\d+) MACs\."
    )
    match = re.fullmatch(pattern, str(caught.value))
    assert match is not None, str(caught.value)
    low, high, hint = map(int, match.groups())
    assert low == hint
    # Three digits, rounded up: the hint is a limit that the smallest network keeps.
    assert 0 <= low - smallest < 0.01 * smallest and 0 <= high - max(costs) < 0.01 * max(costs)
    reachable_genome(micro_space, [Limit("macs", estimator, hint)], np.random.default_rng(0))
    exactly = Limit("macs", estimator, smallest, "MACs")
    found = reachable_genome(micro_space, [exactly], np.random.default_rng(0))
    assert micro_space.config(found) == micro_space.smallest


@pytest.mark.parametrize("cost", [macs, parameters, arbitrary_cost])
def test_the_range_of_a_quantity_is_the_enumerated_one(micro_space: StagedSpace, cost) -> None:  # type: ignore[no-untyped-def]
    values = [sum(map(cost, lower(micro_space, config))) for config in enumerate_configs(micro_space)]
    reached = reachable_range(micro_space, compile_cost(micro_space, cost), np.random.default_rng(0))
    assert reached == pytest.approx((min(values), max(values)), rel=1e-12)


def test_limits_that_do_not_bind_are_said(micro_space: StagedSpace) -> None:
    estimator = compile_cost(micro_space, macs)
    low, high = estimator(micro_space.genomes([micro_space.smallest, micro_space.largest]))
    tight, loose = (Limit("macs_m", estimator, maximum, "M MACs") for maximum in (high - 1, 5e9))
    unbounded = Limit("macs", estimator, float("inf"))
    assert loose_limit_lines(micro_space, [tight, unbounded]) == []
    (line,) = loose_limit_lines(micro_space, [tight, loose, unbounded])
    assert line == (
        f"macs_m = 5000000000 M MACs does not bind: the largest sub-network has {loose.show(high, 3)}, "
        f"the smallest {loose.show(low, 3)}"
    )
    (line,) = loose_limit_lines(micro_space, [Limit("macs", estimator, high)])
    assert "does not bind" in line


def test_all_unreachable_limits_are_named_at_once(micro_space: StagedSpace) -> None:
    limits = [
        Limit("macs", compile_cost(micro_space, macs), 1.0),
        Limit("parameters", compile_cost(micro_space, parameters), 2.0),
        Limit("other", compile_cost(micro_space, macs), 1e12),
    ]
    with pytest.raises(UserError) as caught:
        reachable_genome(micro_space, limits, np.random.default_rng(0))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "macs = 1;" in lines[0]
    assert "parameters = 2;" in lines[1]


def test_limits_that_exclude_each_other(micro_space: StagedSpace) -> None:
    estimator = compile_cost(micro_space, macs)
    smallest = estimator(micro_space.genomes([micro_space.smallest]))[0]
    largest = estimator(micro_space.genomes([micro_space.largest]))[0]
    limits = [
        Limit("macs", estimator, smallest * 1.01),
        Limit("inverse", lambda genomes: 1e6 / estimator(genomes), 1e6 / (largest * 0.99)),
    ]
    with pytest.raises(UserError, match="keeps all limits at once") as caught:
        reachable_genome(micro_space, limits, np.random.default_rng(0))
    shown = [float(value) for value in re.findall(r"smallest alone ([0-9.e+-]+),", str(caught.value))]
    assert shown == pytest.approx([smallest, 1e6 / largest], rel=1e-5)


@pytest.mark.parametrize("value", [3.4567891, 3.456789, 123456789.0, 0.99999991, 12.5, 7.0])
def test_shown_values_are_limits_that_the_value_keeps(micro_space: StagedSpace, value: float) -> None:
    limit = Limit("latency_ms", compile_cost(micro_space, macs), 1.0, "ms")
    number, unit = limit.show(value).split()
    assert unit == "ms"
    assert value <= float(number) <= value * (1 + 1e-5)
