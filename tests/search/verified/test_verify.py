"""Verified search on a device whose true latencies are known: what it returns, measures and says."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ofa.architecture.cost import compile_cost, macs, parameters
from ofa.common.errors import UserError
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from search.algorithms.registry import SearchPlan, plan_search
from search.limits.limit import Limit
from search.reports.files import save_all
from search.reports.text import report
from search.result.result import SearchResult
from search.result.verification import VerifiedNetwork
from search.verified.correction import MAX_MARGIN, MIN_MARGIN, fit_correction, fit_margin
from search.verified.verify import VerifySettings, verified_search

PLAN = plan_search({"algorithm": "evolution", "population_size": 30, "generations": 12})


class Device:
    """True latencies: the predicted ones, times a bias, times an error of each network's own."""

    def __init__(
        self,
        space: StagedSpace,
        predicted: Estimator,
        bias: float,
        error: float = 0.02,
        noise: float = 0.002,
        is_local: bool = True,
        known: Mapping[SubnetConfig, Sequence[float]] | None = None,
    ) -> None:
        self.space, self.predicted, self.bias, self.error, self.noise = space, predicted, bias, error, noise
        self.is_local, self.known_values = is_local, dict(known or {})
        self.rng = np.random.default_rng(5)
        self.asked: list[list[SubnetConfig]] = []
        weights = np.random.default_rng(11).standard_normal(space.num_features)
        spread = weights @ np.cov(space.encode(space.sample(500, np.random.default_rng(3))).T) @ weights
        self.weights = weights / np.sqrt(spread)

    def true(self, genomes: Genomes) -> NDArray[np.float64]:
        features = self.space.encode(genomes).astype(np.float64)
        return np.asarray(
            self.predicted(genomes) * self.bias * np.exp(self.error * (features @ self.weights))
        )

    def values(self, configs: Sequence[SubnetConfig], processes: int = 3) -> dict[SubnetConfig, list[float]]:
        true = self.true(self.space.genomes(list(configs)))
        noise = np.exp(self.noise * self.rng.standard_normal((len(configs), processes)))
        return dict(zip(configs, (true[:, None] * noise).tolist(), strict=True))

    def __call__(self, configs: Sequence[SubnetConfig]) -> dict[SubnetConfig, list[float]]:
        self.asked.append(list(configs))
        return self.values(configs) if self.is_local else {}


def milliseconds(space: StagedSpace) -> Estimator:
    count = compile_cost(space, macs)
    return lambda genomes: count(genomes) / 1e6 + 0.5


def search(
    space: StagedSpace, device: Device, maximum: float, plan: SearchPlan = PLAN, turns: int = 4
) -> SearchResult:
    limit = Limit("latency_ms", device.predicted, maximum, "ms")
    return verified_search(plan, space, accuracy_of(space), [limit], 0, device, VerifySettings(turns))


def accuracy_of(space: StagedSpace) -> Estimator:
    size, count = compile_cost(space, parameters), compile_cost(space, macs)
    return lambda genomes: 0.5 + 0.05 * np.log(count(genomes)) / 10 + 0.02 * np.log(size(genomes)) / 10


Searched = tuple[Device, SearchResult]


@pytest.fixture(scope="module")
def searched(small_space: StagedSpace) -> Searched:
    """A search at 1 ms that is done, on a device that takes 1.1 times as long as predicted."""
    device = Device(small_space, milliseconds(small_space), 1.1)
    return device, search(small_space, device, 1.0)


@pytest.mark.parametrize(("bias", "quantile"), [(0.8, 0.1), (1.0, 0.5), (1.25, 0.9)])
def test_the_true_latency_of_the_best_is_inside_and_near_the_limit(
    small_space: StagedSpace, bias: float, quantile: float
) -> None:
    device = Device(small_space, milliseconds(small_space), bias)
    drawn = small_space.sample(4000, np.random.default_rng(1))
    true = device.true(drawn)
    maximum = float(np.quantile(true, quantile))
    result = search(small_space, device, maximum)
    chosen = small_space.genome(result.best.config)[None]
    assert 0.9 * maximum <= device.true(chosen)[0] <= maximum
    # It beats everything drawn that is inside, with room for margin and error.
    inside = accuracy_of(small_space)(drawn[true <= 0.93 * maximum])
    assert result.best.accuracy == pytest.approx(accuracy_of(small_space)(chosen)[0])
    assert result.best.accuracy >= inside.max()


