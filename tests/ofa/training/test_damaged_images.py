"""A photograph that is damaged while a training runs does not cost the steps since the last checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_run import PHASES, SPACE

from ofa.common.errors import UserError
from ofa.data.folder import FolderData
from ofa.data.settings import DataSettings
from ofa.supernet.supernet import build_supernet
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.trainer import Trainer


def make_trainer(root: Path, folder: Path) -> Trainer:
    settings = TrainSettings(8, calibration_images=6, validation_images=6, checkpoint_every_steps=100)
    return Trainer(
        build_supernet(dataclasses.replace(SPACE, in_channels=3), 0),
        FolderData(DataSettings("made", str(root), image_size=12, validation_size=6, workers=0)),
        Recipe(PHASES, settings),
        folder=folder,
        device=torch.device("cpu"),
    )


def test_what_was_trained_is_saved_before_the_error(tmp_path: Path) -> None:
    root, rng = tmp_path / "images", np.random.default_rng(0)
    for label, name in enumerate(("a", "b", "c")):
        for split, count in (("train", 14), ("val", 2)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = (rng.integers(0, 90, (16, 16, 3)) + 80 * label).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    trainer = make_trainer(root, tmp_path / "run")
    last_file = Path(trainer._data._datasets["train"]._paths[0])  # type: ignore[attr-defined]
    content = last_file.read_bytes()
    train_batch = trainer._train_batch

    def damage_after_five_steps(batch: object, data_wait_s: float) -> object:
        if trainer.resumed_at == 4:
            last_file.write_bytes(b"")
        return train_batch(batch, data_wait_s)  # type: ignore[arg-type]

    trainer._train_batch = damage_after_five_steps  # type: ignore[assignment, method-assign]
    with pytest.raises(UserError, match=f"{last_file.name} cannot be read as an image"):
        trainer.train()
    num_steps = trainer.resumed_at
    assert num_steps > 4
    last_file.write_bytes(content)
    resumed = make_trainer(root, tmp_path / "run")
    assert resumed.resumed_at == num_steps
    for name, tensor in trainer.supernet.state_dict().items():
        assert torch.equal(tensor, resumed.supernet.state_dict()[name])
