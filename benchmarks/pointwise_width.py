"""MobileNetV2 pruned in one step with and without a bound on its narrow streams, on Fashion-MNIST.

    python benchmarks/pointwise_width.py ROOT [--seeds 0] [--shares 0.3 0.5] [--folder FOLDER]

ROOT holds FashionMNIST/raw. In networks of mostly depthwise convolutions, Vitis' once-for-all pruner limits
the narrow choices of channels that only 1x1 convolutions make and read (`model.min_pointwise_width`). Each
line is the best of `--candidates` networks within a share of the multiply-accumulates, before and after a
fine-tuning that is equal for all; the original is that of `pruning.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from functools import partial
from pathlib import Path

import torch
from pruning import CALIBRATION_IMAGES, SIDE, test_accuracy, trained, tuning

from ofa.common.progress import progress_bar
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.graph.convert import make_elastic
from ofa.runs.pruning import prune
from ofa.runs.pruning_settings import PruningSettings


def main() -> None:
    """Print a line for each seed, share and bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--bounds", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--images", type=int, default=5_000, help="training images")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the original network")
    parser.add_argument("--tune-epochs", type=int, default=2)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--folder", type=Path, default=Path("runs/pointwise_width"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = DataSettings("fashion_mnist", options.root, horizontal_flip=True)
    data = load_data(dataclasses.replace(settings, validation_size=60_000 - options.images))
    for seed in options.seeds:
        original = trained("mobilenet_v2", data, seed, options)
        print(f"seed {seed}: original {100 * test_accuracy(original, data):.2f} % of the test images")
        for share in options.shares:
            for bound in options.bounds:
                supernet = make_elastic(
                    original,
                    torch.rand(2, 1, SIDE, SIDE),
                    widths=[part / 8 for part in range(1, 9)],
                    kernel_sizes=[],
                    depths=[1.0],
                    min_pointwise_width=bound,
                ).eval()
                pruning = PruningSettings(
                    method="one_step",
                    macs_share=share,
                    candidates=options.candidates,
                    steps=1,
                    points=1,
                    calibration_images=CALIBRATION_IMAGES,
                    validation_images=1000,
                    seed=seed,
                    finetuning=tuning(options.tune_epochs, seed),
                )
                folder = options.folder / "work"
                shutil.rmtree(folder, ignore_errors=True)
                note = partial(print, flush=True)
                pruned = prune(supernet, data, pruning, folder, bar=progress_bar, note=note)
                before, after, test = (100 * value for value in (pruned.before, pruned.after, pruned.test))
                print(f"seed {seed}, {share:g} of the MACs, bound {bound:g}:", end=" ")
                print(
                    f"validation {before:.2f} % pruned, {after:.2f} % fine-tuned; test {test:.2f} %",
                    flush=True,
                )


if __name__ == "__main__":
    main()
