"""Phases that train a part: the classifier alone, without batch norm, new parameters at another rate."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from processes import torchrun
from torch import Tensor
from toy_supernet import ToySupernet
from training_run import PHASES, SPACE, make_data, make_trainer
from weights import assert_equal

from ofa.common.errors import UserError
from ofa.data.settings import DataSettings
from ofa.runs.config import TrainConfig
from ofa.runs.train import train_run
from ofa.supernet.supernet import build_supernet
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.trainer import Trainer

CLASSIFIER = {"layers.9.linear.weight", "layers.9.linear.bias"}
ONE = {"teacher": None, "kernel_sizes": 1, "depths": 1, "expand_ratios": 1}
TRANSFER = (
    Phase(lr=0.2, name="classifier", steps=5, trains="classifier", **ONE),  # type: ignore[arg-type]
    Phase(
        lr=0.05,
        name="all",
        steps=6,
        subnets_per_step=2,
        sandwich=True,
        teacher="in_place",
        frozen_batch_norm=True,
        new_lr_factor=3.0,
    ),
)


def states(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return all values before and after the training."""
    before = {name: value.clone() for name, value in trainer.supernet.state_dict().items()}
    return before, dict(trainer.train().state_dict())


def changed_names(trainer: Trainer) -> set[str]:
    before, after = states(trainer)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_supernet_names_its_classifier(micro_resnet: object) -> None:
    for space in (SPACE, micro_resnet):
        supernet = build_supernet(space)  # type: ignore[arg-type]
        names = supernet.classifier_parameters
        shapes = [tuple(supernet.get_parameter(name).shape) for name in names]
        assert [shape[0] for shape in shapes] == [space.num_classes] * 2 and len(shapes[1]) == 1  # type: ignore[attr-defined]
        assert all(name.endswith(("linear.weight", "linear.bias")) for name in names)


def test_the_classifier_alone_is_trained_and_nothing_else_decays(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, phases=TRANSFER[:1], weight_decay=0.1)
    changed = changed_names(trainer)
    assert {name for name in changed if "running_" not in name} == CLASSIFIER
    # Batch norm normalises by each batch, because running statistics fit no single sub-network.
    assert any("running_mean" in name for name in changed)
    assert all(parameter.requires_grad for parameter in trainer.supernet.parameters())


def test_the_classifier_learns_on_frozen_features(tmp_path: Path) -> None:
    phases = (dataclasses.replace(TRANSFER[0], steps=40, lr=1.0),)
    trainer = make_trainer(tmp_path, phases=phases)
    before = trainer.validate()["largest"]
    trainer.train()
    assert trainer.validate()["largest"] >= max(before, 0.6)


def test_frozen_batch_norm_keeps_its_statistics_scales_and_shifts(tmp_path: Path) -> None:
    phase = Phase(lr=0.05, name="frozen", steps=5, teacher=None, frozen_batch_norm=True)
    changed = changed_names(make_trainer(tmp_path / "frozen", phases=[phase]))
    assert "layers.0.layer.conv.weight" in changed and changed >= CLASSIFIER
    assert [name for name in changed if re.search(r"bn\.", name)] == []
    # The same training with batch norm changes all of it.
    phase = dataclasses.replace(phase, frozen_batch_norm=False)
    changed = changed_names(make_trainer(tmp_path / "trained", phases=[phase]))
    for kind in ("weight", "bias", "running_mean", "running_var"):
        assert f"layers.0.layer.bn.{kind}" in changed


def test_frozen_batch_norm_normalises_by_what_it_has(tmp_path: Path) -> None:
    """One image per batch has no statistics of its own; frozen ones need none."""
    phase = Phase(lr=0.01, steps=3, teacher=None, frozen_batch_norm=True)
    trainer = make_trainer(tmp_path, phases=[phase], batch_size=1, dropout=0.0)
    config = SPACE.largest
    images = torch.randn(1, 1, 12, 12)
    expected = trainer.supernet.eval()(images, config)
    with torch.no_grad():
        for module in trainer.supernet.modules():
            module.training = "BatchNorm" not in type(module).__name__
        torch.testing.assert_close(trainer.supernet(images, config), expected)
    trainer.train()
    assert trainer.resumed_at == 3


