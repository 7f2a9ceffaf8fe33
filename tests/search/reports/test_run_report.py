"""The report of a run: groups, rows, means of the random networks, figure."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from ofa.architecture.cost import compile_cost, macs
from ofa.common.metric import BALANCED_ACCURACY, TOP1
from ofa.space.staged import StagedSpace
from search.algorithms.registry import plan_search
from search.limits.limit import Limit
from search.reports.run_report import (
    ReportedNetwork,
    add_names,
    joint_front,
    plot_tradeoff,
    report_table,
)


def measured(space: StagedSpace) -> list[ReportedNetwork]:
    cost = compile_cost(space, macs)
    plan = plan_search({"algorithm": "evolution", "population_size": 20, "generations": 3})
    limit = Limit("latency_ms", cost, float(cost(space.genomes([space.middle]))[0]), "ms")
    result = plan.run(space, lambda genomes: np.log(cost(genomes)) / 100, [limit], 0)
    return [
        ReportedNetwork("largest", None, 0.99, 0.98, 9.0, 9.5, 5_000_000, 500_000),
        ReportedNetwork("phone-3ms", result, 0.97, 0.965, 2.9, 3.0, 2_000_000, 300_000),
        ReportedNetwork("", None, 0.9, 0.8, 4.0, 5.0, 1_000_000, 100_000),
        ReportedNetwork("", None, 0.92, 0.9, 6.0, 7.0, 3_000_000, 300_000),
    ]


def test_the_table_sorts_by_latency_and_averages_the_random_networks(micro_space: StagedSpace) -> None:
    networks = measured(micro_space)
    assert [network.group for network in networks] == ["chosen", "searched", "random", "random"]
    console = Console(width=80, record=True)
    console.print(report_table(networks, "title", "test", TOP1))
    lines = console.export_text().splitlines()
    rows = [line.split() for line in lines if "phone" in line or "largest" in line or "random" in line]
    assert [row[0] for row in rows] == ["phone-3ms", "largest", "mean"]
    assert rows[2][4:] == ["-", "91.00", "85.00", "5.000", "6.000", "2.00", "200"]
    assert rows[1][1:] == ["-", "99.00", "98.00", "9.000", "9.500", "5.00", "500"]
    assert not any("…" in line for line in lines)
    # 9.5 / 9, 3 / 2.9, 5 / 4, 7 / 6
    assert lines[-1].strip() == "measured latency is 1.11 x the predicted one, median of 4 networks"


def test_a_network_of_no_space_has_dashes_for_predictions(micro_space: StagedSpace) -> None:
    other = ReportedNetwork("mine", None, None, 0.95, None, 2.0, 4_000_000, 400_000)
    console = Console(width=80, record=True)
    console.print(report_table([*measured(micro_space), other], "title", "test", TOP1))
    console.print(report_table([other], "title", "test", TOP1))
    lines = console.export_text().splitlines()
    rows = [line.split() for line in lines if "mine" in line or "phone" in line]
    assert [row[0] for row in rows] == ["mine", "phone-3ms", "mine"]
    assert rows[0][1:] == rows[2][1:] == ["-", "-", "95.00", "-", "2.000", "4.00", "400"]
    assert "1.11 x the predicted one, median of 4 networks" in "\n".join(lines)
    assert lines[-1].strip() == "no latency was predicted"


def test_the_figure_is_drawn_with_and_without_searches(micro_space: StagedSpace, tmp_path: Path) -> None:
    other = ReportedNetwork("mine", None, None, 0.95, None, 2.0, 4_000_000, 400_000)
    sets = {"all": [*measured(micro_space), other], "one": measured(micro_space)[:1]}
    for name, networks in sets.items():
        cost = compile_cost(micro_space, macs)
        path = tmp_path / f"{name}.png"
        plot_tradeoff(networks, path, TOP1, space=micro_space, latency=cost, num_images=90)
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_the_front_is_in_the_latencies_of_the_reported_device(micro_space: StagedSpace) -> None:
    searches = [network.search for network in measured(micro_space) if network.search]
    cost = compile_cost(micro_space, macs)
    front = joint_front(searches, TOP1, micro_space, lambda genomes: 3 * cost(genomes) + 1)
    own = {3 * candidate.values["latency_ms"] + 1 for search in searches for candidate in search.front}
    assert len(front) > 1
    assert {float(value) for value in front[:, 0]} <= own
    # On a device where larger networks are faster, the largest of the front dominates all others.
    (only,) = joint_front(searches, TOP1, micro_space, lambda genomes: -cost(genomes))
    assert only[1] == max(100 * candidate.accuracy for search in searches for candidate in search.front)
    assert joint_front([], TOP1, micro_space, cost).shape == (0, 2)


def test_unsure_accuracies_have_their_error_and_close_networks_are_named(micro_space: StagedSpace) -> None:
    networks = measured(micro_space)
    networks.append(
        ReportedNetwork("near", None, 0.9, 0.972, 4.0, 5.0, 1_000_000, 100_000, {"balanced_accuracy": 0.75})
    )
    console = Console(width=90, record=True)
    console.print(
        report_table(networks, "title", "test", TOP1, num_images=900, other_metrics=[BALANCED_ACCURACY])
    )
    text = console.export_text()
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    # By hand: sqrt(0.965 * 0.035 / 900) is 0.61 points.
    assert rows["phone-3ms"][3:5] == ["96.50", "0.6"]
    assert rows["near"][3:5] == ["97.20", "0.6"]
    assert rows["mean"][5:8] == ["91.00", "85.00", "-"]
    assert "classes are unequal; balanced accuracy: near 75.00 %" in text
    plain = report_table(
        networks, "t", "test", TOP1, other_metrics=[BALANCED_ACCURACY], has_unequal_classes=False
    )
    assert "classes" not in str(plain.caption) and "balanced accuracy: near 75.00 %" in str(plain.caption)
    assert "± is the standard error of 900 test images" in text and "…" not in text
    # 96.5 and 97.2 differ by 0.7 points, 97.2 and 98.0 by 0.8.
    assert "do not rank them" not in text
    console.print(report_table(networks, "title", "test", TOP1, num_images=500))
    words = " ".join(console.export_text().split())
    assert "closer than that, so these images do not rank them: phone-3ms and near" in words
    assert "near and largest" not in words


@pytest.mark.parametrize("heights", [(98.33, 98.61, 98.62), (98.6, 98.6, 98.6), (98.6, 98.45, 98.4)])
def test_names_of_neighbours_do_not_lie_on_each_other(heights: tuple[float, ...]) -> None:
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    names = ("my_cpu_onnx-0.121ms", "my_cpu_onnx-0.162ms", "my_cpu_onnx-0.170ms")
    positions = dict(zip(names, zip((0.124, 0.151, 0.160), heights, strict=True), strict=True))
    axes.scatter([0.09, 0.3], [96.0, 99.5])
    figure.draw_without_rendering()
    add_names(axes, positions)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == list(names)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))
