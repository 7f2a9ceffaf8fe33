"""Quality of the accuracy predictor, and of collection strategies, on measured ImageNet accuracies.

1,081 sub-networks of the width-1.0 MobileNetV3 supernet, with public measurements (IntelLabs/DyNAS-T). Three
parts, each printed as a table, one thread:

- `predictors`: fitted on N random records, evaluated on all others, means over splits. The plain MLP has the
  three hidden layers of 400 of the published predictor.
- `collection`: records chosen from a pool at random, evenly over log MACs, or by the predictor itself;
  evaluated on 300 networks outside the pool, means over runs.
- `speed`: predictions per second.

Run: python benchmarks/predictor_quality.py [--parts predictors collection speed] [--counts 50 100 250 500]
     [--splits 10] [--first 0]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from ofa.architecture.cost import compile_cost, macs
from ofa.common.config import build
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from ofa.space.subnet import BlockConfig, SubnetConfig
from predictors.baselines import BASELINES, accuracy_metrics, fit_baseline
from predictors.collection.active import choose_batch, design_posterior
from predictors.collection.sampling import stratified_order
from predictors.fitting import fit_mlp, interval_metrics
from predictors.model.features import FeatureMap
from predictors.settings import FitSettings

ROOT = Path(__file__).resolve().parent.parent
COUNTS = (50, 100, 250, 500)
# Largest RMSE in points of top-1, and smallest tau, that the predictor has to reach.
MAX_RMSE = {100: 0.27, 250: 0.14, 500: 0.115}
MIN_TAU = {500: 0.94}
COVERAGE = (0.80, 0.97)
HELD_OUT = 300
STEPS = (50, 100, 150, 200, 250, 300, 350, 400)
SEED_RECORDS = BATCH_SIZE = 25
MAX_SHARE = 0.7
COLUMNS = ("rmse_points", "kendall_tau", "coverage", "seconds")


def load_measurements() -> tuple[StagedSpace, Genomes, NDArray[np.float64]]:
    """Return the space, the networks and their top-1 fractions."""
    folder = Path(os.environ.get("OFA_SHARED_DATA", ROOT.parent / "shared" / "data"))
    path = folder / "accuracy" / "ofa_mbv3_w1.0_imagenet.jsonl"
    if not path.is_file():
        sys.exit(f"No measured accuracies at {path}; set OFA_SHARED_DATA to the folder of the data.")
    space = build(StagedSpace, yaml.safe_load((ROOT / "conf/space/mobilenet_v3.yaml").read_text()))
    configs, top1 = [], []
    for row in map(json.loads, path.read_text().splitlines()):
        blocks = [BlockConfig(k, e) for k, e in zip(row["ks"], row["e"], strict=True)]
        stages = tuple(tuple(blocks[4 * s : 4 * s + depth]) for s, depth in enumerate(row["d"]))
        configs.append(SubnetConfig(row["resolution"], stages))
        top1.append(row["top1"] / 100)
    return space, space.genomes(configs), np.array(top1)


def split_metrics(
    space: StagedSpace, genomes: Genomes, top1: NDArray[np.float64], count: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return the metrics of every model fitted on `count` records of the split with that seed."""
    order = np.random.default_rng(seed).permutation(len(top1))
    known, rest = order[:count], order[count:]
    start = time.perf_counter()
    predictor = fit_mlp(space, genomes[known], top1[known], FitSettings(), seed)
    seconds = time.perf_counter() - start
    found = {"ours": {**interval_metrics(predictor, genomes[rest], top1[rest]), "seconds": seconds}}
    features = space.encode(genomes)
    for name, fit in BASELINES.items():
        start = time.perf_counter()
        predict = fit_baseline(fit, features[known], top1[known], seed)
        seconds = time.perf_counter() - start
        found[name] = {**accuracy_metrics(predict(features[rest]), top1[rest]), "seconds": seconds}
    return found


def compare_predictors(counts: Sequence[int], splits: range) -> list[str]:
    """Print means over the splits for each number of records, and return unmet requirements."""
    space, genomes, top1 = load_measurements()
    problems = []
    print("records  predictor          RMSE points  Kendall tau  in 90 % interval  fit s")
    for count in counts:
        runs = [split_metrics(space, genomes, top1, count, seed) for seed in splits]
        means = {
            name: [float(np.mean([run[name].get(column, np.nan) for run in runs])) for column in COLUMNS]
            for name in runs[0]
        }
        for name, (error, tau, inside, seconds) in means.items():
            share = f"{100 * inside:16.0f}" if name == "ours" else " " * 16
            print(f"{count:7d}  {name:17s}  {error:11.3f}  {tau:11.3f}  {share}  {seconds:5.1f}", flush=True)
        error, tau, inside, _ = means.pop("ours")
        wanted_error = min(MAX_RMSE.get(count, np.inf), *(values[0] for values in means.values()))
        wanted_tau = max(MIN_TAU.get(count, 0.0), *(values[1] for values in means.values()))
        if error > wanted_error or tau < wanted_tau or not COVERAGE[0] <= inside <= COVERAGE[1]:
            problems.append(f"{count} records: RMSE, tau or coverage is not what is required")
    return problems


