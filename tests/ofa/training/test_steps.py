"""Phases given in steps: their lengths, epochs that run on, validations, texts, and the time that is said."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from training_run import PHASES, SPACE, make_data, make_trainer
from weights import assert_equal

from ofa.common.config import ConfigError, build
from ofa.common.errors import StoppedError, UserError
from ofa.data.base import ImageData
from ofa.supernet.supernet import build_supernet
from ofa.training.pace import NUM_TIMED_STEPS, Pace
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.schedule import Position, Schedule, schedule_of
from ofa.training.settings import TrainSettings
from ofa.training.step_costs import validation_cost
from ofa.training.trainer import Trainer

STEPS = (
    Phase(lr=0.2, name="largest", steps=6, warmup_steps=2, depths=1, kernel_sizes=1, teacher=None),
    Phase(lr=0.05, name="all", steps=7, subnets_per_step=3, sandwich=True, teacher="in_place"),
)


def test_the_length_of_a_phase_is_given_once() -> None:
    with pytest.raises(UserError, match="neither epochs nor steps; expected one of them"):
        Phase(lr=0.1)
    with pytest.raises(UserError, match="epochs and steps; expected one of them"):
        Phase(2, 0.1, steps=10)
    with pytest.raises(UserError, match="warmup_epochs and warmup_steps; give one"):
        Phase(2, 0.1, warmup_epochs=1, warmup_steps=3)
    with pytest.raises(UserError, match=r"steps of a phase is 0.*lr of a phase is 0.0; expected a positive"):
        Phase(steps=0)
    with pytest.raises(ConfigError, match="warmup_steps of a phase is -1; expected at least 0"):
        build(Phase, {"steps": 5, "lr": 0.1, "warmup_steps": -1})


def test_a_schedule_counts_steps_and_epochs() -> None:
    phases = (Phase(3, 0.1, "long", warmup_epochs=1), Phase(lr=0.1, name="short", steps=25, warmup_steps=10))
    whole, half = (Schedule(phases, 8, 1.0, length) for length in (1.0, 0.5))
    assert [whole.steps(phase) for phase in phases] == [24, 25] and whole.total_steps == 49
    assert [half.steps(phase) for phase in phases] == [12, 12]
    assert Schedule(phases, 8, 1.0, 0.001).total_steps == 2
    # The peak is reached at the end of the warm-up: 8 of 24 and 4 of 12 steps, 10 of 25 and 5 of 12.
    for schedule, warmups in ((whole, (8, 10)), (half, (4, 5))):
        for number, warmup in enumerate(warmups):
            rates = [
                schedule.learning_rate(Position(number, step))
                for step in range(schedule.steps(phases[number]))
            ]
            assert rates.index(max(rates)) == warmup - 1 and rates[warmup - 2] < 0.1
    assert whole.position_text(Position(0, 8)) == "long epoch 2/3"
    assert whole.position_text(Position(1, 11, 35)) == "short step 12/25"
    assert half.position_text(Position(0, 8)) == "long epoch 2/2"


def test_validations_are_spread_over_a_phase() -> None:
    phases = (Phase(4, 0.1), Phase(lr=0.1, steps=95))

    def validated(schedule: Schedule, phase: int) -> list[int]:
        steps = schedule.steps(phases[phase])
        places = [step for step in range(steps + 1) if schedule.is_validation_due(Position(phase, step))]
        # What follows a position is what is due after it.
        for step in range(steps):
            following = [place for place in places if place > step]
            later = sum(map(len, [places_of_last(schedule)])) if phase == 0 else 0
            assert schedule.steps_to_validation(Position(phase, step)) == following[0] - step
            assert schedule.num_validations(Position(phase, step)) == len(following) + later
        return places

    def places_of_last(schedule: Schedule) -> list[int]:
        return [step for step in range(96) if schedule.is_validation_due(Position(1, step))]

    by_default = Schedule(phases, 3, 1.0, validate_every_epochs=2)
    assert validated(by_default, 0) == [6, 12]
    assert validated(by_default, 1) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95]
    by_steps = Schedule(phases, 3, 1.0, validate_every_epochs=2, validate_every_steps=5)
    assert validated(by_steps, 0) == [5, 10, 12]
    assert validated(by_steps, 1) == [*range(5, 96, 5)]


def record_batches(trainer: Trainer) -> list[tuple[int, int]]:
    """Return the list to which the epoch and number of every trained batch will be added."""
    used: list[tuple[int, int]] = []
    train_batches = trainer._data.train_batches

    def recorded(
        size: int, seed: int, epoch: int, device: torch.device, first: int = 0, *more: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(train_batches(size, seed, epoch, device, first, *more), first):
            used.append((epoch, number))
            yield batch

    trainer._data.train_batches = recorded  # type: ignore[method-assign, assignment]
    return used


def test_epochs_run_on_where_a_phase_ends_within_one(tmp_path: Path) -> None:
    texts: list[str] = []
    trainer = make_trainer(tmp_path, lambda done, total, text: texts.append(text), phases=STEPS)
    used = record_batches(trainer)
    trainer.train()
    # Four batches an epoch: the second phase begins with the third batch of the second epoch.
    assert used == [divmod(step, 4) for step in range(13)]
    assert trainer.resumed_at == 13 and trainer.summary("steps").steps == 13
    assert any(text.startswith("all step 4/7") for text in texts)


def test_a_shorter_training_has_fewer_steps_of_every_phase(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, phases=(*STEPS, *PHASES[2:3]), length=0.5)
    used = record_batches(trainer)
    trainer.train()
    assert len(used) == 3 + 4 + 2


def stopping_trainer(folder: Path, step: int, **given: Any) -> Trainer:
    """Return a trainer that is told to stop in the given step."""
    trainer = make_trainer(folder, **given)
    train_step = trainer._train_step

    def stepped(*values: Any, **named: Any) -> Any:
        return train_step(*values, **{**named, "stop": trainer.resumed_at + 1 >= step})

    stepped.scaler, stepped.read = train_step.scaler, train_step.read  # type: ignore[attr-defined]
    trainer._train_step = stepped  # type: ignore[assignment]
    return trainer


@pytest.mark.parametrize("step", [2, 5, 6, 9, 13])
def test_stopped_anywhere_it_ends_with_the_same_weights_and_validations(tmp_path: Path, step: int) -> None:
    def validations(trainer: Trainer) -> list[int]:
        steps: list[int] = []
        scores = trainer._validation.scores_and_losses
        trainer._validation.scores_and_losses = lambda step: steps.append(step) or scores(step)  # type: ignore
        return steps

    given: dict[str, Any] = {"phases": STEPS, "validate_every_steps": 3}
    whole = make_trainer(tmp_path / "whole", **given)
    expected = validations(whole)
    weights = whole.train().state_dict()
    assert expected == [3, 6, 9, 12, 13]
    stopped = stopping_trainer(tmp_path / "stopped", step, **given)
    first = validations(stopped)
    with pytest.raises(StoppedError, match=f"after step {step}"):
        stopped.train()
    again = make_trainer(tmp_path / "stopped", **given)
    second = validations(again)
    assert again.resumed_at == step
    assert_equal(dict(again.train().state_dict()), dict(weights))
    assert first + second == expected


def images(num_train: int, num_validation: int) -> ImageData:
    """Return a stand-in that knows its sizes alone."""
    sizes = {"train": num_train, "validation": num_validation}
    return cast(ImageData, SimpleNamespace(size=sizes.__getitem__))


def test_the_time_of_the_whole_training_is_said_once() -> None:
    phases = (
        Phase(lr=0.1, steps=600, teacher=None),
        Phase(lr=0.1, steps=500, subnets_per_step=2, teacher=None),
    )
    settings = TrainSettings(64, validation_images=2000, calibration_images=320, length=1.0)
    lines: list[str] = []
    # There are fewer images to validate on than the settings allow.
    pace = Pace(Schedule(phases, 100, 1.0), settings, images(6400, 320), Position(), lines.append)
    for step in range(1, 40):
        # The first step is slow; it does not count.
        pace.add(Position(0, step, step), 60.0 if step == 1 else 1.0)
        pace.add(Position(0, step, step), 0.0)
        assert len(lines) == (step >= NUM_TIMED_STEPS)
    # 600 + 2 * 500 s; 21 validations of 4 networks, each 640 / 64 batches at 0.3 of a step: 252 s.
    assert lines == ["about 31 min for 1,100 steps; shorter: training.length=0.5"]


def test_a_short_training_says_no_time_and_a_resumed_one_no_setting() -> None:
    phases, lines = (Phase(lr=0.1, steps=1000, teacher=None),), list[str]()
    settings = TrainSettings(64, validation_images=1, calibration_images=1)
    for first, seconds in ((0, 0.01), (400, 10.0)):
        pace = Pace(
            Schedule(phases, 100, 1.0), settings, images(9, 9), Position(0, first, first), lines.append
        )
        for step in range(first + 1, first + 20):
            pace.add(Position(0, step, step), seconds)
    (line,) = lines
    assert line == "about 1 h 40 min for 600 steps"


def test_a_trainer_says_how_long_it_will_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("ofa.training.loop.time.perf_counter", lambda: float(next(clock)))
    lines: list[str] = []
    phases = (dataclasses.replace(STEPS[0], steps=40),)
    make_trainer(tmp_path, phases=phases, note=lines.append, validate_every_steps=20, length=0.6).train()
    (line,) = lines
    assert re.fullmatch(r"about (\d+ min|\d+ s) for 24 steps; shorter: training\.length=0\.3", line)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0.0}, "length is 0.0; expected a positive number"),
        ({"validate_every_steps": 0}, "validate_every_steps is 0; expected at least 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        TrainSettings(30, **settings)


def test_steps_cost_what_their_networks_take() -> None:
    """The largest network alone costs 1; a step of three networks less than 3, but more than the largest."""
    supernet = build_supernet(SPACE)
    phases = (
        dataclasses.replace(STEPS[0], expand_ratios=1),
        STEPS[1],
        Phase(lr=0.1, steps=5, trains="classifier", teacher=None, subnets_per_step=2, sandwich=True),
    )
    recipe = Recipe(phases, TrainSettings(30))
    largest, sandwich, classifier = schedule_of(recipe, make_data(), supernet).step_costs
    assert 0.5 < largest < 1.0  # two resolutions
    assert largest + 0.3 < sandwich < 3 * largest
    assert classifier < 0.3 * sandwich
    # By hand: the smallest and the middle network from their MACs, the middle one twice.
    macs = supernet.costs["macs"](SPACE.genomes([SPACE.smallest, SPACE.middle, SPACE.largest]))
    times = 0.1 + 0.9 * macs / macs[2]
    assert validation_cost(supernet, recipe) == pytest.approx(times[0] + 2 * times[1] + 1.0)
    schedule = schedule_of(recipe, make_data(), supernet)
    done, total = schedule.work_done(Position(2, 5, 18))
    assert (
        done == total == sum(round(100 * c * n) for c, n in zip(schedule.step_costs, (6, 7, 5), strict=True))
    )
