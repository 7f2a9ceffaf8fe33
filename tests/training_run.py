"""A training run of seconds on made-up images; as a script, one that is killed at a given moment.

    python tests/training_run.py FOLDER [step N | save N]

`step N` kills the process with SIGKILL when step N is done, `save N` in the middle of writing the N-th file.
Under torchrun the last process dies, and only before the first restart.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ofa.data import DataSettings
from ofa.data.memory import MemoryData
from ofa.distributed import ALONE, World, launched_world
from ofa.space import SearchSpace, StageSpec
from ofa.training.loop import Trainer
from ofa.training.settings import Phase, TrainSettings

SPACE = SearchSpace(
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
PHASES = (
    Phase(2, 0.3, "largest", kernel_sizes=1, depths=1, expand_ratios=1, warmup_epochs=1, distill=False),
    Phase(1, 0.05, "kernel", depths=1, expand_ratios=1),
    Phase(1, 0.05, "depth", expand_ratios=1, subnets_per_step=2),
    Phase(2, 0.05, "width", subnets_per_step=2, sort_channels=True),
)


def make_data(seed: int = 0) -> MemoryData:
    """Return 150 + 30 grey 12x12 images of three classes that differ in brightness, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(180) % 3
    images = torch.randint(0, 90, (180, 1, 12, 12), generator=generator) + 80 * labels[:, None, None, None]
    settings = DataSettings("made up", validation_size=30, crop_padding=1, horizontal_flip=True)
    train, test = (images[:150], labels[:150]), (images[150:], labels[150:])
    names = ("dark", "middle", "bright")
    return MemoryData(settings, names, (train[0].byte(), train[1]), (test[0].byte(), test[1]))


def make_trainer(
    folder: Path,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    device: str = "cpu",
    precision: str = "fp32",
    world: World = ALONE,
) -> Trainer:
    """Return a trainer of 24 steps of 30 images that saves every third step."""
    settings = TrainSettings(
        batch_size=30,
        checkpoint_every_steps=3,
        calibration_images=60,
        validation_images=30,
        precision=precision,
    )
    return Trainer(SPACE, make_data(), PHASES, settings, folder, torch.device(device), progress, world)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Run, and die where the arguments say."""
    torch.set_num_threads(1)
    with launched_world(torch.device("cpu")) as world:
        trainer = make_trainer(Path(arguments[0]), world=world)
        may_die = world.rank == world.size - 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        _arm(trainer, arguments[1:] if may_die else [])
        trainer.train()
        weights = torch.cat([parameter.detach().reshape(-1) for parameter in trainer.supernet.parameters()])
        print(f"finished {hashlib.sha256(weights.numpy().tobytes()).hexdigest()}\n", end="", flush=True)


def _arm(trainer: Trainer, arguments: list[str]) -> None:
    """Make the process kill itself at the moment that the arguments name."""
    if arguments[:1] == ["step"]:
        train_step = trainer._train_step

        def step_and_die(*step: Any) -> dict[str, float]:
            losses = train_step(*step)
            if trainer.resumed_at + 1 == int(arguments[1]):
                _kill()
            return losses

        trainer._train_step = step_and_die  # type: ignore[method-assign,assignment]
    if arguments[:1] == ["save"]:
        saves = 0
        save = torch.save

        def save_and_die(values: object, file: BinaryIO) -> None:
            nonlocal saves
            saves += 1
            save(values, file)
            if saves == int(arguments[1]):
                file.truncate(file.tell() // 2)
                file.flush()
                _kill()

        torch.save = save_and_die  # type: ignore[assignment]


if __name__ == "__main__":
    main(sys.argv[1:])
