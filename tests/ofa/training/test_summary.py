"""What is said of a finished training: scores with their standard error, and what these cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_run import SPACE, STRATEGIES

from ofa.common.errors import UserError
from ofa.common.metric import BALANCED_ACCURACY, TOP1, Metric
from ofa.data.memory import MemoryData
from ofa.data.settings import DataSettings
from ofa.runs.finetune import FinetuneReport
from ofa.supernet.supernet import build_supernet
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.summary import RunSummary
from ofa.training.trainer import Trainer

METRICS = (TOP1, BALANCED_ACCURACY)
SCORES = {"smallest": 0.76, "middle": 0.80, "largest": 0.812, "random": 0.5}


def summary(scores: dict[str, float], num_images: int, **more: dict[str, dict[str, float]]) -> RunSummary:
    return RunSummary(
        *("a", "tiny", "digits", 24, 30, 1, "cpu", {"a": 2.0}, 0.25, "top1"),
        scores=scores,
        peak_memory_mb=1.0,
        num_images=num_images,
        **more,  # type: ignore[arg-type]
    )


def test_scores_have_their_standard_error_which_is_named_once() -> None:
    assert summary(SCORES, 600).lines(METRICS) == [
        "validation top-1, smallest  76.0 ± 1.7 % (standard error of 600 images)",
        "validation top-1, middle    80.0 ± 1.6 %",
        "validation top-1, largest   81.2 ± 1.6 %",
        "validation top-1, random    50.0 ± 2.0 %",
    ]


def test_networks_within_the_standard_error_are_called_so() -> None:
    # The error of 50 images is 5.7 points; the random network does not count.
    *_, last = summary(SCORES, 50).lines(METRICS)
    assert last.startswith(
        "smallest, middle, largest differ by 5.2 points, less than the standard error of 50"
    )
    assert last.endswith("these images do not rank them")


def test_other_metrics_are_shown_where_they_are_worth_a_word() -> None:
    more = {name: {"balanced_accuracy": 0.6} for name in SCORES}
    lines = summary(SCORES, 6000, more_scores=more).lines(METRICS)
    assert all("%; balanced accuracy 60.00 %" in line for line in lines) and len(lines) == 4
    error = Metric("mae", "error", higher_is_better=False, is_fraction=False)
    lines = summary(SCORES, 60).lines([error])
    assert lines[0] == "validation error, smallest          0.76" and len(lines) == 4


@pytest.mark.parametrize(("rare", "is_shown"), [(30, True), (100, False)])
def test_balanced_accuracy_is_worth_it_where_classes_are_unequal(
    tmp_path: Path, rare: int, is_shown: bool
) -> None:
    labels = torch.cat([torch.zeros(100), torch.ones(100), torch.full((rare,), 2.0)]).long()
    noise = torch.randint(0, 90, (len(labels), 1, 12, 12), generator=torch.Generator().manual_seed(0))
    images = (noise + 80 * labels[:, None, None, None]).byte()
    data = MemoryData(
        DataSettings("made", validation_size=120), ("a", "b", "c"), (images, labels), (images, labels)
    )
    settings = TrainSettings(30, calibration_images=60, validation_images=100)
    recipe = Recipe(STRATEGIES["sandwich"], settings)
    trainer = Trainer(build_supernet(SPACE), data, recipe, folder=tmp_path, device=torch.device("cpu"))
    found = trainer.summary("made")
    assert found.num_images == 100
    shown = [list(values) for values in found.more_scores.values()]
    assert shown == ([["balanced_accuracy"]] * 4 if is_shown else [])
    found.write(tmp_path, tmp_path / "runs.csv")
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["more_scores"] == found.more_scores and written["num_images"] == 100


def test_fine_tuning_says_whether_it_tells_a_difference() -> None:
    assert FinetuneReport(Path("x"), TOP1, 0.7, 0.8, 400).lines == [
        "validation top-1: 70.0 ± 2.3 % before, 80.0 ± 2.0 % after (standard error of 400 images)"
    ]
    first, second = FinetuneReport(Path("x"), TOP1, 0.79, 0.8, 400).lines
    assert first.startswith("validation top-1: 79.0 ± 2.0 % before")
    assert second.startswith(
        "before and after differ by 1.0 points, less than the standard error of 400 images"
    )


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a,b\n1,2\n", b'run_name\n"' + b"x" * 200_000 + b'"\n'])
def test_a_damaged_table_of_runs_is_left_alone(content: bytes, tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_bytes(content)
    with pytest.raises(UserError, match=r"runs\.csv (is not a table of runs|cannot be read)"):
        summary(SCORES, 600).write(tmp_path / "a", table)
    assert table.read_bytes() == content
