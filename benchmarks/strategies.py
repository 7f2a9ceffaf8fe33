"""Comparison of training strategies: each trains a supernet, then the same sub-networks are tested.

The phases of conf/phases/small_*.yaml take about the same time; the table shows each time. Other numbers of
epochs are given as NAME:EPOCHS,EPOCHS…, one per phase, and several precisions can be compared. Trained runs
are not trained again, so an interrupted comparison continues.

Run: python benchmarks/strategies.py --experiment fashion_mnist --data-root DIR [--processes 2]
     [--phases small_sandwich:7 small_uniform:7,4 ...] [--precisions fp32 bf16] [--random 50]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np

from ofa.common.progress import progress_bar
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.launch import compose_group
from ofa.runs.config import RunConfig
from ofa.runs.trained import open_run
from ofa.training.settings import PRECISIONS

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ("small_images", "small_progressive", "small_sandwich", "small_uniform", "small_compound")


def train(choice: str, precision: str, run_name: str, arguments: argparse.Namespace) -> None:
    """Train one supernet by the train_supernet command; `choice` is a file of conf/phases[:EPOCHS,...]."""
    phases, _, epochs = choice.partition(":")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += [f"--nproc-per-node={arguments.processes}", str(ROOT / "scripts" / "train_supernet.py")]
    options = [f"experiment={arguments.experiment}", f"phases={phases}", f"run_name={run_name}"]
    options += [f"runs_dir={arguments.runs_dir}", f"training.seed={arguments.seed}"]
    options.append(f"training.precision={precision}")
    if arguments.data_root:
        options.append(f"data.root={arguments.data_root}")
    if epochs:
        known = compose_group("phases", phases)
        options += [
            f"phases.{phase}.epochs={count}" for phase, count in zip(known, epochs.split(","), strict=True)
        ]
    subprocess.run([*launch, *options], check=True, cwd=ROOT)


def tested(run_name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the test top-1 in percent of the smallest, middle and largest, and means of random networks.

    A compound phase only trains compound networks, whose kernels and widths follow their depth; their mean is
    given beside that of the unrestricted space.
    """
    run = open_run(RunConfig(run_name=run_name, runs_dir=arguments.runs_dir, data_root=arguments.data_root))
    space, evaluator = run.info.family, SubnetEvaluator(run.supernet, run.data, "test")
    drawn = space.sample(arguments.random, np.random.default_rng(0))
    groups = {"smallest": [space.smallest], "middle": [space.middle], "largest": [space.largest]}
    if arguments.random:
        groups["mean of random"] = [*map(space.config, drawn)]
        groups["of compound"] = [*map(space.config, space.restrict(compound=True).canonical(drawn))]
    means, done = {}, 0
    total = sum(map(len, groups.values()))
    with progress_bar(f"testing {run_name}") as progress:
        for name, configs in groups.items():
            found = []
            for config in configs:
                found.append(100 * evaluator.score(config))
                done += 1
                progress(done, total, name)
            means[name] = float(np.mean(found))
    return means


def main() -> None:
    """Train and test every strategy and print the table."""
    parser = argparse.ArgumentParser(description="Training strategies compared.")
    parser.add_argument("--experiment", default="fashion_mnist")
    parser.add_argument("--data-root", help="folder of the images; none for embedded ones")
    parser.add_argument("--phases", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--random", type=int, default=50, help="random networks that are tested")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs-dir", default="runs/strategies")
    arguments = parser.parse_args()
    rows = {}
    for choice, precision in product(arguments.phases, arguments.precisions):
        parts = [arguments.experiment, choice.replace(":", "_").replace(",", "_")]
        parts += [f"{arguments.processes}processes", f"seed{arguments.seed}"]
        run_name = "_".join(parts if precision == "fp32" else [*parts, precision])
        folder = Path(arguments.runs_dir) / run_name
        if not (folder / "summary.json").exists():
            train(choice, precision, run_name, arguments)
        summary = json.loads((folder / "summary.json").read_text())
        seconds = sum(summary["seconds_per_phase"].values())
        rows[f"{choice} {precision}"] = {"minutes": seconds / 60, **tested(run_name, arguments)}
    about = f"{arguments.experiment}, test top-1 in %, seed {arguments.seed}"
    print(f"\n{about}, {arguments.random} random networks")
    print(f"{'phases':30s}" + "".join(f"{name:>16s}" for name in next(iter(rows.values()))))
    for choice, row in rows.items():
        print(f"{choice:30s}" + "".join(f"{value:16.2f}" for value in row.values()))


if __name__ == "__main__":
    main()
