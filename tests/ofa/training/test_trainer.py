"""A trainer takes any supernet: new, loaded, or of a kind that the project does not know."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_supernet import TOY_SPACE, ToySupernet
from training_run import MODEL_PHASES, PHASES, SPACE, STRATEGIES, make_data, make_trainer
from weights import assert_equal

from ofa.common.distributed import World
from ofa.common.errors import UserError
from ofa.common.tensors import load_tensors
from ofa.graph.convert import make_elastic
from ofa.graph.supernet_file import load_graph_supernet, save_graph_supernet
from ofa.runs.supernet_file import load_supernet, save_supernet
from ofa.supernet.protocol import AbstractSupernet
from ofa.supernet.supernet import build_supernet
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import plan_step
from ofa.training.settings import TrainSettings
from ofa.training.step import TrainStep
from ofa.training.trainer import Trainer

CPU = torch.device("cpu")


def trainer_of(supernet: AbstractSupernet[nn.Module], folder: Path, *phases: Phase) -> Trainer:
    settings = TrainSettings(30, calibration_images=60, validation_images=30, checkpoint_every_steps=3)
    return Trainer(supernet, make_data(), Recipe(tuple(phases), settings), folder=folder, device=CPU)


def test_a_loaded_supernet_is_trained_further(tmp_path: Path) -> None:
    supernet = build_supernet(SPACE, 0, 0.1)
    trainer_of(supernet, tmp_path / "first", *PHASES[:1]).train()
    save_supernet(tmp_path / "supernet.pt", supernet, {"config": {"training": {"dropout": 0.1}}})
    largest = dict(supernet.extract(SPACE.largest).state_dict())

    loaded, _ = load_supernet(tmp_path / "supernet.pt")
    further = trainer_of(loaded, tmp_path / "further", *PHASES[1:3])
    assert further.resumed_at == 0
    further.train()
    # The first phase distils from what was loaded.
    assert_equal(load_tensors(tmp_path / "further" / "teacher.pt", "teacher")["state"], largest)
    assert not torch.equal(next(loaded.parameters()), next(supernet.parameters()))
    assert further.validate()["largest"] >= 0.6
    # Where the folder has a checkpoint, its weights count.
    again = trainer_of(build_supernet(SPACE, 9, 0.1), tmp_path / "further", *PHASES[1:3])
    assert again.resumed_at == 8
    assert_equal(dict(again.supernet.state_dict()), dict(loaded.state_dict()))


def test_a_loaded_supernet_has_the_dropout_that_it_was_trained_with(tmp_path: Path) -> None:
    supernet, config = build_supernet(SPACE, 0, 0.5), SPACE.largest
    save_supernet(tmp_path / "known.pt", supernet, {"config": {"training": {"dropout": 0.5}}})
    save_supernet(tmp_path / "imported.pt", supernet, {})
    images = torch.randn(6, 1, config.resolution, config.resolution)

    def is_random(loaded: AbstractSupernet[nn.Module]) -> bool:
        loaded.train()
        return not torch.equal(loaded(images, config), loaded(images, config))

    assert is_random(load_supernet(tmp_path / "known.pt")[0])
    assert not is_random(load_supernet(tmp_path / "known.pt", dropout=0.0)[0])
    assert not is_random(load_supernet(tmp_path / "imported.pt")[0])
    assert is_random(load_supernet(tmp_path / "imported.pt", dropout=0.5)[0])


def test_a_supernet_of_another_kind_is_trained_and_evaluated(tmp_path: Path) -> None:
    supernet = ToySupernet().eval()
    images = torch.randn(5, 1, 12, 12)
    for config in (TOY_SPACE.smallest, TOY_SPACE.largest):
        torch.testing.assert_close(supernet(images, config), supernet.extract(config)(images))
    trainer = trainer_of(supernet, tmp_path, *PHASES)
    before = trainer.validate()
    trainer.train()
    after = trainer.validate()
    assert after["largest"] >= 0.6 and sum(after.values()) > sum(before.values())
    assert supernet.sorted_for == PHASES[2].space(TOY_SPACE)
    resumed = trainer_of(ToySupernet(seed=5), tmp_path, *PHASES)
    assert resumed.resumed_at == 24
    assert_equal(dict(resumed.supernet.state_dict()), dict(supernet.state_dict()))


def test_before_its_first_phase_a_supernet_is_sorted_for_its_whole_space(tmp_path: Path) -> None:
    supernet = ToySupernet()
    trainer_of(supernet, tmp_path, Phase(1, 0.01, "width", sort_channels=True)).train()
    assert supernet.sorted_for == TOY_SPACE


def test_a_model_of_ones_own_is_sorted_for_the_network_that_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.AvgPool2d(12),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    with torch.no_grad():
        model[2].weight.copy_(torch.arange(1.0, 9).reshape(1, 8, 1, 1).expand(4, 8, 1, 1))  # type: ignore[operator]
    supernet = make_elastic(
        model.eval(), torch.randn(2, 1, 12, 12), widths=[0.5, 1.0], divisor=1, min_channels=8
    )
    assert supernet.start_space == supernet.space.only_largest
    # One that is loaded may have been trained as a whole.
    save_graph_supernet(tmp_path / "model.pt", supernet)
    assert load_graph_supernet(tmp_path / "model.pt", model).start_space is None
    trainer_of(supernet, tmp_path, Phase(1, 1e-9, "width", sort_channels=True)).train()
    importance = supernet.get_parameter("model.2.weight").detach().abs().sum((0, 2, 3))
    # The upper half crosses into the narrow network; within the choices alone it would stay outside.
    assert (importance.diff() < 0).all()


def test_batch_norm_that_cannot_be_synchronised_is_refused() -> None:
    settings = TrainSettings(30, batch_norm="synchronised")
    with pytest.raises(UserError, match="synchronised needs elastic batch norm"):
        TrainStep(ToySupernet(), settings, device=CPU, world=World(0, 2))


def test_a_plan_holds_the_genomes_of_its_networks() -> None:
    for step, phase in enumerate((PHASES[3], STRATEGIES["sandwich"][0])):
        plan = plan_step(SPACE, phase, 0, step)
        assert (plan.genomes == SPACE.genomes(plan.configs)).all()


def test_batch_norm_cannot_be_frozen_in_a_graph(tmp_path: Path) -> None:
    frozen = dataclasses.replace(MODEL_PHASES[0], frozen_batch_norm=True)
    assert make_trainer(tmp_path / "own", phases=[frozen], model="own").resumed_at == 0
    with pytest.raises(UserError, match="phases all freeze batch norm, and the graph of this model"):
        make_trainer(tmp_path / "graph", phases=[frozen], model="halves")
