"""Train a supernet, e.g. `train_supernet.py experiment=fashion_mnist data.root=DIR`."""

from __future__ import annotations

from pathlib import Path

from ofa.accelerator import choose_accelerator
from ofa.checkpoint import save_supernet
from ofa.data import load_data
from ofa.launch import command
from ofa.progress import progress_bar
from ofa.run import RunDirectory, TrainConfig
from ofa.training.loop import Trainer


@command("train_supernet", TrainConfig)
def train_supernet(config: TrainConfig) -> Path:
    """Train (or go on training) and return the path of the supernet."""
    device = choose_accelerator(config.accelerator, config.threads)
    data = load_data(config.data)
    run = RunDirectory(config.runs_dir, config.run_name)
    run.claim(config)
    space = config.fitted_space(data.info)
    print(f"{space.name}: {space.size:.3g} sub-networks; {data.size('train')} images of {data.info.name}")
    print(f"watch it with: tensorboard --logdir {run.path / 'tensorboard'}")
    with progress_bar("training") as progress:
        phases = list(config.phases.values())
        trainer = Trainer(space, data, phases, config.training, run.path, device, progress)
        for file in trainer.damaged_checkpoints:
            print(f"passed over the damaged checkpoint {file}")
        if trainer.resumed_at:
            print(f"going on after step {trainer.resumed_at}")
        supernet = trainer.train()
    classes = list(data.info.class_names)
    made = {"run": config.run_name, "class_names": classes, "config": config.record()}
    save_supernet(run.supernet, supernet, made)
    for name, top1 in trainer.validate().items():
        print(f"validation top-1, {name:9s} {100 * top1:6.2f} %")
    print(f"supernet: {run.supernet}\nnext: python scripts/collect_accuracy.py run_name={config.run_name}")
    return run.supernet


if __name__ == "__main__":
    train_supernet()
