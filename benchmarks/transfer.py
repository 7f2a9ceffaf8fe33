"""Test accuracy on few photographs: a supernet that starts from given weights, against new weights.

A supernet is trained on classes 0 to 4 of Fashion-MNIST, on all their photographs. Its weights start
trainings on 100 photographs per class of classes 5 to 9, by the recipe `transfer`. The same space is trained
on these from new weights, by the recipe that was best for that, with as many steps. Each result is a file, so
that an interrupted comparison continues.

Run: python benchmarks/transfer.py --data-root DIR [--seeds 0 1 2] [--steps 20 50 100] [--figure PATH]
"""

from __future__ import annotations

import argparse
import dataclasses
from itertools import product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.datasets import FashionMNIST

from ofa.common.accelerator import choose_accelerator
from ofa.common.files import write_atomic, write_json
from ofa.common.progress import progress_bar
from ofa.common.reading import read_json
from ofa.data.memory import MemoryData
from ofa.data.settings import DataSettings
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.runs.start import start_from
from ofa.runs.supernet_file import save_supernet
from ofa.space.load import load_space
from ofa.supernet.supernet import build_supernet
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe, load_recipe
from ofa.training.trainer import Trainer

SOURCE_CLASSES, TARGET_CLASSES = range(5), range(5, 10)
SPACE = "mobilenet_v3_tiny"
SOURCE_PHASES = (
    Phase(1, 0.08, "largest", kernel_sizes=1, depths=1, expand_ratios=1, teacher=None, final_lr=0.05),
    Phase(3, 0.05, "elastic", subnets_per_step=3, sandwich=True, teacher="in_place"),
)
WAYS = ("transferred", "from scratch")
NETWORKS = ("smallest", "middle", "largest")
NEVER = 10**9
# By the number of steps: the best of the learning rates that were tried near it, on validation photographs.
# To begin with the largest network alone was worse.
SCRATCH_LR = {20: 0.4, 50: 0.2, 100: 0.2}


def photographs(root: str, classes: range, *, num_per_class: int | None, seed: int) -> MemoryData:
    """Return some classes of Fashion-MNIST: the drawn photographs for training, all of its test photographs.

    Args:
        root: torchvision's folder.
        classes: labels.
        num_per_class: training photographs of each class, drawn by `seed`; None for all. One further is the
            validation split, which must not be empty.
        seed: seed of the draw.
    """
    train, test = (FashionMNIST(root, train=is_train) for is_train in (True, False))
    labels, rng = np.asarray(train.targets), np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    drawn = np.concatenate([part[:num_per_class] for part in rows])
    if num_per_class is not None:
        drawn = np.append(drawn, rows[0][num_per_class])
    name = f"fashion_mnist {classes[0]}-{classes[-1]}"
    settings = DataSettings(name, validation_size=1, horizontal_flip=True)
    names = tuple(train.classes[label] for label in classes)
    is_tested = np.isin(np.asarray(test.targets), classes)
    return MemoryData(
        settings,
        names,
        tensors(train, drawn, classes),
        tensors(test, is_tested, classes),
    )


def tensors(dataset: FashionMNIST, rows: object, classes: range) -> tuple[Tensor, Tensor]:
    """Return uint8 images (n, 1, 28, 28), and labels that are positions in `classes`."""
    return dataset.data[rows].unsqueeze(1), (dataset.targets[rows] - classes.start) // classes.step


def make_source(root: str, folder: Path) -> Path:
    """Train the supernet on the first five classes, unless that is done, and return its file."""
    path = folder / "source" / "supernet.pt"
    if path.exists():
        return path
    data = photographs(root, SOURCE_CLASSES, num_per_class=None, seed=0)
    supernet = build_supernet(load_space(SPACE).for_data(data))
    settings = dataclasses.replace(load_recipe("small_images").settings, validation_images=1)
    with progress_bar("source") as progress:
        recipe = Recipe(SOURCE_PHASES, settings)
        Trainer(supernet, data, recipe, folder=path.parent, progress=progress).train()
    save_supernet(path, supernet, {"class_names": list(data.info.class_names)})
    return path


