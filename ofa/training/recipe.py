"""`Recipe`: how a supernet is trained, as data; the recipes of `conf/` by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ofa.common.config import build
from ofa.common.shipped import read_preset
from ofa.training.phases import Phase
from ofa.training.settings import TrainSettings


@dataclass(frozen=True)
class Recipe:
    """The phases of a training in the order they run, and the settings that all of them share."""

    phases: tuple[Phase, ...]
    settings: TrainSettings


def load_recipe(phases: str | Path, training: str | Path | None = None) -> Recipe:
    """Return a recipe of `conf/`, or of YAML files of that kind.

    Args:
        phases: file of `conf/phases/`, e.g. "quick", or a path that ends in .yaml.
        training: file of `conf/training/`, e.g. "small_images"; None for the one named as the phases.

    Raises:
        UserError: for an unknown name, with the list of known ones, or naming every wrong entry.
    """
    settings = read_preset("training", phases if training is None else training)
    named_phases = {
        name: build(Phase, values, f"{phases}.{name}")
        for name, values in read_preset("phases", phases).items()
    }
    return Recipe(name_phases(named_phases), build(TrainSettings, settings, str(training or phases)))


def name_phases(phases: Mapping[str, Phase]) -> tuple[Phase, ...]:
    """Return the phases, each with the name that it is listed under."""
    return tuple(dataclasses.replace(phase, name=name) for name, phase in phases.items())
