"""Searches on the published tables and predictor of the Note10, against what the published search found.

The numbers are predicted top-1 of the published search (100 generations of 500), best of three seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from latency_tables.published.table import import_table, read_published_tables
from latency_tables.table.device import DeviceSpec
from ofa.common.config import build
from ofa.space.estimator import Estimator
from ofa.space.staged import StagedSpace
from predictors.published.predictor import import_predictor
from search.algorithms.evolution import EvolutionSettings, evolve
from search.algorithms.nsga2 import ParetoSettings, search_front
from search.limits.limit import Limit

PUBLISHED_TOP1 = {15: 0.7854, 20: 0.8068, 25: 0.8192, 30: 0.8278, 35: 0.8325, 45: 0.8441, 60: 0.8503}
PUBLISHED_BUDGET = EvolutionSettings(population_size=500, generations=100)


@dataclasses.dataclass(frozen=True)
class Note10:
    """A space, predicted top-1, and the latencies that the published tables of a device give."""

    space: StagedSpace
    accuracy: Estimator
    latency: Callable[[StagedSpace, str], Estimator]

    def limit(self, maximum_ms: float) -> Limit:
        return Limit("latency_ms", self.latency(self.space, "note10"), maximum_ms, "ms")


@pytest.fixture(scope="module")
def note10(load_space: Callable[[str], StagedSpace], shared_data: Path, root: Path) -> Note10:
    whole = dataclasses.replace(load_space("mobilenet_v3"), width_multiplier=1.2)
    space = whole.restrict({"resolution": [160, 176, 192, 208, 224]})
    device = yaml.safe_load((root / "conf" / "device" / "imported.yaml").read_text())

    def latency(space: StagedSpace, name: str) -> Estimator:
        tables = read_published_tables([shared_data / "latency" / name])
        missing_ms = {"AvgPool2D": 0.0} if name == "ultra96" else {}
        spec = build(DeviceSpec, {**device, "name": name})
        return import_table(space, tables, spec, missing_ms).estimator(space)

    predictor = import_predictor(shared_data / "predictor" / "ofa_mbv3_acc_predictor.pth", space)
    return Note10(space, predictor, latency)


def test_the_default_search_comes_close_to_the_best_that_is_known(note10: Note10) -> None:
    result = evolve(
        note10.space, note10.accuracy, [note10.limit(25.0)], EvolutionSettings(), np.random.default_rng(0)
    )
    assert result.best.accuracy >= 0.8216
    assert result.best.values["latency_ms"] <= 25.0


def test_the_published_budget_finds_more_than_the_published_search(note10: Note10) -> None:
    maximum_ms = 45
    limits, rng = [note10.limit(maximum_ms)], np.random.default_rng(0)
    result = evolve(note10.space, note10.accuracy, limits, PUBLISHED_BUDGET, rng)
    assert result.evaluations == 50_000
    assert result.best.accuracy > PUBLISHED_TOP1[maximum_ms]
    assert result.best.values["latency_ms"] <= maximum_ms


def test_one_short_run_for_the_front_beats_every_published_search(note10: Note10) -> None:
    settings = ParetoSettings(population_size=1000, generations=40)
    limits, rng = [note10.limit(80.0)], np.random.default_rng(0)
    result = search_front(note10.space, note10.accuracy, limits, settings, rng)
    for maximum_ms, published in PUBLISHED_TOP1.items():
        assert result.best_within([maximum_ms]).accuracy > published


def test_limits_on_two_devices_are_kept_at_once(note10: Note10) -> None:
    space = note10.space.restrict({"resolution": [224]})
    names, maxima = ("note10", "ultra96"), (35.0, 15.0)
    limits = [
        Limit(name, note10.latency(space, name), maximum, "ms")
        for name, maximum in zip(names, maxima, strict=True)
    ]
    settings = EvolutionSettings(population_size=500, generations=20)

    def search(*chosen: Limit) -> tuple[float, dict[str, float]]:
        best = evolve(space, note10.accuracy, chosen, settings, np.random.default_rng(0)).best
        row = space.genomes([best.config])
        return best.accuracy, {limit.name: float(limit.estimator(row)[0]) for limit in limits}

    accuracy, values = search(*limits)
    assert values["note10"] <= 35.0 and values["ultra96"] <= 15.0
    for limit in limits:
        alone, values = search(limit)
        if all(values[name] <= maximum for name, maximum in zip(names, maxima, strict=True)):
            assert accuracy >= alone
