"""MobileNetV2 pruned in one step with and without a bound on its narrow streams, on Fashion-MNIST.

    python benchmarks/pointwise_width.py ROOT [--seeds 0] [--shares 0.3 0.5] [--folder FOLDER]

ROOT holds FashionMNIST/raw. In networks of mostly depthwise convolutions, Vitis' once-for-all pruner limits
the narrow choices of channels that only 1x1 convolutions make and read (`model.min_pointwise_width`). Each
line is the best of `--candidates` networks within a share of the multiply-accumulates, before and after a
fine-tuning that is equal for all; the original is that of `trained_originals.py`.
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path

import torch
from trained_originals import CALIBRATION_IMAGES, SIDE, accuracies, images_of, trained_original, training

from ofa.common.progress import progress_bar
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
    parser.add_argument("--steps", type=int, default=80, help="steps of fine-tuning")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--folder", type=Path, default=Path("runs/pointwise_width"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = images_of(options.root)
    original = trained_original("mobilenet_v2", data, options.folder)
    print(f"original {100 * accuracies(original, data)['test_top1']:.2f} % of the test images")
    for seed in options.seeds:
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
                    finetuning=training(seed, steps=options.steps),
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
