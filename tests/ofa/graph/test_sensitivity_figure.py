"""The figure of a sensitivity analysis has a row per group, for a few groups and for many."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofa.common.figures import save_png
from ofa.graph.sensitivity import GroupSensitivity
from ofa.graph.sensitivity_figure import sensitivity_figure


@pytest.mark.parametrize(("num_groups", "has_numbers"), [(1, True), (5, True), (60, False)])
def test_every_group_has_a_row_with_its_losses(num_groups: int, has_numbers: bool, tmp_path: Path) -> None:
    groups = [
        GroupSensitivity(f"layer{index}.conv", (8, 16, 32), (0.5 - index / 200, 0.8, 0.9))
        for index in range(num_groups)
    ]
    figure = sensitivity_figure(groups, title="step 1", label="points lost", scale=100)
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"layer{index}.conv (32)" for index in range(num_groups)]
    low_end, high_end = axes.get_ylim()
    assert low_end > high_end  # the first group is on top
    numbers = [text.get_text() for text in axes.texts]
    assert numbers[:3] == (["40.0", "10.0", "0.0"] if has_numbers else [])
    assert figure.get_size_inches()[1] / num_groups > 0.15
    path = tmp_path / "figure.png"
    save_png(figure, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_groups_that_lose_nothing_can_be_drawn() -> None:
    figure = sensitivity_figure([GroupSensitivity("a", (8, 16), (0.5, 0.5))], title="", label="")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.0", "0.0"]
