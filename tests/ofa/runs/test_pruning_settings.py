"""`PruningSettings`: limits in single units, and epochs that are spread over the steps."""

from __future__ import annotations

import dataclasses

import pytest

from ofa.runs.pruning_settings import PruningLimits, PruningSettings
from ofa.training.settings import FinetuneSettings


def settings(method: str, epochs: int, steps: int) -> PruningSettings:
    finetuning = FinetuneSettings(epochs, 0.01, 64, 0.9, 0.0, 0.0, 1.0, 0)
    limits = PruningLimits(parameters_m=2.0, memory_mb=1.5, latency_ms=4.0)
    return PruningSettings(method=method, macs_share=0.25, limits=limits, steps=steps, finetuning=finetuning)


def test_limits_are_in_single_units() -> None:
    limits = settings("one_step", 1, 4).limits_of(1000)
    assert limits == {"macs": 250, "parameters": 2e6, "peak_activation_bytes": 1.5e6, "latency_ms": 4}


@pytest.mark.parametrize(
    ("method", "epochs", "steps", "expected"),
    [
        ("iterative", 8, 4, [2, 2, 2, 2]),
        ("iterative", 5, 3, [1, 2, 2]),
        ("iterative", 2, 4, [0, 1, 0, 1]),
        ("iterative", 0, 2, [0, 0]),
        ("one_step", 5, 4, [5]),
    ],
)
def test_all_steps_together_have_the_epochs(
    method: str, epochs: int, steps: int, expected: list[int]
) -> None:
    pruning = settings(method, epochs, steps)
    assert [pruning.finetuning_of(n).epochs for n in range(1, len(expected) + 1)] == expected


def test_steps_of_training_are_spread_like_epochs() -> None:
    finetuning = dataclasses.replace(settings("iterative", 1, 2).finetuning, epochs=None, steps=7)
    pruning = dataclasses.replace(settings("iterative", 1, 2), finetuning=finetuning)
    assert [pruning.finetuning_of(number).steps for number in (1, 2)] == [3, 4]
    assert pruning.finetuning_of(1).epochs is None
