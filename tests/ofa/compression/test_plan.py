"""Plans: harms of single changes, the least harm within a limit, and what they tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.common.figures import save_png
from ofa.common.score_file import ScoreFile
from ofa.compression.candidates import Candidate, find_candidates
from ofa.compression.change_harms import change_harms
from ofa.compression.changes import LayerChange, apply_changes
from ofa.compression.plan import LayerOptions, layer_options, make_plan, useful_changes
from ofa.compression.programs import form_costs, form_programs
from ofa.compression.steps_figure import StepPoint, steps_figure


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()


def test_harm_is_the_error_of_the_outputs_as_a_part_of_their_variance(tmp_path: Path) -> None:
    images, model = torch.randn(16, 3, 8, 8), network()
    changes = [LayerChange("2", "split", (rank,)) for rank in (8, 24, 96)]
    scores = ScoreFile(tmp_path / "harm.jsonl")
    harms = change_harms(model, changes, images, scores)
    assert harms[0] > harms[1] > harms[2] and harms[2] < 1e-10
    with torch.no_grad():
        expected = model(images).double()
        outputs = apply_changes(model, changes[:1])(images).double()
    error = ((outputs - expected) ** 2).mean() / ((expected - expected.mean(0)) ** 2).mean()
    assert harms[0] == pytest.approx(float(error))
    # What is known is not computed again.
    again = change_harms(network(), changes, images, ScoreFile(tmp_path / "harm.jsonl"))
    assert again == harms


def test_harm_needs_images_that_differ() -> None:
    with pytest.raises(UserError, match="There are 1 images"):
        change_harms(network(), [], torch.randn(1, 3, 8, 8), ScoreFile())
    with pytest.raises(UserError, match="expected outputs that depend on the image"):
        change_harms(network(), [], torch.zeros(4, 3, 8, 8), ScoreFile())


def options() -> list[LayerOptions]:
    found = find_candidates(network(), (3, 8, 8), ["split"])
    assert [layer.layer for layer in found.layers] == ["0", "2", "4"]
    changes = (LayerChange("2", "split", (8,)), LayerChange("2", "split", (24,)))
    return [
        LayerOptions(found.layers[1], (None, *changes), (3.0, 1.0, 2.0), (0.0, 0.5, 0.1)),
        LayerOptions(found.layers[2], (None, LayerChange("4", "split", (8,))), (3.0, 1.0), (0.0, 0.3)),
    ]


def test_the_least_harm_within_the_limit_is_chosen() -> None:
    def chosen(limit: float) -> tuple[str, ...]:
        plan = make_plan(options(), cost="latency_ms", total=10.0, limit=limit)
        assert plan.predicted <= limit
        return tuple(f"{change.layer} {change.key}" for change in plan.changes)

    assert chosen(10.0) == ()
    assert chosen(9.0) == ("2 split 24",)
    assert chosen(8.0) == ("4 split 8",)
    assert chosen(7.0) == ("2 split 24", "4 split 8")
    assert chosen(6.0) == ("2 split 8", "4 split 8")


def test_a_plan_tells_every_layer() -> None:
    plan = make_plan(options(), cost="latency_ms", total=10.0, limit=8.5)
    assert plan.lines == [
        "layer  becomes    ms before  after  harm",
        "2      unchanged          3      3",
        "4      split 8            3      1   0.3",
    ]
    values = plan.to_dict()
    assert values["predicted"] == 8.0 and values["harm"] == 0.3
    assert [layer["chosen"]["form"] for layer in values["layers"]] == [None, "split"]


def test_an_unreachable_limit_names_the_smallest_cost() -> None:
    with pytest.raises(UserError, match="limit of 5 ms cannot be reached.* takes 6 ms, unchanged 10 ms"):
        make_plan(options(), cost="latency_ms", total=10.0, limit=5.0)


def test_forms_that_cost_no_less_are_left_out() -> None:
    (layer,) = find_candidates(nn.Sequential(nn.Conv2d(16, 16, 3)).eval(), (16, 8, 8), ["split"]).layers
    costs = (2.0, *(2.0 if index else 1.5 for index in range(len(layer.changes))))
    assert useful_changes(layer, costs) == (layer.changes[0],)
    options = layer_options(layer, costs, {layer.changes[0]: 0.5})
    assert options.changes == (None, layer.changes[0])
    assert (options.costs, options.harms) == ((2.0, 1.5), (0.0, 0.5))


def test_layers_of_one_shape_share_their_programs() -> None:
    model = network()
    layers: tuple[Candidate, ...] = find_candidates(model, (3, 8, 8), ["split"]).layers
    programs = form_programs(model, layers)
    of_shapes = {key for key in programs if not key.startswith("slices")}
    assert len(of_shapes) == sum(1 + len(layer.changes) for layer in layers[:2])
    with torch.no_grad():
        for program in programs.values():
            assert program.module(torch.randn(1, *program.input_shape)).shape == (1, 16, 8, 8)
    # Half of the two slices at either end is taken off; an image has none before it.
    latencies = {key: 1.0 if key.startswith("slices") else 5.0 for key in programs}
    assert set(form_costs(model, layers[0], latencies).latencies_ms) == {4.5}
    assert set(form_costs(model, layers[1], latencies).latencies_ms) == {4.0}


def test_steps_become_a_figure(tmp_path: Path) -> None:
    points = [StepPoint("uncompressed", 2.0, 92.0), StepPoint("split", 1.0, 91.0)]
    figure = steps_figure(points, [StepPoint("other", 2.0, 92.2)], title="t", cost="ms", value="top-1")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in texts if text] == ["uncompressed", "split", "other"]
    save_png(figure, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
