"""Augmentation, mixing, averaged weights and early stopping on a small folder of photographs, compared.

Each variant is one setting or two beside the recipe `photos`. The validation accuracy of the smallest, middle
and largest sub-network is averaged, and over seeds. Trained runs are not trained again, so an interrupted
comparison continues, and several seeds can be trained side by side by commands of their own.

Run: python benchmarks/few_images.py data.root=DIR [--seeds 0 1] [--variants plain trivial] [--length 1]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from train_supernet import train_supernet  # noqa: E402  (a command of the folder above)

BASE = ("data.augment=standard", "training.ema_decay=null")
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "randaugment": ("data.augment=randaugment",),
    "trivial": ("data.augment=trivial",),
    "erasing": ("data.random_erasing=0.25",),
    "mixup": ("training.mixup=0.2",),
    "cutmix": ("training.cutmix=1.0",),
    "average": ("training.ema_decay=0.99",),
    "trivial_average": ("data.augment=trivial", "training.ema_decay=0.99"),
    "mixup_average": ("training.mixup=0.2", "training.ema_decay=0.99"),
    "early_stopping": ("training.early_stopping=3",),
}
NETWORKS = ("smallest", "middle", "largest")


def validation_scores(variant: str, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the validation top-1 (0..1) of the networks of one run, trained if it is not yet."""
    runs_dir, name = Path(arguments.runs_dir), f"{variant}-{seed}"
    summary = runs_dir / name / "summary.json"
    if not summary.is_file():
        settings = [*arguments.settings, *BASE, *VARIANTS[variant], f"training.seed={seed}"]
        settings += [f"training.length={arguments.length}", "training.validation_images=10000"]
        settings += [f"run_name={name}", f"runs_dir={runs_dir}", f"threads={arguments.threads}"]
        train_supernet.run("experiment=image_folder", *settings)
    values = json.loads(summary.read_text())["top1"]
    return {network: float(values[network]) for network in NETWORKS}


def main() -> None:
    """Train every variant with every seed and print the table in Markdown."""
    parser = argparse.ArgumentParser(description="Settings for few photographs compared.")
    parser.add_argument("settings", nargs="+", help="settings of train_supernet, data.root=DIR at least")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--length", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs-dir", default="runs/few_images")
    arguments = parser.parse_args()
    print(f"| variant | {' | '.join(NETWORKS)} | mean |\n|---|{'---|' * (len(NETWORKS) + 1)}")
    for variant in arguments.variants:
        scores = [validation_scores(variant, seed, arguments) for seed in arguments.seeds]
        table = 100 * np.array([[values[network] for network in NETWORKS] for values in scores])
        means = " | ".join(f"{value:.1f}" for value in table.mean(axis=0))
        spread = f" ± {table.mean(axis=1).std(ddof=1):.1f}" if len(scores) > 1 else ""
        print(f"| {variant} | {means} | {table.mean():.1f}{spread} |", flush=True)


if __name__ == "__main__":
    main()
