"""What a search gained: the rows beside the best network, their numbers, and the report with costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from matplotlib.text import Text

from ofa.architecture.cost import compile_cost, macs, network_cost
from ofa.architecture.lowering import lower
from ofa.common.metric import TOP1, Metric
from ofa.space.staged import StagedSpace
from search.algorithms.registry import plan_search
from search.limits.limit import Limit
from search.reports.comparison import ComparedNetworks, compare_networks, gain_lines
from search.reports.figure import result_figure
from search.reports.predictions import Predictions
from search.reports.text import report
from search.result.result import LimitRecord, SearchResult


def searched(
    space: StagedSpace, share: float, algorithm: str = "evolution"
) -> tuple[SearchResult, Limit, Predictions]:
    """Return a search for large networks whose MACs are at most this share of the largest's."""
    cost = compile_cost(space, macs)
    maximum = share * float(cost(space.genomes([space.largest]))[0])
    limit = Limit("macs_m", lambda genomes: cost(genomes) / 1e6, maximum / 1e6, "M MACs")
    predictions = Predictions(
        space, lambda genomes: np.log(cost(genomes)) / 40, lambda genomes: np.full(len(genomes), 0.021), 0.6
    )
    plan = plan_search({"algorithm": algorithm, "population_size": 20, "generations": 4})
    return plan.run(space, predictions.accuracy, [limit], 0), limit, predictions


def test_the_best_stands_beside_the_ends_of_the_space_and_random_networks(micro_space: StagedSpace) -> None:
    result, limit, predictions = searched(micro_space, 0.5)
    rows = compare_networks(result, [limit], predictions)
    assert [row.name for row in rows] == ["smallest", "largest", "mean of 100 random", "best"]
    assert [row.is_inside for row in rows] == [True, False, True, True]
    for row, config in ((rows[0], micro_space.smallest), (rows[1], micro_space.largest)):
        assert row.values[0] == pytest.approx(network_cost(lower(micro_space, config)).macs / 1e6)
        assert row.deviation == 0.021
    random_values = limit.estimator(rows[2].genomes)
    assert len(rows[2].genomes) == 100 == len(np.unique(rows[2].genomes, axis=0))
    assert random_values.max() <= limit.maximum
    assert rows[2].values[0] == pytest.approx(random_values.mean())
    accuracies = predictions.accuracy(rows[2].genomes)
    assert (rows[2].accuracy, rows[2].deviation) == pytest.approx((accuracies.mean(), accuracies.std(ddof=1)))
    assert rows[3].accuracy == result.best.accuracy and rows[3].values == (result.best.values["macs_m"],)
    assert rows[3].accuracy > rows[2].accuracy


def test_a_limit_that_only_the_smallest_keeps_has_no_random_networks(micro_space: StagedSpace) -> None:
    cost = compile_cost(micro_space, macs)
    low = float(cost(micro_space.genomes([micro_space.smallest]))[0])
    result, limit, predictions = searched(micro_space, 0.5)
    tight = dataclasses.replace(limit, maximum=1.0001 * low / 1e6)
    rows = compare_networks(result, [tight], predictions)
    assert [row.name for row in rows] == ["smallest", "largest", "best"]
    (line,) = gain_lines(rows, TOP1)
    assert line == "no random network of 20000 keeps the limits: they leave little to choose from"


@pytest.mark.parametrize(
    ("best", "deviation", "text"),
    [
        (0.62, 0.021, "5.0 points, more than the ± 2.1 of a prediction"),
        (0.58, 0.021, "1.0 points, less than the ± 2.1 of a prediction"),
        (0.58, None, "gain over random networks inside: 1.0 points"),
    ],
)
def test_the_gain_is_compared_with_the_error(best: float, deviation: float | None, text: str) -> None:
    several = ComparedNetworks("mean of 3 random", np.zeros((3, 2), np.int8), 0.57, 0.01, (), True)
    one = ComparedNetworks("best", np.zeros((1, 2), np.int8), best, deviation, (), True)
    (line,) = gain_lines([several, one], TOP1)
    assert line.endswith(text)
    # Of an error the lower value is the gain.
    (line,) = gain_lines([several, dataclasses.replace(one, accuracy=0.5)], Metric("mm", "mm", False, False))
    assert "inside: 0.070 mm" in line


def test_the_report_has_costs_with_their_units(micro_space: StagedSpace) -> None:
    result, limit, predictions = searched(micro_space, 0.5)
    lines = report(result, [limit], predictions).splitlines()
    assert max(map(len, lines[: lines.index(f"macs_m: {limit_text(result, limit)}")])) <= 80
    best = network_cost(lower(micro_space, result.best.config))
    (row,) = (line.split() for line in lines if line.startswith("best  "))
    assert row[1:3] == [f"{100 * result.best.accuracy:.1f}", "2.1"]
    assert float(row[3]) == pytest.approx(best.macs / 1e6, rel=0.01)
    assert float(row[4]) == pytest.approx(best.parameters / 1e3, rel=0.01)
    # MACs are limited, so that they have one column, not two.
    heading, units = lines[1:3]
    assert heading.split() == ["MACs", "predicted", "param.", "input"]
    assert units.split() == ["M", "top-1", "%", "±", "k", "px", "blocks", "id"]
    without = report(result, [limit])
    assert "what the search gained" not in without and "param." not in without


def limit_text(result: SearchResult, limit: Limit) -> str:
    value = result.best.values[limit.name]
    share = round(100 * value / limit.maximum)
    return f"{limit.show(value, 4)}, {share} % of the limit {limit.show(limit.maximum)}"


def test_headings_and_axes_name_quantity_place_and_unit() -> None:
    record = LimitRecord("latency_ms on phone", 3.0, "ms")
    assert (record.heading, record.label) == ("latency\non phone\nms", "latency on phone [ms]")
    record = LimitRecord("macs_m", 3.0, "M MACs")
    assert (record.heading, record.label) == ("MACs\nM", "MACs [M]")
    record = LimitRecord("cycles", 3.0, "")
    assert (record.heading, record.label) == ("cycles", "cycles")


def figure_texts(result: SearchResult, predictions: Predictions) -> list[str]:
    """Return all texts of the figure of a result."""
    figure = result_figure(result, title="mine on phone", predictions=predictions)
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def test_the_figure_says_for_what_it_is_in_percent_with_band_and_limit(
    micro_space: StagedSpace,
) -> None:
    result, limit, predictions = searched(micro_space, 0.5)
    texts = figure_texts(result, predictions)
    assert any(text.startswith("mine on phone\nmicro: evolution") for text in texts)
    for text in ("predicted top-1 [%]", "MACs [M]", "± of a prediction"):
        assert text in texts
    assert any(text.strip() == f"limit {limit.maximum:.4g} M" for text in texts)
    far = dataclasses.replace(result, limits=(dataclasses.replace(result.limits[0], maximum=5e6),))
    texts = figure_texts(far, Predictions(micro_space, predictions.accuracy))
    assert "limit 5000000 M (far to the right)" in texts and "± of a prediction" not in texts
