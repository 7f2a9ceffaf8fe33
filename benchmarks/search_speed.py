"""Speed and quality of the search on the full MobileNetV3 space, one thread.

50,000 candidates per search; accuracy is an MLP (three hidden layers of 400, float32), fitted in the
script to a saturating function of the network's MACs, resolution and kernels with an interaction of
neighbouring blocks; latency is a compiled sum over layers. Run: python benchmarks/search_speed.py
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from ofa.config import build
from ofa.cost import Estimator, compile_cost, macs
from ofa.layers import LayerSpec
from ofa.space import Genomes, SearchSpace
from predictors.fit import FitSettings, fit_predictor
from predictors.mlp import AccuracyPredictor
from search.constraints import Limit
from search.evolution import EvolutionSettings, evolve
from search.random_search import RandomSettings, search_randomly
from search.result import SearchResult

ROOT = Path(__file__).resolve().parent.parent
SEEDS = range(5)
EVALUATIONS = 50_000
MAX_SECONDS = 2.0


def latency_ms(spec: LayerSpec) -> float:
    """Stand-in for a measured table: time of the arithmetic, of the memory traffic, and a fixed overhead."""
    moved = sum(op.input_elements + op.output_elements for op in spec.operators)
    return 0.02 + macs(spec) / 2e7 + moved / 4e6


def synthetic_top1(space: SearchSpace, rng: np.random.Generator) -> Callable[[Genomes], NDArray[np.float64]]:
    """Return an accuracy that rises with size, saturates, and depends on which blocks are next to another."""
    network_macs = compile_cost(space, macs)
    pairs = 0.15 * rng.standard_normal((space.num_features, space.num_features)) / space.num_features**0.5
    single = 0.2 * rng.standard_normal(space.num_features)

    def top1(genomes: Genomes) -> NDArray[np.float64]:
        features = space.encode(genomes).astype(np.float64)
        texture = features @ single + ((features @ pairs) * features).sum(axis=1)
        size = np.log2(network_macs(genomes) / 1e8)
        return np.asarray(0.82 - 0.06 * np.exp(-0.6 * size) + 0.004 * texture)

    return top1


def fitted_mlp(space: SearchSpace) -> AccuracyPredictor:
    """Return an MLP (num_features -> 400 -> 400 -> 400 -> 1) fitted to 1,500 values of `synthetic_top1`."""
    rng = np.random.default_rng(0)
    genomes = space.sample(1500, rng)
    settings = FitSettings()
    report = fit_predictor(space, genomes, synthetic_top1(space, rng)(genomes), settings, 0, {})
    tau = report.metrics["mlp"]["kendall_tau"]
    print(f"MLP fitted: Kendall tau {tau:.2f} on {report.predictor.info.num_holdout} held-out networks")
    return report.predictor


def compare(space: SearchSpace, accuracy: Estimator, limit: Limit) -> list[SearchResult]:
    """Run both algorithms with each seed, print one line per seed, and return evolution's results."""
    results = []
    for seed in SEEDS:
        found = evolve(space, accuracy, [limit], EvolutionSettings(), np.random.default_rng(seed))
        settings = RandomSettings(evaluations=EVALUATIONS)
        baseline = search_randomly(space, accuracy, [limit], settings, np.random.default_rng(seed))
        print(
            f"{limit.maximum:8.2f} {seed:5d} {found.evaluations:11d} {found.accuracy_evaluations:9d} "
            f"{found.seconds:8.2f} {found.best.accuracy:10.4f} {baseline.best.accuracy:8.4f} "
            f"{found.best.values[limit.name]:9.2f}"
        )
        assert found.evaluations == baseline.evaluations == EVALUATIONS
        assert found.best.values[limit.name] <= limit.maximum
        assert found.best.accuracy > baseline.best.accuracy, "random search was better"
        results.append(found)
    return results


def main() -> None:
    """Print the table; exit with 1 if a search of 50,000 evaluations takes more than two seconds."""
    torch.set_num_threads(1)
    values = yaml.safe_load((ROOT / "conf/space/mobilenet_v3.yaml").read_text())
    space = build(SearchSpace, values)
    accuracy, latency = fitted_mlp(space), compile_cost(space, latency_ms)
    latencies = latency(space.sample(10_000, np.random.default_rng(0)))
    largest = float(latency(space.genomes([space.largest]))[0])
    # The last limit excludes nothing, so that all 50,000 candidates go through the MLP.
    maxima = [float(np.quantile(latencies, share)) for share in (0.01, 0.5)] + [largest]
    print("limit ms  seed  considered  feasible  seconds  evolution   random  found ms")
    medians = []
    for maximum in maxima:
        results = compare(space, accuracy, Limit("latency_ms", latency, maximum, "ms"))
        medians.append(statistics.median(result.seconds for result in results))
    print("median seconds per limit: " + ", ".join(f"{median:.2f}" for median in medians))
    if max(medians) > MAX_SECONDS:
        sys.exit(f"Slower than {MAX_SECONDS} s.")


if __name__ == "__main__":
    main()