def test_what_is_measured_is_bounded_and_distinct(searched: Searched) -> None:
    device, result = searched
    turns = [asked for asked in device.asked if len(asked) > 1]
    assert 1 <= len(turns) <= 4 + 3
    assert all(len(asked) <= 6 for asked in turns)
    measured = [config for asked in turns for config in asked]
    assert len(set(measured)) == len(measured)
    # The best was measured again, alone.
    assert device.asked[-1] == [result.best.config]
    assert result.verification is not None
    chosen = next(n for n in result.verification.networks if n.config == result.best.config)
    assert [len(values) for values in chosen.measurements] == [3, 3]
    assert result.verification.best_id == chosen.config.id
    assert result.verification.scale == pytest.approx(1.1, rel=0.05)


def test_the_best_and_all_ranked_are_measured_inside_with_the_margin(searched: Searched) -> None:
    _, result = searched
    assert result.verification is not None
    by_config = {n.config: n for n in result.verification.networks}
    for candidate in result.ranked:
        network = by_config[candidate.config]
        assert candidate.values["latency_ms"] == network.measured
        assert network.measured * (1 + result.verification.margin) <= 1.0
    best = [n.accuracy for n in result.verification.networks if result.verification.keeps(n, 1.0)]
    assert result.best.accuracy == max(best)


def test_a_second_measurement_outside_the_limit_counts(small_space: StagedSpace) -> None:
    class Lucky(Device):
        """The first measurement of each network is 5 % short."""

        def __call__(self, configs: Sequence[SubnetConfig]) -> dict[SubnetConfig, list[float]]:
            seen = {config for asked in self.asked for config in asked}
            values = super().__call__(configs)
            return {c: [v * (1 if c in seen else 0.95) for v in values[c]] for c in configs}

    device = Lucky(small_space, milliseconds(small_space), 1.0)
    result = search(small_space, device, 1.0)
    assert device.true(small_space.genome(result.best.config)[None])[0] <= 1.0


def test_if_every_second_measurement_is_outside_the_limit_the_smallest_network_is_left(
    small_space: StagedSpace,
) -> None:
    class Slowing(Device):
        """A network alone takes twice as long as beside others; the smallest one does not."""

        def __call__(self, configs: Sequence[SubnetConfig]) -> dict[SubnetConfig, list[float]]:
            values = super().__call__(configs)
            slow = 2.0 if len(configs) == 1 and configs[0] != self.space.smallest else 1.0
            return {config: [slow * v for v in values[config]] for config in configs}

    device = Slowing(small_space, milliseconds(small_space), 1.0)
    result = search(small_space, device, 1.0, turns=1)
    assert result.verification is not None
    assert result.best.config == small_space.smallest
    assert result.verification.best_id == small_space.smallest.id
    # Where the smallest network does not keep the limit either, that is an error.
    smallest = float(device.true(small_space.genomes([small_space.smallest]))[0])
    with pytest.raises(UserError, match="smallest reachable was measured"):
        search(small_space, Slowing(small_space, milliseconds(small_space), 1.0), 1.001 * smallest, turns=1)


def test_a_busy_first_measurement_is_made_again(small_space: StagedSpace) -> None:
    class Busy(Device):
        """Everything takes twice as long while the first networks are measured."""

        def __call__(self, configs: Sequence[SubnetConfig]) -> dict[SubnetConfig, list[float]]:
            slow = 1.0 if self.asked else 2.0
            found = super().__call__(configs)
            return {config: [slow * value for value in values] for config, values in found.items()}

    device = Busy(small_space, milliseconds(small_space), 1.1, error=0.0)
    maximum = 1.5 * float(device.true(small_space.genomes([small_space.smallest]))[0])
    result = search(small_space, device, maximum)
    true = device.true(small_space.genomes([result.best.config]))[0]
    assert 0.9 * maximum <= true <= maximum