def test_new_parameters_learn_at_their_own_rate(tmp_path: Path) -> None:
    new, moves = {*CLASSIFIER, "layers.0.layer.bn.weight"}, {}
    for factor in (1.0, 4.0):
        phase = Phase(lr=0.01, steps=1, teacher=None, new_lr_factor=factor)
        trainer = make_trainer(
            tmp_path / str(factor), phases=[phase], new_parameters=new, momentum=0.0, weight_decay=0.01
        )
        before, after = states(trainer)
        moves[factor] = {n: after[n] - before[n] for n in before if "running_" not in n}
    for name, move in moves[4.0].items():
        scale = 4.0 if name in new else 1.0
        torch.testing.assert_close(move, scale * moves[1.0][name], rtol=1e-3, atol=1e-6)
    assert any(float(move.abs().max()) > 1e-4 for name, move in moves[4.0].items() if name in new)


def test_unknown_new_parameters_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no parameters of the supernet: layers\.77\.weight"):
        make_trainer(tmp_path, new_parameters=["layers.77.weight"])


def test_a_supernet_without_a_named_classifier_is_refused_before_training(tmp_path: Path) -> None:
    recipe = Recipe((PHASES[0], *TRANSFER[:1]), TrainSettings(30))
    with pytest.raises(UserError, match=r"phase 'classifier' trains classifier, but the supernet names no"):
        Trainer(ToySupernet(), make_data(), recipe, folder=tmp_path)
    with pytest.raises(UserError, match="Unknown trains 'head'; known: all, classifier"):
        Phase(1, 0.1, trains="head")
    with pytest.raises(UserError, match=r"new_lr_factor of a phase is 0\.0; expected a positive number"):
        Phase(1, 0.1, new_lr_factor=0.0)


@pytest.mark.parametrize("step", [1, 4, 5, 6, 10])
def test_stopped_anywhere_it_ends_with_the_same_weights(tmp_path: Path, step: int) -> None:
    given = {"phases": TRANSFER, "new_parameters": CLASSIFIER}
    whole = make_trainer(tmp_path / "whole", **given).train()  # type: ignore[arg-type]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    stopped = make_trainer(tmp_path / "stopped", **given, checkpoint_every_steps=1)  # type: ignore[arg-type]
    save = stopped._checkpoints.save
    stopped._checkpoints.save = lambda n, values: (save(n, values), stop() if n == step else None)  # type: ignore
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    # What was new at the start is known from the checkpoint.
    again = make_trainer(tmp_path / "stopped", phases=TRANSFER)
    assert again.resumed_at == step
    assert_equal(dict(again.train().state_dict()), dict(whole.state_dict()))


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_rate_of_new_parameters_without_any_is_said(tmp_path: Path, factor: float) -> None:
    lines: list[str] = []
    phase = Phase(lr=0.01, steps=1, teacher=None, new_lr_factor=factor)
    settings = TrainSettings(30, calibration_images=20, validation_images=10)
    data = DataSettings("digits", validation_size=10)
    config = TrainConfig("run", data, {"all": phase}, settings, runs_dir=str(tmp_path), space=SPACE)
    train_run(config, torch.device("cpu"), note=lines.append)
    assert any("new_lr_factor has no effect" in line for line in lines) is (factor == 3.0)


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
from test_trained_part import CLASSIFIER, TRANSFER
from training_run import make_trainer
from ofa.common.distributed import launched_world
from ofa.common.tensors import content_digest

torch.set_num_threads(1)
with launched_world(torch.device("cpu")) as world:
    given = {"phases": TRANSFER, "new_parameters": CLASSIFIER}
    supernet = make_trainer(Path(sys.argv[1]), world=world, **given).train()
    print(f"digest {content_digest(dict(supernet.state_dict()))}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_two_processes_train_the_same_part(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{TWO_PROCESSES}")
    completed = torchrun(str(script), str(tmp_path / "run"))
    assert completed.returncode == 0, completed.stderr
    digests = re.findall(r"digest (\w+)", completed.stdout)
    assert len(digests) == 2 and len(set(digests)) == 1