def recipe_of(way: str, steps: int, seed: int) -> Recipe:
    """Return the recipe of a way with about `steps` steps; both have equally many."""
    recipe = load_recipe("transfer")
    num_steps = sum(phase.steps or 0 for phase in recipe.phases)
    settings = dataclasses.replace(
        recipe.settings,
        length=steps / num_steps,
        seed=seed,
        validate_every_steps=NEVER,
        checkpoint_every_steps=NEVER,
    )
    if way == "transferred":
        return Recipe(recipe.phases, settings)
    warmup_steps = num_steps // 10
    scratch = Phase(
        lr=SCRATCH_LR.get(steps, 0.1),
        name="sandwich",
        steps=num_steps,
        warmup_steps=warmup_steps,
        subnets_per_step=3,
        sandwich=True,
        teacher="in_place",
    )
    return Recipe((scratch,), settings)


def result(root: str, folder: Path, *, way: str, steps: int, seed: int) -> dict[str, float]:
    """Return the test top-1 in percent of three sub-networks, from a file or by training."""
    name = f"{way.replace(' ', '_')}_{steps}_{seed}"
    file = folder / f"{name}.json"
    if not file.exists():
        data = photographs(root, TARGET_CLASSES, num_per_class=100, seed=seed)
        space = load_space(SPACE).for_data(data)
        supernet = build_supernet(space, seed)
        new_names: tuple[str, ...] = ()
        if way == "transferred":
            start = start_from(supernet, folder / "source", class_names=data.info.class_names)
            new_names = start.new_names
        recipe = recipe_of(way, steps, seed)
        with progress_bar(name) as progress:
            Trainer(
                supernet,
                data,
                recipe,
                folder=folder / name,
                device=torch.device("cpu"),
                progress=progress,
                new_parameters=new_names,
            ).train()
        evaluator = SubnetEvaluator(supernet, data, "test", calibration_images=500)
        write_json(file, {n: 100 * evaluator.score(getattr(space, n)) for n in NETWORKS})
    return {name: float(value) for name, value in read_json(file, "result").items()}


def plot(results: dict[tuple[str, int], np.ndarray], path: Path) -> None:
    """Write a PNG: test top-1 over steps, a panel for each network, a point for each seed."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, len(NETWORKS), sharey=True)
    steps = sorted({count for _, count in results})
    for column, (name, axes) in enumerate(zip(NETWORKS, panels, strict=True)):
        for way, colour in zip(WAYS, ("tab:blue", "tab:orange"), strict=True):
            scores = np.stack([results[way, count][:, column] for count in steps])
            axes.plot(steps, scores.mean(1), color=colour, marker="o", label=way)
            axes.plot(steps, scores, ".", color=colour, alpha=0.5)
        axes.set(title=name, xlabel="steps", xscale="log", xticks=steps, xticklabels=steps)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test top-1 [%]")
    panels[0].legend()
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def main() -> None:
    """Train what is missing, print the table and write the figure."""
    parser = argparse.ArgumentParser(description="Transferred against from scratch.")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/transfer.png"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    choose_accelerator("cpu", arguments.threads)
    make_source(arguments.data_root, arguments.folder)
    results: dict[tuple[str, int], np.ndarray] = {}
    print("| steps | way |" + "".join(f" {name} |" for name in NETWORKS) + "\n|---|---|---|---|---|")
    for steps, way in product(arguments.steps, WAYS):
        rows = [
            result(arguments.data_root, arguments.folder, way=way, steps=steps, seed=seed)
            for seed in arguments.seeds
        ]
        results[way, steps] = np.array([[row[name] for name in NETWORKS] for row in rows])
        cells = [
            f" {column.mean():.1f} ({', '.join(f'{value:.1f}' for value in column)}) |"
            for column in results[way, steps].T
        ]
        print(f"| {steps} | {way} |" + "".join(cells), flush=True)
    plot(results, arguments.figure)


if __name__ == "__main__":
    main()