def test_a_limit_below_the_smallest_network_names_what_was_measured(small_space: StagedSpace) -> None:
    predicted = milliseconds(small_space)
    device = Device(small_space, predicted, 1.5, error=0.0, noise=0.0)
    smallest = float(predicted(small_space.genome(small_space.smallest)[None])[0])
    with pytest.raises(UserError, match="No sub-network of space 'small' reaches latency_ms") as caught:
        search(small_space, device, 0.1)
    assert device.asked == [[small_space.smallest]]
    assert f"measured at {1.5 * smallest:.4g}"[:14] in str(caught.value)
    assert f"predicted {smallest:.4g}"[:13] in str(caught.value)
    # Predicted to be reachable, measured not to be.
    with pytest.raises(UserError, match="smallest reachable was measured"):
        search(small_space, device, 1.2 * smallest)


def test_a_limit_that_the_table_takes_for_unreachable_is_tried(small_space: StagedSpace) -> None:
    predicted = milliseconds(small_space)
    device = Device(small_space, predicted, 0.7, error=0.0, noise=0.0)
    smallest = float(predicted(small_space.genome(small_space.smallest)[None])[0])
    result = search(small_space, device, 0.9 * smallest)
    true = device.true(small_space.genome(result.best.config)[None])[0]
    assert 0.9 * 0.9 * smallest <= true <= 0.9 * smallest


def test_the_largest_network_may_be_far_under_the_limit(small_space: StagedSpace) -> None:
    device = Device(small_space, milliseconds(small_space), 1.0)
    largest = device.true(small_space.genome(small_space.largest)[None])[0]
    result = search(small_space, device, 3 * largest)
    assert result.best.accuracy == pytest.approx(
        accuracy_of(small_space)(small_space.genome(small_space.largest)[None])[0], rel=1e-3
    )


def test_other_limits_stay(small_space: StagedSpace) -> None:
    device = Device(small_space, milliseconds(small_space), 1.1)
    size = compile_cost(small_space, parameters)
    limits = [Limit("latency_ms", device.predicted, 1.5, "ms"), Limit("parameters", size, 60_000.0)]
    result = verified_search(PLAN, small_space, accuracy_of(small_space), limits, 0, device)
    assert result.best.values["parameters"] == size(small_space.genome(result.best.config)[None])[0] <= 60_000
    assert [limit.maximum for limit in result.limits] == [1.5, 60_000]


def test_another_device_gets_a_request_and_then_a_verified_network(small_space: StagedSpace) -> None:
    there = Device(small_space, milliseconds(small_space), 1.1, is_local=False)
    first = search(small_space, there, 1.0)
    assert first.verification is not None and first.verification.best_id is None
    assert first.verification.networks == ()
    assert list(first.verification.pending) == there.asked[0] and len(there.asked) == 1
    assert "not measured yet" in report(first, [Limit("latency_ms", there.predicted, 1.0, "ms")])
    back = Device(
        small_space, there.predicted, 1.1, is_local=False, known=there.values(first.verification.pending)
    )
    second = search(small_space, back, 1.0)
    assert second.verification is not None
    assert {n.config for n in second.verification.networks} == set(first.verification.pending)
    if second.verification.best_id is None:
        assert second.verification.pending
    # The next request knows better: most of it is inside.
    known = {**back.known_values, **back.values(second.verification.pending)}
    third = search(small_space, Device(small_space, there.predicted, 1.1, is_local=False, known=known), 1.0)
    assert there.true(small_space.genome(third.best.config)[None])[0] <= 1.0
    assert third.verification is not None and third.verification.best_id == third.best.config.id


def test_equal_arguments_give_equal_results(small_space: StagedSpace, searched: Searched) -> None:
    results = [
        search(small_space, Device(small_space, milliseconds(small_space), 1.1), 1.0) for _ in range(2)
    ]
    assert results[0] == results[1]