def collection_errors(
    space: StagedSpace, genomes: Genomes, top1: NDArray[np.float64], seed: int
) -> dict[str, list[float]]:
    """Return the RMSE in points on the held-out networks, at `STEPS` records, of each way to collect."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(top1))
    held, pool = order[:HELD_OUT], order[HELD_OUT:]
    even = pool[stratified_order(compile_cost(space, macs)(genomes[pool]))]
    features = FeatureMap.from_space(space)
    inputs = features(genomes)
    chosen = even[:SEED_RECORDS]
    while len(chosen) < STEPS[-1]:
        posterior = design_posterior(features, genomes[chosen], top1[chosen], seed)
        rest = np.setdiff1d(pool, chosen)
        best = choose_batch(posterior, inputs[rest], inputs[pool], BATCH_SIZE)
        chosen = np.concatenate([chosen, rest[best]])
    errors: dict[str, list[float]] = {}
    for name, records in {"random": pool, "stratified": even, "active": chosen}.items():
        errors[name] = []
        for count in STEPS:
            known = records[:count]
            predictor = fit_mlp(space, genomes[known], top1[known], FitSettings(members=2), 0)
            errors[name].append(accuracy_metrics(predictor(genomes[held]), top1[held])["rmse_points"])
    return errors


def compare_collection(runs: range) -> None:
    """Print the mean errors, and the number of actively chosen records with the error of random ones."""
    space, genomes, top1 = load_measurements()
    found = []
    for seed in runs:
        found.append(collection_errors(space, genomes, top1, seed))
        print(f"run {seed} done", file=sys.stderr)
    mean = {name: np.mean([errors[name] for errors in found], axis=0) for name in found[0]}
    print("records  random  stratified  active  (RMSE points)  as good as random")
    shares = []
    for i, count in enumerate(STEPS):
        needed = records_needed(mean["active"], mean["random"][i])
        shares.append(needed / count)
        values = f"{mean['random'][i]:6.3f}  {mean['stratified'][i]:10.3f}  {mean['active'][i]:6.3f}"
        print(
            f"{count:7d}  {values}                 active with {needed:3.0f} ({100 * needed / count:.0f} %)"
        )
    reached = [count for count, share in zip(STEPS, shares, strict=True) if share <= MAX_SHARE]
    where = ", ".join(map(str, reached)) or "none"
    print(f"at most {100 * MAX_SHARE:.0f} % of the records at: {where} of {', '.join(map(str, STEPS))}")


def records_needed(errors: NDArray[np.float64], max_error: float) -> float:
    """Return the number of records at which the errors at `STEPS` fall to `max_error`, interpolated."""
    falling = np.minimum.accumulate(errors)
    if falling[0] <= max_error:
        return float(STEPS[0])
    if falling[-1] > max_error:
        return float("nan")
    return float(np.interp(-max_error, -falling, STEPS))


def measure_speed() -> None:
    """Print the seconds of 50,000 predictions, and those of a plain 3 x 400 MLP."""
    space, genomes, top1 = load_measurements()
    predictor = fit_mlp(space, genomes[:250], top1[:250], FitSettings(), 0)
    sizes = (space.num_features, 400, 400, 400)
    layers = [layer for i in range(3) for layer in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
    plain = nn.Sequential(*layers, nn.Linear(400, 1))

    def plain_mlp(rows: Genomes) -> NDArray[np.float64]:
        with torch.inference_mode():
            return np.asarray(plain(torch.from_numpy(space.encode(rows))).numpy(), np.float64)

    population = space.sample(50_000, np.random.default_rng(0))
    functions: dict[str, Callable[[Genomes], NDArray[np.float64]]] = {
        "ours": predictor,
        "ours, uncertainty": predictor.uncertainty,
        "plain mlp": plain_mlp,
    }
    print("seconds for 50,000     in batches of 100     1,000    10,000")
    for name, function in functions.items():
        seconds = [min(timed(function, population, size) for _ in range(3)) for size in (100, 1000, 10_000)]
        print(f"{name:21s}  {seconds[0]:17.2f}  {seconds[1]:8.2f}  {seconds[2]:8.2f}")


def timed(function: Callable[[Genomes], object], population: Genomes, batch_size: int) -> float:
    """Return the seconds for the whole population in batches."""
    start = time.perf_counter()
    for first in range(0, len(population), batch_size):
        function(population[first : first + batch_size])
    return time.perf_counter() - start


def main() -> None:
    """Print the chosen parts; exit with 1 if the predictor is not as good as required."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parts = ("predictors", "collection", "speed")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="numbers of records")
    parser.add_argument("--splits", type=int, default=10, help="number of splits and of collection runs")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.splits)
    torch.set_num_threads(1)
    problems = compare_predictors(arguments.counts, seeds) if "predictors" in arguments.parts else []
    if "collection" in arguments.parts:
        compare_collection(seeds)
    if "speed" in arguments.parts:
        measure_speed()
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
