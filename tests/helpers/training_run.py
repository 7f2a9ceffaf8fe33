"""A training run of seconds on made-up images; as a script, one that is killed at a given moment.

    python tests/training_run.py FOLDER [--strategy NAME | --model NAME] [--step N | --save N | --term N]
        [--device cuda]

`--step N` kills the process with SIGKILL when step N is done, `--term N` sends it SIGTERM then, and
`--save N` kills it in the middle of writing the N-th file. Under torchrun this happens to the last process,
and only before the first restart.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa.common.accelerator import choose_accelerator
from ofa.common.distributed import SINGLE_PROCESS, World, launched_world
from ofa.common.progress import Note, unnoted
from ofa.data.image_values import ValueData
from ofa.data.masks import MaskData
from ofa.data.memory import MemoryData
from ofa.data.settings import MULTI_LABEL, REGRESSION, DataSettings
from ofa.data.table_targets import UNKNOWN
from ofa.graph.convert import make_elastic
from ofa.graph.supernet import GraphSupernet
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec
from ofa.supernet.supernet import build_supernet
from ofa.training.gradient_step import PendingReport
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.trainer import Trainer

SPACE = StagedSpace(
    name="run",
    family="mobilenet_v3",
    resolutions=(8, 12),
    stem_channels=8,
    stem_stride=1,
    stages=(
        StageSpec(8, 2, (1, 2), (3, 5), (2.0, 4.0), "relu", True),
        StageSpec(16, 2, (1, 2), (3, 5), (2.0, 4.0), "hard_swish", False),
    ),
    head_channels=(16, 24),
    num_classes=3,
    in_channels=1,
)
CLASS_NAMES = ("dark", "middle", "bright")
PHASES = (
    Phase(2, 0.3, "largest", kernel_sizes=1, depths=1, expand_ratios=1, warmup_epochs=1, teacher=None),
    Phase(1, 0.05, "kernel", depths=1, expand_ratios=1),
    Phase(1, 0.05, "depth", expand_ratios=1, subnets_per_step=2),
    Phase(2, 0.05, "width", subnets_per_step=2, sort_channels=True),
)


STRATEGIES = {
    "progressive_shrinking": PHASES,
    "sandwich": (Phase(5, 0.1, "sandwich", subnets_per_step=3, sandwich=True, teacher="in_place"),),
    "uniform": (PHASES[0], Phase(3, 0.05, "uniform", subnets_per_step=2, sort_channels=True)),
    "compound": (PHASES[0], Phase(3, 0.05, "compound", subnets_per_step=2, compound=True)),
}


MODEL_PHASES = (
    Phase(6, 0.05, "all", subnets_per_step=3, sandwich=True, teacher="frozen", sort_channels=True),
)
"""What the default recipe for users' models does."""


class OwnNet(nn.Module):
    """A network that its own forward computes at every size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16)
        self.wide, self.last = nn.Conv2d(16, 16, 3, stride=2), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.last(self.wide(self.norm(self.stem(images)).relu())).relu()
        logits: Tensor = self.head(F.dropout(maps.mean((2, 3)), 0.1, self.training))
        return logits


class Halves(OwnNet):
    """A network whose forward has sizes, so that its graph computes the narrow ones."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        first, second = self.last(self.wide(self.norm(self.stem(images)).relu())).split([8, 8], 1)
        logits: Tensor = self.head((first * second.sigmoid()).mean((2, 3)))
        return logits


