"""Networks of three sizes from one trained network, at equal time: a supernet, or each size pruned and tuned.

    python benchmarks/user_model.py ROOT [--seeds 0 1 2] [--models resnet20] [--images 5000] [--folder FOLDER]

ROOT holds FashionMNIST/raw. All start from the same trained original (see `pruning.py`). "uniform" prunes to
each share of the multiply-accumulates with one ratio for all groups and fine-tunes for `--tune-epochs`;
"one_step" draws 16 candidates for each share and fine-tunes the best. "supernet" converts the original,
trains all sub-networks with the original as the teacher, collects records, fits a predictor, searches for
each share, and fine-tunes each for one epoch. Processor seconds are those of everything but the original.
Rows that are in the folder are not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pruning import BATCH_SIZE, CALIBRATION_IMAGES, MODELS, SIDE, costs_of, test_accuracy, trained, tuning
from torch import nn

from ofa.common.progress import progress_bar
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.graph.convert import make_elastic
from ofa.graph.supernet import GraphSupernet
from ofa.runs.pruning import prune
from ofa.runs.pruning_settings import PruningSettings
from ofa.training.fitting import fit as fit_network
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.trainer import Trainer
from predictors.collection.collect import collect
from predictors.fitting import fit
from search.find import find
from search.limits.limit import Limit

METHODS = ("uniform", "one_step", "supernet")
SHARES = (0.25, 0.5, 0.75)
VALIDATION_IMAGES = 1000


def pruned(
    original: nn.Module, data: ImageData, method: str, shares: Sequence[float], seed: int, options: Any
) -> Iterator[nn.Module]:
    """Yield a network for each share, pruned and fine-tuned by itself."""
    supernet = make_elastic(
        original,
        torch.rand(2, 1, SIDE, SIDE),
        widths=[share / 16 for share in range(1, 17)],
        kernel_sizes=[],
        depths=[1.0],
        divisor=1,
    ).eval()
    for share in shares:
        settings = PruningSettings(
            method="one_step",
            macs_share=share,
            candidates=1 if method == "uniform" else 16,
            steps=1,
            points=1,
            calibration_images=CALIBRATION_IMAGES,
            validation_images=VALIDATION_IMAGES,
            seed=seed,
            finetuning=tuning(options.tune_epochs, seed, lr=options.tune_lr),
        )
        folder = options.folder / "work"
        shutil.rmtree(folder, ignore_errors=True)
        yield prune(
            supernet, data, settings, folder, bar=progress_bar, note=partial(print, flush=True)
        ).network


def trained_supernet(original: nn.Module, data: ImageData, seed: int, options: Any) -> GraphSupernet:
    """Return the supernet of the original after its training."""
    supernet = make_elastic(original, torch.rand(2, 1, SIDE, SIDE), divisor=4)
    phase = Phase(
        options.supernet_epochs,
        options.lr,
        "all",
        warmup_epochs=0,
        subnets_per_step=options.subnets,
        sandwich=True,
        teacher="frozen",
        sort_channels=True,
    )
    settings = TrainSettings(
        batch_size=BATCH_SIZE,
        seed=seed,
        momentum=0.9,
        weight_decay=1e-4,
        label_smoothing=0.0,
        dropout=0.0,
        soft_loss=options.soft_loss,
        validation_images=VALIDATION_IMAGES,
        calibration_images=CALIBRATION_IMAGES,
        validate_every_epochs=100,
    )
    folder = options.folder / "work"
    shutil.rmtree(folder, ignore_errors=True)
    with progress_bar("supernet") as progress:
        Trainer(supernet, data, Recipe((phase,), settings), folder=folder, progress=progress).train()
    return supernet


def searched(
    original: nn.Module, data: ImageData, shares: Sequence[float], seed: int, options: Any
) -> Iterator[nn.Module]:
    """Yield a network for each share, found in one trained supernet and fine-tuned for an epoch."""
    supernet = trained_supernet(original, data, seed, options)
    with progress_bar("records") as progress:
        records = collect(
            supernet,
            data,
            count=options.count,
            calibration_images=CALIBRATION_IMAGES,
            validation_images=VALIDATION_IMAGES,
            progress=progress,
        )
    predictor = fit(records)
    macs, space = supernet.costs["macs"], supernet.space
    full = float(macs(space.genomes([space.largest]))[0])
    evaluator = SubnetEvaluator(supernet, data, calibration_images=CALIBRATION_IMAGES)
    for share in shares:
        best = find(space, predictor, [Limit("macs", macs, share * full, "MACs")], seed=seed).best
        network = evaluator.network(best.config)
        settings = tuning(options.last_epochs, seed, lr=options.tune_lr)
        fit_network(network, data, settings, resolution=SIDE, teacher=original)
        batches = (batch for batch, _ in data.batches("train", 250, torch.device("cpu"), CALIBRATION_IMAGES))
        recalibrate_batchnorm(network, batches)
        yield network


def row_of(name: str, method: str, data: ImageData, seed: int, options: Any) -> dict[str, Any]:
    """Return the row of one method: the accuracy of its networks for all shares, and its time."""
    original = trained(name, data, seed, options)
    start_s = time.process_time()
    if method == "supernet":
        networks = list(searched(original, data, options.shares, seed, options))
    else:
        networks = list(pruned(original, data, method, options.shares, seed, options))
    seconds = time.process_time() - start_s
    full = costs_of(original)[0]
    return {
        "model": name,
        "method": method,
        "seed": seed,
        "shares": [costs_of(network.eval())[0] / full for network in networks],
        "test_top1": [test_accuracy(network, data) for network in networks],
        "original": test_accuracy(original, data),
        "processor_s": seconds,
        "options": {
            key: value for key, value in vars(options).items() if isinstance(value, int | float | str)
        },
    }


def main() -> None:
    """Make the missing rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["resnet20"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--images", type=int, default=5_000, help="training images")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the original network")
    parser.add_argument("--tune-epochs", type=int, default=6, help="epochs of each pruned network")
    parser.add_argument("--tune-lr", type=float, default=0.01)
    parser.add_argument("--supernet-epochs", type=int, default=5)
    parser.add_argument("--last-epochs", type=int, default=1, help="epochs of each searched network")
    parser.add_argument("--lr", type=float, default=0.02, help="learning rate of the supernet, per 64 images")
    parser.add_argument("--subnets", type=int, default=3, help="sub-networks of a step")
    parser.add_argument("--soft-loss", default="soft_cross_entropy")
    parser.add_argument("--count", type=int, default=40, help="records of the predictor")
    parser.add_argument("--folder", type=Path, default=Path("runs/user_model"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = DataSettings("fashion_mnist", options.root, horizontal_flip=True)
    data = load_data(dataclasses.replace(settings, validation_size=60_000 - options.images))
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {(row["model"], row["method"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for name in options.models:
            for method in options.methods:
                if (name, method, seed) not in known:
                    rows.append(row_of(name, method, data, seed, options))
                    with path.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    print_table(rows)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the means over the seeds in Markdown."""
    print(
        "| network | method | shares of MACs | test top-1 | mean | original | processor s |\n"
        + "|---" * 7
        + "|"
    )
    for name, method in dict.fromkeys((row["model"], row["method"]) for row in rows):
        group = [row for row in rows if (row["model"], row["method"]) == (name, method)]
        shares, top1 = (np.array([row[key] for row in group]).mean(0) for key in ("shares", "test_top1"))
        means = np.array([row["test_top1"] for row in group]).mean(1)
        spread = f" ± {100 * means.std(ddof=1):.2f}" if len(group) > 1 else ""
        original, seconds = (np.mean([row[key] for row in group]) for key in ("original", "processor_s"))
        print(
            f"| {name} | {method} | {', '.join(f'{100 * share:.0f} %' for share in shares)} "
            f"| {', '.join(f'{100 * value:.2f}' for value in top1)} | {100 * means.mean():.2f}{spread} "
            f"| {100 * original:.2f} | {seconds:.0f} |"
        )


if __name__ == "__main__":
    main()
