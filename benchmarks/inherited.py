"""Test accuracy of sub-networks: inherited, fine-tuned, and trained alone from scratch.

Architectures are spread over the MACs of the space: the smallest, the largest, and random ones between. Each
is tested as inherited from the supernet, after a short fine-tuning, and trained alone from scratch. Each
result is a file in `inherited` of the run, so an interrupted comparison continues, and several processes can
share it: --part 1/2 and --part 2/2 in parallel, and then one call without --part. With several runs
(supernets of several seeds) the table shows means; networks are fine-tuned and trained alone with seed 0 in
the first run, seed 1 in the second, and so on. With 10 or more architectures, Kendall's tau of inherited
against alone is printed.

Run: python benchmarks/inherited.py --run-names fashion_mnist [SECOND_SEED ...] [--architectures 5]
     [--epochs 14] [--ways inherited tuned alone] [--part 1/2]
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray
from torch import nn

from ofa.architecture.cost import compile_cost, macs
from ofa.common.files import write_atomic, write_json
from ofa.common.metrics import kendall_tau
from ofa.common.progress import progress_bar
from ofa.common.reading import read_json
from ofa.evaluation.evaluate import SubnetEvaluator, top1
from ofa.runs.config import RunConfig
from ofa.runs.trained import TrainedRun, open_run
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import build_supernet
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

SINGLE_PROCESS = FinetuneSettings(14, 0.08, 128, 0.9, 2e-4, 0.1, 0.0, 0)
FINETUNED = FinetuneSettings(3, 0.01, 128, 0.9, 2e-4, 0.1, 1.0, 0)
WAYS = ("inherited", "tuned", "alone")
MIN_FOR_TAU = 10


def spread_architectures(space: StagedSpace, count: int) -> list[SubnetConfig]:
    """Return the smallest, the largest and random networks evenly spread between in log MACs."""
    drawn = space.sample(2000, np.random.default_rng(0))
    ends = space.genomes([space.smallest, space.largest])
    estimate = compile_cost(space, macs)
    low, high = np.log(estimate(ends))
    work = np.log(estimate(drawn))
    targets = np.linspace(low, high, count)[1:-1]
    between = [space.config(drawn[np.argmin(abs(work - target))]) for target in targets]
    return [space.smallest, *between, space.largest]


class Comparison:
    """Tests networks of one run and saves the results."""

    def __init__(self, run: TrainedRun, seed: int, epochs: int, finetune_epochs: int) -> None:
        """Save results in a folder of the run; all trainings use `seed`."""
        self._run, self.folder = run, run.directory.path / "inherited"
        self._trainings = {
            "tuned": dataclasses.replace(FINETUNED, epochs=finetune_epochs, seed=seed),
            "alone": dataclasses.replace(SINGLE_PROCESS, epochs=epochs, seed=seed),
        }
        self._evaluator = SubnetEvaluator(run.supernet, run.data, "test")

    def test(self, config: SubnetConfig, ways: Sequence[str]) -> dict[str, float]:
        """Return the test top-1 in percent in each of the `ways`."""
        found = {}
        for way in ways:
            if way in self._trainings:
                settings = self._trainings[way]
                title, make = f"{way} {settings.epochs}", partial(self._train, way, config, settings)
            else:
                title, make = way, partial(self._evaluator.network, config)
            found[title] = self._once(title, config, make)
        return found

    def _once(self, title: str, config: SubnetConfig, make: Callable[[], nn.Module]) -> float:
        path = self.folder / f"{title.replace(' ', '_')}_{config.id}.json"
        if not path.exists():
            batches = self._evaluator.batches(config.resolution)
            write_json(path, {"top1_percent": 100 * top1(make(), batches), "config": config.to_dict()})
        found: float = read_json(path, "result", "this benchmark")["top1_percent"]
        return found

    def _train(self, way: str, config: SubnetConfig, settings: FinetuneSettings) -> nn.Module:
        """Return the network fine-tuned, or trained alone from new weights."""
        space, resolution = self._run.info.family, config.resolution
        network: nn.Module
        if way == "alone":
            network = build_supernet(space, settings.seed).extract(config).to(self._run.device)
        else:
            network = self._evaluator.network(config)
        largest = dataclasses.replace(space.largest, resolution=resolution)
        teacher = self._evaluator.network(largest) if settings.distillation_ratio else None
        with progress_bar(f"{settings.epochs} epochs of {config.id}") as progress:
            fit(
                network,
                self._run.data,
                settings,
                resolution=resolution,
                teacher=teacher,
                progress=progress,
            )
        self._evaluator.recalibrate(network, resolution)
        return network


def plot(work: NDArray[np.float64], found: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Write a PNG of top-1 (%) of each way over MACs (millions), and of the last way against the first."""
    titles = {name: f"{name} epochs" if name[-1].isdigit() else name for name in found}
    names = list(found)
    first, last = names[0], names[-1]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    over_work, against = figure.subplots(1, 2)
    for name, top1_percent in found.items():
        over_work.plot(work, top1_percent, marker="o", label=titles[name])
    over_work.set(xscale="log", xlabel="MACs [M]", ylabel="test top-1 [%]")
    for axis in (over_work.xaxis.set_major_formatter, over_work.xaxis.set_minor_formatter):
        axis(ScalarFormatter())
    over_work.legend()
    points = against.scatter(found[first], found[last], c=work, norm=LogNorm())
    figure.colorbar(points, ax=against, label="MACs [M]", format="%g", ticks=[1, 2, 4, 8]).minorticks_off()
    against.axline((float(found[first].mean()),) * 2, slope=1, color="grey", linestyle=":", label="equal")
    against.legend()
    against.set(xlabel=f"{titles[first]}: test top-1 [%]", ylabel=f"{titles[last]}: test top-1 [%]")
    for axes in (over_work, against):
        axes.grid(alpha=0.3)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def main() -> None:
    """Compare and print the table."""
    parser = argparse.ArgumentParser(description="Inherited against trained alone.")
    parser.add_argument("--run-names", nargs="+", default=["fashion_mnist"], help="one per seed")
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--data-root")
    parser.add_argument("--architectures", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=SINGLE_PROCESS.epochs, help="of training alone")
    parser.add_argument("--finetune-epochs", type=int, default=FINETUNED.epochs)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--part", default="1/1", help="K/N: only the K-th, K+N-th, ... architecture")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    comparisons = []
    for seed, name in enumerate(arguments.run_names):
        options = {"run_name": name, "runs_dir": arguments.runs_dir, "data_root": arguments.data_root}
        run = open_run(RunConfig(**options, threads=arguments.threads))
        comparisons.append(Comparison(run, seed, arguments.epochs, arguments.finetune_epochs))
    configs = spread_architectures(run.info.family, arguments.architectures)
    part, parts = map(int, arguments.part.split("/"))
    configs = configs[part - 1 :: parts]
    work = run.supernet.costs["macs"](run.info.family.genomes(configs)) / 1e6
    rows = []
    for config, macs_m in zip(configs, work, strict=True):
        tests = [comparison.test(config, arguments.ways) for comparison in comparisons]
        each = {name: [round(test[name], 2) for test in tests] for name in tests[0]}
        print(f"{macs_m:8.2f} M MACs at {config.resolution} px: {each}", flush=True)
        rows.append({name: float(np.mean([test[name] for test in tests])) for name in tests[0]})
    names = list(rows[0])
    print(f"\n{run.data.info.name}, test top-1 in %, mean of {len(comparisons)}")
    print("  M MACs" + "".join(f"{name:>12s}" for name in names))
    for macs_m, row in zip(work, rows, strict=True):
        print(f"{macs_m:8.2f}" + "".join(f"{row[name]:12.2f}" for name in names))
    found = {name: np.array([row[name] for row in rows]) for name in names}
    if len(rows) >= MIN_FOR_TAU and len(names) > 1:
        tau = kendall_tau(found[names[0]], found[names[-1]])
        print(f"Kendall's tau of {names[0]} against {names[-1]}: {tau:.3f}")
    folder = comparisons[0].folder
    plot(work, found, folder / "comparison.png")
    print(f"kept in {folder} and the folders of the other runs; figure: {folder / 'comparison.png'}")


if __name__ == "__main__":
    main()
