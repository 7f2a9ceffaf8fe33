"""Train a supernet, e.g. `train_supernet.py experiment=fashion_mnist data.root=DIR`.

Several processes: `torchrun --nproc-per-node=2 scripts/train_supernet.py experiment=...`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ofa.common.progress import progress_bar
from ofa.launch import command
from ofa.runs.config import TrainConfig, claim_directory
from ofa.runs.directory import RunDirectory
from ofa.training.phases import check_phases


@command("train_supernet", TrainConfig)
def train_supernet(config: TrainConfig) -> Path:
    """Train (or go on training) and return the path of the supernet."""
    from ofa.common.accelerator import choose_accelerator
    from ofa.common.distributed import launched_world
    from ofa.data.sources import load_data
    from ofa.runs.supernet_file import save_supernet
    from ofa.supernet.supernet import build_supernet
    from ofa.training.precision import EMULATED, emulates
    from ofa.training.trainer import Trainer

    device = choose_accelerator(config.accelerator, config.threads)
    phases = list(config.phases.values())
    check_phases(phases)
    data = load_data(config.data)
    run = RunDirectory(config.runs_dir, config.run_name)
    space = config.fitted_space(data.info)
    with launched_world(device) as world, run.locked("training", world.is_main):
        say: Callable[[str], object] = print if world.is_main else lambda text: None
        if world.is_main:
            claim_directory(run, config)
        world.wait()
        say(f"{space.name}: {space.size:.3g} sub-networks; {data.size('train')} images of {data.info.name}")
        say(f"watch it with: tensorboard --logdir {run.path / 'tensorboard'}")
        if emulates(config.training.precision, device):
            say(EMULATED)
        supernet = build_supernet(space, config.training.seed, config.training.dropout)
        with progress_bar("training", visible=world.is_main) as progress:
            trainer = Trainer(
                supernet,
                data,
                phases,
                config.training,
                folder=run.path,
                device=device,
                progress=progress,
                world=world,
                configuration=dataclasses.asdict(config),
            )
            for file in trainer.damaged_checkpoints:
                say(f"passed over the damaged checkpoint {file}")
            if trainer.resumed_at:
                say(f"going on after step {trainer.resumed_at}")
            trainer.train()
        summary = trainer.summary(config.run_name)
        if world.is_main:
            save_supernet(run.supernet, supernet, config.provenance(data.info))
            summary.write(run.path, run.path.parent / "runs.csv")
        for name, value in summary.scores.items():
            say(f"validation {trainer.metric.title}, {name:9s} {trainer.metric.show(value):>8s}")
        say(f"supernet: {run.supernet}\nnext: python scripts/collect_accuracy.py run_name={config.run_name}")
    return run.supernet


if __name__ == "__main__":
    train_supernet()