def test_the_result_is_a_file_with_its_measurements(searched: Searched, tmp_path: Path) -> None:
    device, result = searched
    save_all(result, tmp_path / "r.json", {})
    assert SearchResult.load(tmp_path / "r.json", device.space) == result
    values = json.loads((tmp_path / "r.json").read_text())
    networks = values["verification"]["networks"]
    assert len(networks) == len(device.known_values) + len({c for asked in device.asked for c in asked})
    assert all(n["measured"] == max(map(statistics.median, n["measurements"])) for n in networks)
    assert (tmp_path / "r.png").stat().st_size > 10_000
    for name, wrong in (("networks", [3]), ("scale", "x"), ("pending", None)):
        broken = {**values, "verification": {**values["verification"], name: wrong}}
        (tmp_path / "b.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match="damaged"):
            SearchResult.load(tmp_path / "b.json", device.space)


def test_the_report_shows_predicted_and_measured(searched: Searched) -> None:
    device, result = searched
    text = report(result, [Limit("latency_ms", device.predicted, 1.0, "ms")])
    assert result.verification is not None
    measured_rows = text[text.index("measured ") :]
    for network in result.verification.networks:
        rows = (line for line in measured_rows.splitlines() if line.endswith(network.config.id))
        line = next(rows)
        assert f"{network.predicted:.4g}" in line and f"{network.measured:.4g}" in line
    assert "measured in 6 processes" in text
    assert max(map(len, text.split("best of")[0].splitlines())) <= 100


def test_a_busy_device_is_told(small_space: StagedSpace, searched: Searched) -> None:
    limit = Limit("latency_ms", searched[0].predicted, 1.0, "ms")
    assert "when it is quiet" not in report(searched[1], [limit])
    busy = Device(small_space, milliseconds(small_space), 1.0, noise=0.2)
    assert "when it is quiet" in report(search(small_space, busy, 1.0), [limit])


def test_a_front_or_an_infinite_limit_cannot_be_verified(small_space: StagedSpace) -> None:
    device = Device(small_space, milliseconds(small_space), 1.0)
    with pytest.raises(UserError, match="search=pareto finds a whole front"):
        search(small_space, device, 1.0, plan_search({"algorithm": "pareto"}))
    with pytest.raises(UserError, match="latency_ms is infinite"):
        search(small_space, device, float("inf"))
    with pytest.raises(UserError, match=r"turns is 0; expected at least 1.*processes is 0"):
        VerifySettings(turns=0, processes=0)


def network(predicted: float, *measured: float) -> VerifiedNetwork:
    config = SubnetConfig.from_dict(
        {"resolution": 8, "stages": [{"kernel_sizes": [3], "expand_ratios": [predicted]}]}
    )
    return VerifiedNetwork(config, 0.5, predicted, (measured,))


def test_the_correction_is_the_median_near_the_limit() -> None:
    near = [network(1.0, 1.1), network(1.02, 1.1016), network(0.98, 1.0976)]
    correction = fit_correction(near, 1.1)
    assert correction.scale == pytest.approx(1.1)
    # Ratios 1.1, 1.08, 1.12: deviations of 2 % in logarithms, 1.4826 times as a standard deviation.
    assert correction.spread == pytest.approx(1.4826 * np.log(1.1 / 1.08), rel=0.05)
    far = network(1.0, 5.0)
    assert fit_correction([*near, far], 1.1) == correction
    assert fit_correction([far], 1.1).scale == pytest.approx(5.0)
    assert fit_correction([], 1.1).scale == 1.0


def test_the_margin_follows_what_processes_differ_by() -> None:
    quiet, noisy = [network(1.0, 1.0, 1.001, 0.999)], [network(1.0, 1.0, 1.01, 0.99)]
    assert fit_margin(quiet) == MIN_MARGIN
    # 1.4826 * 1 % for a process; medians of 3 and of 5 processes; 2.5 standard deviations.
    assert fit_margin(noisy) == pytest.approx(2.5 * 0.014826 * np.sqrt(np.pi / 2 * (1 / 3 + 1 / 5)), rel=1e-6)
    assert fit_margin([network(1.0, 1.0, 1.5, 0.5)]) == MAX_MARGIN
    # One disturbed process among many networks changes little.
    many = [network(1.0, 1.0, 1.01, 0.99) for _ in range(5)]
    assert fit_margin([*many, network(1.0, 1.0, 1.4, 0.99)]) == pytest.approx(fit_margin(noisy), rel=1e-6)
    assert MIN_MARGIN < fit_margin([network(1.0, 1.0)]) < MAX_MARGIN


def test_measured_is_the_worst_of_its_medians() -> None:
    first = network(1.0, 1.0, 1.2, 0.9)
    assert first.measured == 1.0
    assert dataclasses.replace(first, measurements=((1.0, 1.2, 0.9), (1.05,))).measured == 1.05
