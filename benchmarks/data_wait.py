"""Share of a training's time that is spent waiting for photographs, with and without shrunk copies.

The script writes JPEG files of 12 megapixels (or others, by --size) into a temporary folder, and trains a
supernet on them for one epoch each: without a cache, with an empty cache, and with a full one. A training is
the trainer's own: each step is `--subnets` sub-networks by the sandwich rule with in-place distillation. The
share counts every wait, also that for the first batch, for which the worker processes have just started.

Run: python benchmarks/data_wait.py [--space mobilenet_v3] [--photographs 96] [--batch-size 16] [--workers 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ofa.common.config import build
from ofa.common.shipped import read_preset
from ofa.data.folder import FolderData
from ofa.data.settings import DataSettings
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import build_supernet
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.trainer import Trainer

NUM_HELD_OUT = 4


def write_photographs(root: Path, count: int, size: tuple[int, int]) -> float:
    """Write `count` training photographs of two classes, and a few for testing; return their mean bytes."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 20, size[0] // 20, 3)).astype(np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    for split, number in (("train", count + NUM_HELD_OUT), ("val", NUM_HELD_OUT)):
        for index in range(number):
            folder = root / split / f"class_{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            shifted = np.roll(pixels, (37 * index, 91 * index), (0, 1))
            Image.fromarray(shifted).save(folder / f"{index:04d}.jpg", quality=90)
    files = list((root / "train").rglob("*.jpg"))
    return sum(file.stat().st_size for file in files) / len(files)


def train(settings: DataSettings, space: StagedSpace, batch_size: int, num_subnets: int) -> str:
    """Train for one epoch, and return a line about its time."""
    torch.manual_seed(0)
    phase = Phase(1, 0.01, "sandwich", subnets_per_step=num_subnets, sandwich=True, teacher="in_place")
    recipe = Recipe((phase,), TrainSettings(batch_size, calibration_images=4, validation_images=4))
    data = FolderData(settings)
    supernet = build_supernet(dataclasses.replace(space, num_classes=data.num_classes), 0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(supernet, data, recipe, folder=folder, device=torch.device("cpu"))
        trainer.train()
        summary = trainer.summary("data_wait")
    step_s = sum(summary.seconds_per_phase.values()) / summary.steps
    return (
        f"{summary.steps} steps of {step_s:.2f} s, {step_s * summary.data_wait_share:.2f} s of them waiting: "
        f"{100 * summary.data_wait_share:.1f} %"
    )


def decoding(settings: DataSettings, batch_size: int) -> str:
    """Return a line about the time of an epoch's batches alone, in this process."""
    data = FolderData(dataclasses.replace(settings, workers=0))
    start_s = time.perf_counter()
    num_batches = sum(1 for _ in data.train_batches(batch_size, 1, 0, torch.device("cpu")))
    seconds = (time.perf_counter() - start_s) / (num_batches * batch_size)
    return f"{1000 * seconds:.1f} ms per photograph in one process"


def main(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    space = build(StagedSpace, read_preset("space", arguments.space))
    space = dataclasses.replace(space, resolutions=(arguments.resolution,))
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "photographs", Path(folder) / "cache"
        mean_bytes = write_photographs(root, arguments.photographs, tuple(arguments.size))
        width, height = arguments.size
        print(f"{arguments.photographs} JPEGs of {width} x {height}, {mean_bytes / 1e6:.1f} MB each")
        plain = DataSettings(
            "image_folder",
            str(root),
            validation_size=NUM_HELD_OUT,
            horizontal_flip=True,
            image_size=arguments.resolution,
            workers=arguments.workers,
            stratified=True,
        )
        cached = dataclasses.replace(plain, cache=str(cache))
        for name, settings in (("no cache", plain), ("cold cache", cached), ("warm cache", cached)):
            line = train(settings, space, arguments.batch_size, arguments.subnets)
            if name != "cold cache":
                line += f"; {decoding(settings, arguments.batch_size)}"
            print(f"{name}: {line}", flush=True)
        sizes = [file.stat().st_size for file in cache.rglob("*.jpg")]
        print(f"{len(sizes)} copies of {sum(sizes) / len(sizes) / 1e3:.0f} kB")


def parsed() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="mobilenet_v3")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--photographs", type=int, default=96)
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--subnets", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
