"""Speed and quality of the search, one thread; each part prints its table.

With --beside only times: idle, beside a busy process, and beside a PyTorch training, in turns.

- `note10`: published latency tables of the Note10 and published accuracy predictor, the limits and seeds of
  the table; the default settings, and the published budget of 50,000 candidates.
- `published`: the same budget, in turns with the published package, if --published names the folder it is
  in: pip install --no-deps --target DIR ofa==0.1.0.post202307202001 tqdm
- `front`: the whole front of the Note10 in one run, compared with the single searches.
- `joint`: limits on two devices at once, Note10 and Ultra96, at 224 px.
- `synthetic`: 50,000 candidates of the full MobileNetV3 space against random search; accuracy is an MLP
  fitted in the script to a function of the network's MACs and of its neighbouring blocks.

Run: python benchmarks/search_speed.py [--parts ... | --beside] [--published DIR] [--data DIR] [--seeds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from beside import LOADS, load
from numpy.typing import NDArray

from latency_tables.published.table import import_table, read_published_tables
from latency_tables.table.device import DeviceSpec
from ofa.architecture.cost import compile_cost, macs
from ofa.architecture.layer import LayerSpec
from ofa.common.config import build
from ofa.space import Estimator, Genomes, StagedSpace
from predictors.fitting import fit_predictor
from predictors.published.predictor import import_predictor
from predictors.settings import FitSettings
from search.algorithms.evolution import EvolutionSettings, evolve
from search.algorithms.nsga2 import ParetoSettings, search_front
from search.algorithms.random_search import RandomSettings, search_randomly
from search.limits.limit import Limit
from search.result.result import SearchResult

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("note10", "published", "front", "joint", "synthetic")
LIMITS_MS = (15, 20, 25, 30, 35, 45, 60)
GOALS = (0.7880, 0.8069, 0.8216, 0.8305, 0.8364, 0.8474, 0.8525)
BEST_SEEN = (0.7880, 0.8079, 0.8222, 0.8319, 0.8379, 0.8496, 0.8540)
BESIDE_MS = 30.0
RESOLUTIONS = (160, 176, 192, 208, 224)
PUBLISHED_BUDGET = EvolutionSettings(population_size=500, generations=100)


@dataclass(frozen=True)
class Task:
    """A space, the accuracy to maximise, and a latency in ms."""

    space: StagedSpace
    accuracy: Estimator
    latency: Estimator

    def limit(self, maximum: float) -> Limit:
        """Return the latency limit of `maximum` ms."""
        return Limit("latency_ms", self.latency, float(maximum), "ms")


@dataclass(frozen=True)
class Timed:
    """A search result, and its wall and processor time in seconds."""

    result: SearchResult
    wall_s: float
    cpu_s: float


def timed(search: Callable[[], SearchResult]) -> Timed:
    """Run `search`."""
    wall, processor = time.perf_counter(), time.process_time()
    result = search()
    return Timed(result, time.perf_counter() - wall, time.process_time() - processor)


def published_latency(space: StagedSpace, data: Path, device: str, **missing_ms: float) -> Estimator:
    """Return the latency by the published tables of a device."""
    spec = yaml.safe_load((ROOT / "conf/device/imported.yaml").read_text()) | {"name": device}
    tables = read_published_tables([data / "latency" / device])
    return import_table(space, tables, build(DeviceSpec, spec), missing_ms).estimator(space)


def full_space(width_multiplier: float) -> StagedSpace:
    """Return the MobileNetV3 space of the given width."""
    values = yaml.safe_load((ROOT / "conf/space/mobilenet_v3.yaml").read_text())
    return build(StagedSpace, values | {"width_multiplier": width_multiplier})


def note10_task(data: Path, resolutions: Sequence[int] = RESOLUTIONS) -> Task:
    """Return the task of the published tables and predictor."""
    space = full_space(1.2).restrict({"resolution": resolutions})
    predictor = import_predictor(data / "predictor" / "ofa_mbv3_acc_predictor.pth", space)
    return Task(space, predictor, published_latency(space, data, "note10"))


def search_once(task: Task, limits: Sequence[Limit], settings: EvolutionSettings, seed: int) -> Timed:
    """Return a single search under `limits`."""
    rng = np.random.default_rng(seed)
    return timed(lambda: evolve(task.space, task.accuracy, limits, settings, rng))


def single_searches(task: Task, settings: EvolutionSettings, seeds: int) -> list[list[Timed]]:
    """Return a list of runs per limit; limits take turns, so a slow phase affects all of them."""
    runs: list[list[Timed]] = [[] for _ in LIMITS_MS]
    for seed in range(seeds):
        for place, maximum in enumerate(LIMITS_MS):
            runs[place].append(search_once(task, [task.limit(maximum)], settings, seed))
    return runs


def print_note10(task: Task, seeds: int) -> list[float]:
    """Print quality and time per limit, and return the median top-1 of the default settings."""
    medians = []
    budgets = {"default settings": EvolutionSettings(), "50,000 candidates": PUBLISHED_BUDGET}
    for name, settings in budgets.items():
        print(f"\nNote10, {name}, {seeds} seeds")
        print("limit    worst   median     goal  best seen   wall s  cpu s  estimates")
        runs = single_searches(task, settings, seeds)
        for place, maximum in enumerate(LIMITS_MS):
            accuracies = [run.result.best.accuracy for run in runs[place]]
            wall = statistics.median(run.wall_s for run in runs[place])
            processor = statistics.median(run.cpu_s for run in runs[place])
            estimates = statistics.median(run.result.accuracy_evaluations for run in runs[place])
            median = statistics.median(accuracies)
            print(
                f"{maximum:5d} {min(accuracies):8.4f} {median:8.4f} {GOALS[place]:8.4f} "
                f"{BEST_SEEN[place]:10.4f} {wall:8.2f} {processor:6.2f} {estimates:10.0f}"
            )
            if name == "default settings":
                medians.append(median)
    return medians


def print_published(task: Task, package: Path, data: Path, seeds: int) -> None:
    """Print both packages' times for the published budget, taken in turns."""
    print("\npublished budget (100 x 500), in turns")
    print("limit  seed  ours: top-1 wall s  cpu s   published: top-1 wall s  cpu s")
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    for maximum in LIMITS_MS[::3]:
        for seed in range(seeds):
            ours = search_once(task, [task.limit(maximum)], PUBLISHED_BUDGET, seed)
            script = Path(__file__).with_name("published_search.py")
            arguments = [package, data, maximum, seed, 100, 500]
            command = [sys.executable, str(script), *map(str, arguments)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            theirs = json.loads(output.splitlines()[-1])
            ratios["wall"].append(theirs["wall_s"] / ours.wall_s)
            ratios["cpu"].append(theirs["cpu_s"] / ours.cpu_s)
            print(
                f"{maximum:5d} {seed:5d} {ours.result.best.accuracy:12.4f} {ours.wall_s:6.2f} "
                f"{ours.cpu_s:6.2f} {theirs['top1']:18.4f} {theirs['wall_s']:6.2f} {theirs['cpu_s']:6.2f}"
            )
    print(", ".join(f"median ratio of {name} time {statistics.median(r):.1f}" for name, r in ratios.items()))


def print_front(task: Task, medians: Sequence[float]) -> None:
    """Print one run of the search for the front, up to 80 ms, against the single searches."""
    rng = np.random.default_rng(0)
    run = timed(lambda: search_front(task.space, task.accuracy, [task.limit(80.0)], ParetoSettings(), rng))
    front = run.result.front
    print(
        f"\nfront up to 80 ms in one run: {run.wall_s:.1f} s wall, {run.cpu_s:.1f} s cpu, {len(front)} "
        f"networks from {front[0].values['latency_ms']:.1f} to {front[-1].values['latency_ms']:.1f} ms"
    )
    print("limit    front   median of single searches   below it by")
    for maximum, median in zip(LIMITS_MS, medians, strict=True):
        accuracy = run.result.best_within([maximum]).accuracy
        print(f"{maximum:5d} {accuracy:8.4f} {median:27.4f} {median - accuracy:13.4f}")


def print_joint(data: Path) -> None:
    """Print the winners for Note10 <= 35 ms, Ultra96 <= 15 ms, and both, at 224 px."""
    task = note10_task(data, (224,))
    ultra96 = published_latency(task.space, data, "ultra96", AvgPool2D=0.0)
    limits = [task.limit(35.0), Limit("latency_ms on ultra96", ultra96, 15.0, "ms")]
    print("\nat 224 px, seed 0    top-1  Note10 ms  Ultra96 ms   cpu s")
    for name, chosen in (("Note10 <= 35 ms", limits[:1]), ("Ultra96 <= 15 ms", limits[1:]), ("both", limits)):
        run = search_once(task, chosen, EvolutionSettings(), 0)
        genome = task.space.genomes([run.result.best.config])
        values = (float(limit.estimator(genome)[0]) for limit in limits)
        figures = "".join(f"{value:11.2f}" for value in values)
        print(f"{name:18s} {run.result.best.accuracy:7.4f} {figures} {run.cpu_s:8.2f}")


def stand_in_latency_ms(spec: LayerSpec) -> float:
    """Return the time of arithmetic and memory traffic, and a fixed overhead."""
    moved = sum(op.input_elements + op.output_elements for op in spec.operators)
    return 0.02 + macs(spec) / 2e7 + moved / 4e6


def stand_in_top1(space: StagedSpace, rng: np.random.Generator) -> Callable[[Genomes], NDArray[np.float64]]:
    """Return an accuracy that rises with size, saturates, and depends on pairs of adjacent blocks."""
    network_macs = compile_cost(space, macs)
    pairs = 0.15 * rng.standard_normal((space.num_features, space.num_features)) / space.num_features**0.5
    single = 0.2 * rng.standard_normal(space.num_features)

    def top1(genomes: Genomes) -> NDArray[np.float64]:
        features = space.encode(genomes).astype(np.float64)
        texture = features @ single + ((features @ pairs) * features).sum(axis=1)
        size = np.log2(network_macs(genomes) / 1e8)
        return np.asarray(0.82 - 0.06 * np.exp(-0.6 * size) + 0.004 * texture)

    return top1


def synthetic_task() -> Task:
    """Return the full space with a stand-in latency and an MLP fitted to 1,500 stand-in accuracies."""
    space, rng = full_space(1.0), np.random.default_rng(0)
    genomes = space.sample(1500, rng)
    report = fit_predictor(space, genomes, stand_in_top1(space, rng)(genomes), FitSettings(), 0, {})
    return Task(space, report.predictor, compile_cost(space, stand_in_latency_ms))


def print_synthetic(task: Task, seeds: int) -> None:
    """Print evolution and random search with 50,000 candidates each, at three limits."""
    latencies = task.latency(task.space.sample(10_000, np.random.default_rng(0)))
    largest = float(task.latency(task.space.genomes([task.space.largest]))[0])
    # The last limit excludes nothing, so all candidates are estimated by the MLP.
    maxima = [*(float(np.quantile(latencies, share)) for share in (0.01, 0.5)), largest]
    print("\nsynthetic, 50,000 candidates\n  limit  seed  evolution   random   wall s  cpu s  estimates")
    for maximum in maxima:
        for seed in range(seeds):
            limits = [task.limit(maximum)]
            found = search_once(task, limits, PUBLISHED_BUDGET, seed)
            settings, rng = RandomSettings(evaluations=50_000), np.random.default_rng(seed)
            baseline = search_randomly(task.space, task.accuracy, limits, settings, rng)
            best = found.result.best
            assert found.result.evaluations == baseline.evaluations == 50_000
            assert best.values["latency_ms"] <= maximum
            assert best.accuracy > baseline.best.accuracy, "random search was better"
            print(
                f"{maximum:7.2f} {seed:5d} {best.accuracy:10.4f} {baseline.best.accuracy:8.4f} "
                f"{found.wall_s:8.2f} {found.cpu_s:6.2f} {found.result.accuracy_evaluations:9d}"
            )


def print_beside(task: Task, rounds: int) -> None:
    """Print times of a search of `BESIDE_MS` beside each load, as medians over rounds of one seed."""
    search = (task, [task.limit(BESIDE_MS)], EvolutionSettings(), 0)
    runs: dict[str, list[Timed]] = {name: [] for name in ("idle", *LOADS)}
    search_once(*search)
    for _ in range(rounds):
        for name, timings in runs.items():
            with load(name):
                timings.append(search_once(*search))
    idle = statistics.median(run.wall_s for run in runs["idle"])
    print(f"\nsearch of {BESIDE_MS:.0f} ms, {rounds} rounds, PyTorch's threads: {torch.get_num_threads()}")
    print("beside     wall s (min to max)   to idle   cpu s   cpu / wall      top-1")
    for name, timings in runs.items():
        walls, processor = [run.wall_s for run in timings], statistics.median(run.cpu_s for run in timings)
        wall, share = statistics.median(walls), statistics.median(run.cpu_s / run.wall_s for run in timings)
        print(
            f"{name:8s} {wall:8.2f} ({min(walls):.2f} to {max(walls):.2f}) {wall / idle:9.2f} "
            f"{processor:7.2f} {share:12.2f} {timings[0].result.best.accuracy:10.6f}"
        )


def main() -> None:
    """Print the tables of the chosen parts."""
    parser = argparse.ArgumentParser(description="Speed and quality of the search.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--published", type=Path, help="folder that the published package is installed to")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--beside", action="store_true", help="only the time beside other processes")
    arguments = parser.parse_args()
    if arguments.beside:
        print_beside(note10_task(arguments.data), arguments.seeds)
        return
    torch.set_num_threads(1)
    medians: list[float] = []
    if {"note10", "published", "front"} & set(arguments.parts):
        task = note10_task(arguments.data)
    if "note10" in arguments.parts:
        medians = print_note10(task, arguments.seeds)
    if "published" in arguments.parts and arguments.published:
        print_published(task, arguments.published, arguments.data, arguments.seeds)
    if "front" in arguments.parts:
        print_front(task, medians or list(GOALS))
    if "joint" in arguments.parts:
        print_joint(arguments.data)
    if "synthetic" in arguments.parts:
        print_synthetic(synthetic_task(), arguments.seeds)


if __name__ == "__main__":
    main()
