"""Networks of several sizes from one trained network, at equal time: a supernet, or each size by itself.

    python benchmarks/user_model.py ROOT [--seeds 0 1 2] [--models resnet20] [--methods uniform shrunk]

ROOT holds FashionMNIST/raw. All begin with one trained original (see `trained_originals.py`) and learn from
its outputs. "uniform" prunes to each share of the multiply-accumulates with one ratio for all groups and
fine-tunes each network for its number of `--tune-steps`; "one_step" draws 16 candidates for each share and
fine-tunes the best; "shrunk" is uniform, and makes each network from the next larger one when that is tuned.
"fitted" and "fitted_shrunk" are uniform and shrunk with the layers of each network fitted before its
fine-tuning, the last one as `ofa prune macs_share=[0.75,0.5,0.26]` does. "supernet" converts the original,
trains all sub-networks together, collects records, fits a predictor, searches for each share and fine-tunes
each network for its number of `--last-steps`; "autonas" does the same with ModelOpt. Processor seconds are
those of everything but the original. Rows that are in the folder are not made again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from autonas import found_by_autonas
from pruned_networks import pruned, shrunk
from small_networks import ResNet20
from torch import nn
from trained_originals import (
    CALIBRATION_IMAGES,
    MODELS,
    RULES,
    SIDE,
    accuracies,
    add_row,
    costs_of,
    images_of,
    read_rows,
    trained_original,
    training,
    tuned,
)
from trained_supernets import fitted, train_all

from ofa.data.base import ImageData
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.graph.convert import make_elastic
from ofa.graph.supernet import GraphSupernet
from search.find import find
from search.limits.limit import Limit

METHODS = ("uniform", "fitted", "one_step", "shrunk", "fitted_shrunk", "supernet", "autonas")


def trained_supernet(original: nn.Module, data: ImageData, seed: int, options: Any) -> GraphSupernet:
    """Return the supernet of the original after its training."""
    supernet = make_elastic(
        original,
        torch.rand(2, 1, SIDE, SIDE),
        widths=options.widths,
        depths=options.depths,
        divisor=options.divisor,
        rules=RULES if options.divisor < 8 and isinstance(original, ResNet20) else (),
    )
    if not options.supernet_steps:
        supernet.eval().sort_channels(supernet.space)
        return supernet
    train_all(supernet, data, seed, options)
    return supernet


def searched(
    original: nn.Module, data: ImageData, shares: Sequence[float], seed: int, options: Any
) -> Iterator[nn.Module]:
    """Yield a network for each share, found in one trained supernet and fine-tuned."""
    supernet = trained_supernet(original, data, seed, options)
    predictor = fitted(supernet, data, seed, options)
    macs, space = supernet.costs["macs"], supernet.space
    full = float(macs(space.genomes([space.largest]))[0])
    evaluator = SubnetEvaluator(supernet, data, calibration_images=CALIBRATION_IMAGES)
    for share, steps, lr in zip(shares, options.last_steps, options.tune_lr, strict=True):
        best = find(space, predictor, [Limit("macs", macs, share * full, "MACs")], seed=seed).best
        print(f"{share:g} of the MACs: predicted {100 * best.accuracy:.2f} %, {best.config.id}", flush=True)
        settings = training(seed, lr=lr, steps=steps)
        yield tuned(evaluator.network(best.config), original, data, settings)


def row_of(name: str, method: str, data: ImageData, seed: int, options: Any) -> dict[str, Any]:
    """Return the row of one method: the accuracies of its networks for all shares, and its time."""
    original = trained_original(name, data, options.folder)
    methods: dict[str, Callable[..., Iterator[nn.Module]]] = {
        "uniform": pruned,
        "fitted": partial(pruned, is_fitted=True),
        "one_step": partial(pruned, candidates=16),
        "shrunk": shrunk,
        "fitted_shrunk": partial(shrunk, is_fitted=True),
        "supernet": searched,
        "autonas": found_by_autonas,
    }
    start_s = time.process_time()
    networks = list(methods[method](original, data, options.shares, seed, options))
    seconds = time.process_time() - start_s
    full = costs_of(original)[0]
    found = [accuracies(network, data) for network in networks]
    return {
        "model": name,
        "method": method,
        "job": options.job,
        "seed": seed,
        "shares": [costs_of(network)[0] / full for network in networks],
        "processor_s": seconds,
        "original": accuracies(original, data),
        **{key: [values[key] for values in found] for key in found[0]},
        "options": {key: value for key, value in vars(options).items() if key not in ("folder", "root")},
    }


def options_of() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["resnet20"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["uniform", "shrunk"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.26, 0.5, 0.75])
    parser.add_argument("--tune-steps", type=int, nargs="+", default=[210, 160, 120])
    parser.add_argument(
        "--tune-lr", type=float, nargs="+", default=[0.01, 0.005, 0.003], help="per 64 images"
    )
    parser.add_argument("--supernet-steps", type=int, default=60)
    parser.add_argument("--last-steps", type=int, nargs="+", default=[150, 110, 80])
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of the supernet, per 64 images")
    parser.add_argument("--subnets", type=int, default=3, help="sub-networks of a step")
    parser.add_argument("--sandwich", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--soft-loss", default="soft_cross_entropy")
    parser.add_argument("--widths", type=float, nargs="+", default=[0.5, 0.625, 0.75, 0.875, 1.0])
    parser.add_argument("--depths", type=float, nargs="+", default=[1.0])
    parser.add_argument("--divisor", type=int, default=2)
    parser.add_argument("--count", type=int, default=30, help="records of the predictor")
    parser.add_argument("--autonas-steps", type=int, default=110)
    parser.add_argument("--autonas-candidates", type=int, default=40)
    parser.add_argument("--job", default="", help="name of these options in the table")
    parser.add_argument("--folder", type=Path, default=Path("runs/user_model"))
    return parser.parse_args()


def main() -> None:
    """Make the missing rows and print the table."""
    options = options_of()
    torch.set_num_threads(1)
    data = images_of(options.root)
    path = options.folder / "rows.jsonl"
    known = {(row["model"], row["method"], row["job"], row["seed"]) for row in read_rows(path)}
    for seed in options.seeds:
        for name in options.models:
            for method in options.methods:
                if (name, method, options.job, seed) not in known:
                    add_row(path, row_of(name, method, data, seed, options))
    print_table(read_rows(path))


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the means over the seeds in Markdown."""
    print(
        "| network | method | job | seeds | shares of MACs | test top-1 | mean | validation | processor s |"
    )
    print("|---" * 9 + "|")
    for key in dict.fromkeys((row["model"], row["method"], row["job"]) for row in rows):
        group = [row for row in rows if (row["model"], row["method"], row["job"]) == key]
        shares, top1 = (np.array([row[name] for row in group]).mean(0) for name in ("shares", "test_top1"))
        means = 100 * np.array([row["test_top1"] for row in group]).mean(1)
        spread = f" ± {means.std(ddof=1):.2f}" if len(group) > 1 else ""
        validation = np.mean([row["validation_top1"] for row in group])
        seconds = np.mean([row["processor_s"] for row in group])
        print(
            f"| {' | '.join(key)} | {len(group)} | {', '.join(f'{100 * share:.0f} %' for share in shares)} "
            f"| {', '.join(f'{100 * value:.2f}' for value in top1)} | {means.mean():.2f}{spread} "
            f"| {100 * validation:.2f} | {seconds:.0f} |"
        )


if __name__ == "__main__":
    main()
