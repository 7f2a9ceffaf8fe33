"""Tests of ofa.common.config."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest

from ofa.common.config import ConfigError, build, completed, differences
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace


@dataclass(frozen=True)
class Schedule:
    rate: float
    steps: int = 10

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise UserError(f"rate is {self.rate}; expected a positive number.")


@dataclass(frozen=True)
class Settings:
    name: str
    schedule: Schedule
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    limits: dict[str, float] = field(default_factory=dict)
    phases: tuple[Schedule, ...] = ()
    seed: int | None = None
    quiet: bool = False


def errors_of(values: Any, where: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(Settings, values, where)
    return str(caught.value).splitlines()


def test_builds_nested_typed_values_from_plain_lists_and_integers() -> None:
    values = {
        "name": "a",
        "schedule": {"rate": 1},
        "sizes": [3, 4],
        "pair": [1, 2],
        "limits": {"latency_ms": 3},
        "phases": [{"rate": 0.5, "steps": 2}],
        "seed": None,
        "quiet": True,
    }
    built = build(Settings, values)
    assert built == Settings(
        "a",
        Schedule(1.0),
        (3, 4),
        (1, 2.0),
        {"latency_ms": 3.0},
        (Schedule(0.5, 2),),
        None,
        True,
    )
    assert isinstance(built.schedule.rate, float) and isinstance(built.pair[1], float)
    assert isinstance(built.limits["latency_ms"], float)


def test_all_errors_are_reported_at_once_with_their_place() -> None:
    values = {
        "nmae": "a",
        "schedule": {"rate": "fast"},
        "sizes": [3, "x"],
        "pair": [1],
        "phases": [{"rate": 0.5}, {"stesp": 1, "rate": 1}],
        "seed": "one",
        "quiet": 1,
    }
    assert errors_of(values, "train") == [
        "train.nmae is not a setting. Did you mean 'name'?",
        "train.name is missing; expected a text.",
        "train.schedule.rate is 'fast'; expected a number.",
        "train.sizes[1] is 'x'; expected an integer.",
        "train.pair has 1 values; expected 2.",
        "train.phases[1].stesp is not a setting. Did you mean 'steps'?",
        "train.seed is 'one'; expected an integer.",
        "train.quiet is 1; expected true or false.",
    ]


def test_unknown_entry_without_a_close_name_lists_the_known_ones() -> None:
    (error,) = errors_of({"name": "a", "schedule": {"rate": 1.0, "zzz": 0}})
    assert error == "schedule.zzz is not a setting. Known: rate, steps."


def test_errors_of_the_values_themselves_name_their_place() -> None:
    (error,) = errors_of({"name": "a", "schedule": {"rate": -1.0}})
    assert error == "schedule: rate is -1.0; expected a positive number."


@pytest.mark.parametrize("wrong", [True, "3", 3.5, [3]])
def test_integers_are_integers(wrong: Any) -> None:
    (error,) = errors_of({"name": "a", "schedule": {"rate": 1.0, "steps": wrong}})
    assert error.startswith(f"schedule.steps is {wrong!r}")


def test_a_group_must_be_a_mapping() -> None:
    assert errors_of([1, 2], "train") == ["train is [1, 2]; expected a group of settings."]
    assert errors_of({"name": "a", "schedule": 3}) == ["schedule is 3; expected a group of settings."]


def test_an_earlier_record_has_the_defaults_of_settings_that_were_added() -> None:
    today = {"name": "a", "schedule": {"rate": 1.0, "steps": 10}, "sizes": [1, 2], "digest": "x"}
    earlier = {"name": "a", "schedule": {"rate": 1.0}, "digest": "x"}
    assert completed(earlier, today, Settings) == today
    # What was there stays, and so do differences; what the record leaves out today is not added.
    other = {"name": "b", "schedule": {"rate": 2.0}, "digest": "y"}
    assert len(differences(completed(other, today, Settings), today)) == 3
    assert completed(earlier, {"name": "a"}, Settings) == earlier
    # A record that today's settings refuse is compared as it is.
    wrong = {"name": "a", "schedule": {"rate": -1.0}}
    assert completed(wrong, today, Settings) == wrong


def test_space_comes_back_from_its_dict(micro_space: StagedSpace) -> None:
    assert build(StagedSpace, micro_space.to_dict()) == micro_space


def test_space_reports_a_wrong_stage_and_a_wrong_top_level_entry_together(micro_space: StagedSpace) -> None:
    values = micro_space.to_dict()
    values["stages"] = [dataclasses.asdict(stage) for stage in micro_space.stages]
    values["stages"][1]["kernel_sizes"] = [3, 4]
    values["resolution"] = 3
    with pytest.raises(ConfigError) as caught:
        build(StagedSpace, values, "space")
    first, second = str(caught.value).splitlines()
    assert "space.resolution is not a setting" in first
    assert "space.stages[1]: kernel_sizes are [3, 4]; expected odd numbers" in second
