"""Images that a function of the user's own makes, and targets of any shape in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ofa.common.errors import UserError
from ofa.data.settings import DataSettings
from ofa.data.sources import describe_data, load_data
from ofa.data.tensor_data import TensorData
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.graph.convert import make_elastic
from ofa.runs.config import data_record

CPU = torch.device("cpu")
MODULE = """
import torch
from ofa.common.errors import UserError
from ofa.data import TensorData

def make(settings, count=20, kind=torch.int64):
    images = torch.arange(count * 2 * 16, dtype=torch.uint8).view(count, 2, 4, 4)
    boxes = torch.arange(count * 15).view(count, 3, 5)
    return TensorData(settings, ("a", "b"), (images, boxes), (images[:4], boxes[:4]), task="tasks:Boxes")

def fails(settings): raise ValueError("no files")
def says(settings): raise UserError("the folder is empty")
def other(settings): return 3
size = 7
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "tried_data.py").write_text(MODULE)
    yield
    sys.modules.pop("tried_data", None)


def own(source: str = "tried_data:make", **kwargs: object) -> DataSettings:
    return DataSettings("own", source=source, kwargs=kwargs, validation_size=4)


def test_a_function_makes_images_with_targets_of_any_shape() -> None:
    data = load_data(own(count=24))
    assert [data.size(split) for split in ("train", "validation", "test")] == [20, 4, 4]
    assert data.info.task == "tasks:Boxes" and describe_data(own()) == (2, 2)
    assert data.class_counts("train") == () and data.balance == "none"
    seen = []
    for images, targets in data.train_batches(5, seed=0, epoch=0, device=CPU):
        assert images.shape == (5, 2, 4, 4) and targets.shape == (5, 3, 5) and targets.dtype == torch.int64
        seen += targets[:, 0, 0].tolist()
    for split in ("validation", "train"):
        rows = [targets[:, 0, 0].tolist() for _, targets in data.batches(split, 3, CPU)]
        assert len(rows) == -(-data.size(split) // 3)
        seen += [row for part in rows for row in part] if split == "validation" else []
    assert sorted(seen) == [15 * row for row in range(24)]
    with pytest.raises(UserError, match="split"):
        data.class_counts("all")


def test_targets_of_fractions_stay_fractions_everywhere() -> None:
    images = torch.arange(20 * 64, dtype=torch.int64).to(torch.uint8).view(20, 1, 8, 8)
    targets = torch.linspace(0, 1, 40).view(20, 2)
    data = TensorData(DataSettings("x", validation_size=8), (), (images, targets), (images, targets))
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3), torch.nn.Conv2d(16, 16, 3)).eval()
    evaluator = SubnetEvaluator(make_elastic(network, torch.rand(2, 1, 8, 8)), data)
    batches = [
        *data.train_batches(4, seed=0, epoch=0, device=CPU),
        *data.batches("test", 4, CPU),
        *evaluator.batches(8),
    ]
    assert {(batch[1].dtype, batch[1].shape[1]) for batch in batches} == {(torch.float32, 2)}


def test_the_function_and_its_arguments_decide_which_images_these_are() -> None:
    assert data_record(own(count=3))["kwargs"] == {"count": 3}
    assert data_record(own())["source"] == "tried_data:make" and "kwargs" not in data_record(own())
    assert not {"task", "source", "kwargs"} & set(data_record(DataSettings("digits")))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (DataSettings("own"), r"data.source is missing; data=own takes data.source=package.module:make_data"),
        (own("no_such:make"), "Unknown module 'no_such'"),
        (own("tried_data:mak"), "Unknown name in module tried_data 'mak'; similar: make"),
        (own("tried_data:size"), "is of type int; expected a function that returns an ImageData"),
        (own("tried_data:fails"), r"tried_data:fails\(settings\) failed: ValueError: no files \(tried_data"),
        (own("tried_data:make", size=3), r"make\(settings, size=3\) failed: TypeError"),
        (own("tried_data:says"), "^the folder is empty$"),
        (own("tried_data:other"), "returned a value of type int; expected an ofa.data.ImageData"),
    ],
)
def test_what_makes_no_images_is_an_error(settings: DataSettings, text: str) -> None:
    with pytest.raises(UserError, match=text):
        load_data(settings)


def test_settings_of_other_images_are_refused() -> None:
    with pytest.raises(UserError, match="data.source and data.kwargs are for data=own; these images are dig"):
        DataSettings("digits", source="tried_data:make")
    with pytest.raises(UserError, match="data.source is 'make'; expected package.module:make_data"):
        DataSettings("own", source="make")


def test_tensors_that_do_not_fit_are_named_all_at_once() -> None:
    settings, images = DataSettings("x", validation_size=2), torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(UserError) as caught:
        TensorData(settings, (), (images.float(), torch.zeros(5, 2)), (images, torch.zeros(())))
    assert str(caught.value).splitlines() == [
        "The train images are torch.float32 (6, 1, 4, 4); expected uint8 (images, channels, height, width).",
        "The train targets are (5, 2) for 6 images; expected a row for each.",
        "The test targets are () for 6 images; expected a row for each.",
    ]
    with pytest.raises(UserError, match="train has 1 channels, test has 3"):
        TensorData(settings, (), (images, torch.zeros(6)), (images.expand(-1, 3, -1, -1), torch.zeros(6)))
    for changed in (
        {"balance": "loss"},
        {"stratified": True},
        {"crop_padding": 1},
        {"horizontal_flip": True},
    ):
        with pytest.raises(UserError, match=f"{next(iter(changed))}: only for images of one class each"):
            TensorData(DataSettings("x", **changed), (), (images, torch.zeros(6)), (images, torch.zeros(6)))
