"""The figure of a compression: a point for each step, one name for steps at one place."""

from __future__ import annotations

from ofa.compression.steps_figure import StepPoint, steps_figure


def test_steps_at_one_place_share_a_label() -> None:
    points = [
        StepPoint("uncompressed", 8.0, 98.7),
        StepPoint("channels", 4.8, 99.2),
        StepPoint("finetune", 4.8, 99.2),
    ]
    controls = [StepPoint("control", 8.0, 98.3)]
    figure = steps_figure(points, controls, title="steps", cost="M MACs", value="top-1 [%]")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert texts == ["uncompressed", "channels, finetune", "control"]
