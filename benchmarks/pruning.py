"""Pruning to half of the multiply-accumulates, beside Torch-Pruning's magnitude pruner, on Fashion-MNIST.

    python benchmarks/pruning.py ROOT [--seeds 0 1 2] [--models resnet20] [--images 5000] [--folder FOLDER]

ROOT holds FashionMNIST/raw. Every network starts from the same trained original and is fine-tuned with the
same settings for the same number of images: the uniform plan, one-step and iterative pruning, and
Torch-Pruning 1.6.1 with one ratio for all layers (`pip install --no-deps torch-pruning==1.6.1`). Rows that
are in the folder are not made again. Processor seconds are those of a pruning with its fine-tuning.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_networks import ResNet20, mobilenet_v2_small
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ofa.common.progress import progress_bar
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.evaluation.evaluate import score
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.graph.convert import make_elastic
from ofa.graph.weights import load_weights
from ofa.runs.pruned_files import save_network
from ofa.runs.pruning import prune
from ofa.runs.pruning_settings import PruningSettings
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

MODELS: dict[str, Callable[[], nn.Module]] = {"resnet20": ResNet20, "mobilenet_v2": mobilenet_v2_small}
METHODS = ("uniform", "one_step", "iterative", "torch_pruning")
SIDE, SHARE = 28, 0.5
BATCH_SIZE, CALIBRATION_IMAGES, VALIDATION_IMAGES = 128, 500, 1000
DEVICE = torch.device("cpu")


def tuning(epochs: int, seed: int, lr: float = 0.01, distillation_ratio: float = 1.0) -> FinetuneSettings:
    """Return the settings of a training."""
    return FinetuneSettings(
        epochs=epochs,
        lr=lr,
        batch_size=BATCH_SIZE,
        momentum=0.9,
        weight_decay=1e-4,
        label_smoothing=0.0,
        distillation_ratio=distillation_ratio,
        seed=seed,
    )


def trained(name: str, data: ImageData, seed: int, options: argparse.Namespace) -> nn.Module:
    """Return the original network, trained if it is not yet."""
    torch.manual_seed(seed)
    network, folder = MODELS[name](), options.folder / f"{name}-{seed}"
    path = folder / "original.safetensors"
    if path.exists():
        load_weights(network, path, name)
    else:
        settings = tuning(options.epochs, seed, lr=0.05, distillation_ratio=0.0)
        with progress_bar(f"{name}, seed {seed}") as progress:
            fit(network, data, settings, resolution=SIDE, folder=folder / "original", progress=progress)
        save_network(network, path)
    return network.eval()


def costs_of(network: nn.Module) -> tuple[float, int]:
    """Return multiply-accumulates of one image and parameters."""
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, SIDE, SIDE))
    return counter.get_total_flops() / 2, sum(parameter.numel() for parameter in network.parameters())


def test_accuracy(network: nn.Module, data: ImageData) -> float:
    """Return the top-1 on all test images."""
    return score(network.eval(), data.batches("test", 250, DEVICE))


def pruned_here(
    original: nn.Module, data: ImageData, method: str, seed: int, folder: Path, epochs: int
) -> nn.Module:
    """Return the network of one of this project's methods; the uniform plan is the first candidate of one."""
    supernet = make_elastic(
        original,
        torch.rand(2, 1, SIDE, SIDE),
        widths=[share / 16 for share in range(1, 17)],
        kernel_sizes=[],
        depths=[1.0],
        divisor=1,
    ).eval()
    settings = PruningSettings(
        method="iterative" if method == "iterative" else "one_step",
        macs_share=SHARE,
        candidates=1 if method == "uniform" else 16,
        steps=2,
        points=3,
        calibration_images=CALIBRATION_IMAGES,
        validation_images=VALIDATION_IMAGES,
        seed=seed,
        finetuning=tuning(epochs, seed),
    )
    return prune(supernet, data, settings, folder, bar=progress_bar, note=partial(print, flush=True)).network


def pruned_by_torch_pruning(original: nn.Module, data: ImageData, seed: int, epochs: int) -> nn.Module:
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
    settings = tuning(epochs, seed)
    with progress_bar("fine-tuning, Torch-Pruning") as progress:
        fit(network, data, settings, resolution=SIDE, teacher=original, progress=progress)
    images = (batch for batch, _ in data.batches("train", 250, DEVICE, CALIBRATION_IMAGES))
    recalibrate_batchnorm(network, images)
    return network


def row_of(name: str, method: str, data: ImageData, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one network."""
    original = trained(name, data, seed, options)
    start_s = time.process_time()
    if method == "original":
        network = original
    elif method == "torch_pruning":
        network = pruned_by_torch_pruning(original, data, seed, options.tune_epochs)
    else:
        folder = options.folder / f"{name}-{seed}" / method
        network = pruned_here(original, data, method, seed, folder, options.tune_epochs)
    seconds = time.process_time() - start_s
    full, (macs, parameters) = costs_of(original), costs_of(network)
    return {
        "model": name,
        "method": method,
        "seed": seed,
        "images": options.images,
        "epochs": options.epochs,
        "tune_epochs": options.tune_epochs,
        "macs_share": macs / full[0],
        "parameters_share": parameters / full[1],
        "test_top1": test_accuracy(network, data),
        "processor_s": seconds,
    }


def main() -> None:
    """Make the missing rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--images", type=int, default=5_000, help="training images")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the original network")
    parser.add_argument("--tune-epochs", type=int, default=2, help="epochs of fine-tuning, in all")
    parser.add_argument("--folder", type=Path, default=Path("runs/pruning"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = DataSettings("fashion_mnist", options.root, horizontal_flip=True)
    data = load_data(dataclasses.replace(settings, validation_size=60_000 - options.images))
    path = options.folder / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    sizes = ("images", "epochs", "tune_epochs")
    rows = [row for row in rows if all(row[name] == getattr(options, name) for name in sizes)]
    known = {(row["model"], row["method"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for name in options.models:
            for method in ("original", *METHODS):
                if (name, method, seed) not in known:
                    rows.append(row_of(name, method, data, seed, options))
                    with path.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
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
