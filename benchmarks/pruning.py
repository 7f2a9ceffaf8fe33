"""Pruning to half of the multiply-accumulates, beside Torch-Pruning's magnitude pruner, on Fashion-MNIST.

    python benchmarks/pruning.py ROOT [--seeds 0 1 2] [--models resnet20] [--steps 300] [--folder FOLDER]

ROOT holds FashionMNIST/raw. Every network starts from the same trained original (see `trained_originals.py`)
and is fine-tuned with the same settings for the same number of images: the uniform plan with the weights as
they are ("sliced") and with its layers fitted, one-step and iterative pruning, and Torch-Pruning 1.6.1 with
one ratio for all layers (`pip install --no-deps torch-pruning==1.6.1`). Rows that are in the folder are not
made again. Processor seconds are those of a pruning with its fine-tuning.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_networks import ResNet20
from torch import nn
from trained_originals import (
    CALIBRATION_IMAGES,
    MODELS,
    RULES,
    SIDE,
    VALIDATION_IMAGES,
    accuracies,
    add_row,
    costs_of,
    images_of,
    read_rows,
    trained_original,
    training,
    tuned,
)

from ofa.common.progress import progress_bar
from ofa.data.base import ImageData
from ofa.graph.convert import make_elastic
from ofa.runs.pruning import prune
from ofa.runs.pruning_settings import PruningSettings

METHODS = ("sliced", "uniform", "one_step", "iterative", "torch_pruning")
SHARE = 0.5


def pruned_here(
    original: nn.Module, data: ImageData, method: str, seed: int, folder: Path, steps: int
) -> nn.Module:
    """Return the network of one of this project's methods; the uniform plan is the first candidate of one."""
    supernet = make_elastic(
        original,
        torch.rand(2, 1, SIDE, SIDE),
        widths=[share / 64 for share in range(16, 65)],
        kernel_sizes=[],
        depths=[1.0],
        divisor=1,
        rules=RULES if isinstance(original, ResNet20) else (),
    ).eval()
    settings = PruningSettings(
        method="iterative" if method == "iterative" else "one_step",
        macs_share=SHARE,
        candidates=16 if method == "one_step" else 1,
        steps=2,
        points=3,
        calibration_images=CALIBRATION_IMAGES,
        reconstruction_images=0 if method == "sliced" else 256,
        validation_images=VALIDATION_IMAGES,
        seed=seed,
        finetuning=training(seed, steps=steps),
    )
    return prune(supernet, data, settings, folder, bar=progress_bar, note=partial(print, flush=True)).network


def pruned_by_torch_pruning(original: nn.Module, data: ImageData, seed: int, steps: int) -> nn.Module:
    """Return the network of Torch-Pruning's magnitude pruner, with the least ratio that keeps the budget."""
    torch_pruning: Any = importlib.import_module("torch_pruning")
    full = costs_of(original)[0]
    for ratio in np.arange(0.2, 0.6, 0.01):
        network = copy.deepcopy(original)
        classifiers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        pruner: Any = torch_pruning.pruner.MagnitudePruner(
            network,
            torch.rand(2, 1, SIDE, SIDE),
            importance=torch_pruning.importance.MagnitudeImportance(),
            pruning_ratio=float(ratio),
            ignored_layers=classifiers,
        )
        pruner.step()
        if costs_of(network)[0] <= SHARE * full:
            break
    return tuned(network, original, data, training(seed, steps=steps))


def row_of(name: str, method: str, data: ImageData, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one network."""
    original = trained_original(name, data, options.folder)
    start_s = time.process_time()
    if method == "original":
        network = original
    elif method == "torch_pruning":
        network = pruned_by_torch_pruning(original, data, seed, options.steps)
    else:
        folder = options.folder / f"{name}-{seed}" / method
        network = pruned_here(original, data, method, seed, folder, options.steps)
    seconds = time.process_time() - start_s
    full, (macs, parameters) = costs_of(original), costs_of(network)
    return {
        "model": name,
        "method": method,
        "seed": seed,
        "steps": options.steps,
        "macs_share": macs / full[0],
        "parameters_share": parameters / full[1],
        **accuracies(network, data),
        "processor_s": seconds,
    }


def main() -> None:
    """Make the missing rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["resnet20", "mobilenet_v2"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--steps", type=int, default=300, help="steps of fine-tuning, in all")
    parser.add_argument("--folder", type=Path, default=Path("runs/pruning"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = images_of(options.root)
    path = options.folder / "rows.jsonl"
    rows = [row for row in read_rows(path) if row["steps"] == options.steps]
    known = {(row["model"], row["method"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for name in options.models:
            for method in ("original", *options.methods):
                if (name, method, seed) not in known:
                    rows.append(row_of(name, method, data, seed, options))
                    add_row(path, rows[-1])
    print_table(rows)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the means over the seeds in Markdown."""
    print("| network | method | MACs | parameters | test top-1 | processor s |\n|---|---|---|---|---|---|")
    for name, method in dict.fromkeys((row["model"], row["method"]) for row in rows):
        group = [row for row in rows if (row["model"], row["method"]) == (name, method)]
        means = {
            key: np.mean([row[key] for row in group])
            for key in ("macs_share", "parameters_share", "processor_s")
        }
        top1 = 100 * np.array([row["test_top1"] for row in group])
        spread = f" ± {top1.std(ddof=1):.2f}" if len(group) > 1 else ""
        shares = f"{100 * means['macs_share']:.1f} % | {100 * means['parameters_share']:.1f} %"
        seconds = "" if method == "original" else f"{means['processor_s']:.0f}"
        print(f"| {name} | {method} | {shares} | {top1.mean():.2f} %{spread} | {seconds} |")


if __name__ == "__main__":
    main()
