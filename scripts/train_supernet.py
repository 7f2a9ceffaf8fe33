"""Train a supernet, e.g. `ofa train experiment=fashion_mnist data.root=DIR`.

Several processes: `ofa --processes 2 train experiment=...`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.common.progress import progress_bar, unnoted
from ofa.launch import command, job_name
from ofa.runs.config import TrainConfig, next_command
from ofa.runs.directory import RunDirectory

if TYPE_CHECKING:
    from ofa.runs.conversion import ConvertedModel


@command(
    "train_supernet",
    TrainConfig,
    interrupted="The last checkpoint, if there is one, is intact; the same command goes on from it.",
)
def train_supernet(config: TrainConfig) -> Path:
    """Train (or go on training) and return the path of the supernet."""
    return train_converted(config, None)


def train_converted(config: TrainConfig, conversion: ConvertedModel | None) -> Path:
    """Do what `train_supernet` does, with a user's model that was converted before; for other commands."""
    from ofa.common.accelerator import choose_accelerator
    from ofa.common.distributed import launched_world
    from ofa.runs.train import train_run

    config = dataclasses.replace(config, run_name=job_name(config.run_name, ["run_name"]))
    device = choose_accelerator(config.accelerator, config.threads)
    with (
        launched_world(device) as world,
        progress_bar("training", visible=world.is_main) as progress,
    ):
        note = print if world.is_main else unnoted
        train_run(config, device, world=world, progress=progress, note=note, conversion=conversion)
        supernet = RunDirectory(config.runs_dir, config.run_name).supernet
        note(f"supernet: {supernet}\n{next_command(config, 'collect')}")
    return supernet


if __name__ == "__main__":
    train_supernet()
