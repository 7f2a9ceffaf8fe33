"""The confusion of classes as lines, files and a figure of any number of classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ofa.common.errors import UserError
from ofa.evaluation.confusion import Confusion, confusion_of
from search.reports.confusion import (
    MAX_NAMED,
    MAX_NUMBERED,
    confusion_lines,
    confusion_summary,
    json_path,
    plot_confusion,
    save_confusion,
)


def one_mistake_per_class(num_classes: int) -> Confusion:
    """Each class but the last is once taken for the next one, and twice right."""
    counts = 2 * np.eye(num_classes, dtype=np.int64) + np.eye(num_classes, k=1, dtype=np.int64)
    return Confusion(tuple(f"class {number}" for number in range(num_classes)), counts)


def test_lines_name_the_worst_classes_and_the_most_frequent_mistakes() -> None:
    confusion = confusion_of(("coat", "boot"), [0, 0, 0, 1, 1], [1, 1, 0, 1, 0])
    assert confusion_lines(confusion) == [
        "worst classes: coat: 1 of 3 right; boot: 1 of 2 right",
        "most frequent mistakes: coat taken for boot: 2 of 3; boot taken for coat: 1 of 2",
    ]
    assert confusion_summary(confusion) == "worst class coat: 1 of 3 right; coat taken for boot: 2 of 3"


def test_top5_comes_first_with_its_standard_error() -> None:
    counts = np.diag(np.full(12, 10))
    confusion = Confusion(tuple(map(str, range(12))), counts, num_top5=120)
    first, second = confusion_lines(confusion)
    assert first.startswith("top-5: 100.0 ± 0.8 %") and second == "every image is classified right"
    assert confusion_summary(confusion) == "top-5 100.00 %; no mistake"


@pytest.mark.parametrize(
    ("num_classes", "num_cells", "num_names"),
    [(2, 3, 2), (MAX_NUMBERED, 2 * MAX_NUMBERED - 1, MAX_NUMBERED), (MAX_NUMBERED + 1, 0, MAX_NUMBERED + 1)],
)
def test_cells_have_numbers_where_there_is_room(num_classes: int, num_cells: int, num_names: int) -> None:
    (axes, _) = plot_confusion(one_mistake_per_class(num_classes), "made").axes
    assert len(axes.texts) == num_cells
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"class {i}" for i in range(num_names)]


def test_many_classes_have_no_names_and_a_figure_of_bounded_size(tmp_path: Path) -> None:
    confusion = one_mistake_per_class(MAX_NAMED + 1)
    files = save_confusion(confusion, tmp_path / "deep" / "made-0.3ms.json", "made")
    assert files == f"{tmp_path / 'deep' / 'made-0.3ms.json'}, made-0.3ms.png"
    with Image.open(tmp_path / "deep" / "made-0.3ms.png") as image:
        assert image.format == "PNG" and max(image.size) < 2300
    values = json.loads((tmp_path / "deep" / "made-0.3ms.json").read_text())
    assert values["title"] == "made" and np.array_equal(values["counts"], confusion.counts)
    (axes, _) = plot_confusion(confusion, "made").axes
    assert "class 0" not in [label.get_text() for label in axes.get_yticklabels()]


def test_the_output_has_to_be_a_json_file() -> None:
    assert json_path("~/a.json") == Path.home() / "a.json"
    with pytest.raises(UserError, match=r"output is 'a\.png'; expected a file that ends in \.json"):
        json_path("a.png")