class Pixels(OwnNet):
    """A network that tells a class for each pixel, at half the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.Conv2d(16, 3, 1)  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        maps = self.last(self.wide(self.norm(self.stem(images)).relu())).relu()
        logits: Tensor = self.head(maps)
        return logits


MODELS: dict[str, type[nn.Module]] = {
    "own": OwnNet,
    "halves": Halves,
    "pixels": Pixels,
    "labels": OwnNet,
    "numbers": OwnNet,
}


def model_supernet(name: str) -> GraphSupernet:
    """Return a supernet of one of `MODELS`, equal in every call."""
    return copy.deepcopy(_converted(name))


@cache
def _converted(name: str) -> GraphSupernet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]().eval()
    resolutions = (12,) if name == "halves" else (8, 12)
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    supernet = make_elastic(model, images, divisor=4, min_channels=8, resolutions=resolutions)
    assert supernet.runs_graph == (name == "halves")
    supernet.space = dataclasses.replace(supernet.space, in_channels=1, num_classes=3)
    return supernet


def made_up(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return 180 grey 12x12 images of three classes of brightness, with noise, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(180) % 3
    images = torch.randint(0, 90, (180, 1, 12, 12), generator=generator) + 80 * labels[:, None, None, None]
    return images.byte(), labels


def make_data(seed: int = 0) -> MemoryData:
    """Return 120 images for training, 30 for validation and 30 for testing."""
    images, labels = made_up(seed)
    settings = DataSettings("made up", validation_size=30, crop_padding=1, horizontal_flip=True)
    train, test = (images[:150], labels[:150]), (images[150:], labels[150:])
    return MemoryData(settings, CLASS_NAMES, train, test)


def make_masks(seed: int = 0) -> MaskData:
    """Return the images of `make_data`, each with another one in its right half, and their masks."""
    settings = DataSettings("made up", validation_size=30, crop_padding=1, horizontal_flip=True)
    images, labels = made_up(seed)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    masks = labels[:, None, None].repeat(1, 12, 12).byte()
    images[..., 6:], masks[..., 6:] = images[order, ..., 6:], masks[order, ..., 6:]
    train, test = (images[:150], masks[:150]), (images[150:], masks[150:])
    return MaskData(settings, CLASS_NAMES, train, test)


def make_labels(seed: int = 0) -> ValueData:
    """Return the images of `make_data` with labels that say how bright they are; a tenth is unknown."""
    _, labels = made_up(seed)
    values = (labels[:, None] >= torch.arange(3)).to(torch.int8)
    values[::10] = UNKNOWN
    return _with_values(values, MULTI_LABEL, seed)


def make_numbers(seed: int = 0) -> ValueData:
    """Return the images of `make_data` with numbers that grow with their brightness; a tenth is unknown."""
    _, labels = made_up(seed)
    values = labels[:, None].double() * torch.tensor([1.0, -2.0, 100.0]) + torch.tensor([0.0, 5.0, 1e6])
    values[::10] = torch.nan
    return _with_values(values, REGRESSION, seed)


def _with_values(values: Tensor, task: str, seed: int) -> ValueData:
    images, _ = made_up(seed)
    settings = DataSettings("made up", validation_size=30, crop_padding=1, horizontal_flip=True)
    train, test = (images[:150], values[:150]), (images[150:], values[150:])
    return ValueData(settings, CLASS_NAMES, train, test, task)


DATA: dict[str, Callable[[], MemoryData]] = {
    "pixels": make_masks,
    "labels": make_labels,
    "numbers": make_numbers,
}
"""Images of the models that do not classify."""

LOSSES: dict[str, dict[str, Any]] = {"numbers": {"label_smoothing": 0.0, "soft_loss": "squared_error"}}


def make_trainer(
    folder: Path,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    device: str = "cpu",
    world: World = SINGLE_PROCESS,
    phases: Sequence[Phase] = PHASES,
    space: StagedSpace = SPACE,
    new_parameters: Collection[str] = (),
    note: Note = unnoted,
    model: str = "",
    **settings: Any,
) -> Trainer:
    """Return a trainer of batches of 30 images, 4 steps per epoch, that saves every third step."""
    defaults = {"checkpoint_every_steps": 3, "calibration_images": 60, "validation_images": 30}
    values = TrainSettings(**{"batch_size": 30, **defaults, **LOSSES.get(model, {}), **settings})
    return Trainer(
        model_supernet(model) if model else build_supernet(space, values.seed, values.dropout),
        DATA.get(model, make_data)(),
        Recipe(tuple(phases), values),
        folder=folder,
        device=torch.device(device),
        progress=progress,
        world=world,
        configuration={"made": "up"},
        new_parameters=new_parameters,
        note=note,
    )


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: argparse.Namespace) -> None:
    """Run, and die where the arguments say."""
    device = choose_accelerator(arguments.device, threads=1)
    with launched_world(device) as world:
        model = arguments.model
        phases = MODEL_PHASES if model else STRATEGIES[arguments.strategy]
        trainer = make_trainer(
            arguments.folder,
            device=str(device),
            world=world,
            phases=phases,
            model=model,
            importance="l1" if model in ("", "halves") else "taylor",
        )
        if world.rank == world.size - 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            arm(trainer, step=arguments.step, term=arguments.term, save=arguments.save)
        trainer.train()
        weights = torch.cat([parameter.detach().reshape(-1) for parameter in trainer.supernet.parameters()])
        digest = hashlib.sha256(weights.cpu().numpy().tobytes()).hexdigest()
        print(f"finished {digest}\n", end="", flush=True)


def arm(trainer: Trainer, step: int = 0, term: int = 0, save: int = 0) -> None:
    """Make the process send itself SIGKILL or SIGTERM at a moment; 0: never."""
    train_step, write, saves = trainer._train_step, torch.save, 0

    def step_and_die(*given: Any, **named: Any) -> PendingReport:
        unread = train_step(*given, **named)
        if trainer.resumed_at + 1 == step:
            _kill()
        if trainer.resumed_at + 1 == term:
            os.kill(os.getpid(), signal.SIGTERM)
        return unread

    def save_and_die(values: object, file: BinaryIO) -> None:
        nonlocal saves
        saves += 1
        write(values, file)
        if saves == save:
            file.truncate(file.tell() // 2)
            file.flush()
            _kill()

    step_and_die.scaler, step_and_die.read = train_step.scaler, train_step.read  # type: ignore[attr-defined]
    trainer._train_step = step_and_die  # type: ignore[assignment]
    if save:
        torch.save = save_and_die  # type: ignore[assignment]


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strategy", choices=STRATEGIES, default="progressive_shrinking")
    parser.add_argument("--model", choices=MODELS, default="")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    for moment in ("--step", "--term", "--save"):
        parser.add_argument(moment, type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parsed(sys.argv[1:]))
