"""Folders of images and masks: layouts, splits, classes, settings, and what is remembered."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mask_folders import (
    aligned_share,
    all_of,
    draw_mask,
    settings,
    write_mask,
    write_pair,
    write_pairs,
)

from ofa.common.errors import UserError
from ofa.data import mask_headers
from ofa.data.mask_folder import MaskFolderData
from ofa.data.masks import IGNORED
from ofa.data.settings import SEGMENTATION
from ofa.data.sources import describe_data, load_data
from ofa.evaluation.classes import class_weights
from ofa.evaluation.segmentation import SegmentationTask
from ofa.evaluation.tasks import task_of

CPU = torch.device("cpu")
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ofa"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "set", 20)


def sizes(data: MaskFolderData) -> list[int]:
    return [data.size(split) for split in SPLITS]


@pytest.mark.parametrize(
    ("counts", "changes", "expected", "words"),
    [
        ({"": 20}, {}, [10, 5, 5], "10 for training, 5 for validation (cut from all), 5 for the final test"),
        ({"": 20}, {"validation_size": 3, "test_size": 0.1}, [15, 3, 2], "(cut from all)"),
        ({"train": 10, "val": 4}, {}, [5, 5, 4], "4 for the final test (all of val/)"),
        ({"train": 10, "val": 4, "test": 3}, {}, [10, 4, 3], "4 for validation (all of val/)"),
        ({"Training": 10, "Testing": 3}, {"validation_size": 2}, [8, 2, 3], "all of Testing/"),
    ],
)
def test_every_layout_gives_three_splits(
    tmp_path: Path, counts: dict[str, int], changes: dict[str, Any], expected: list[int], words: str
) -> None:
    for seed, (folder, count) in enumerate(counts.items()):
        write_pairs(tmp_path / folder, count, seed)
    data = MaskFolderData(settings(tmp_path, **changes))
    assert sizes(data) == expected and words in "\n".join(data.notes)
    paths = [path for split in SPLITS for path in data._datasets[split]._paths]
    assert len({*paths}) == sum(counts.values())


def test_files_in_folders_are_paired_by_their_paths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("a", "b/c"):
        for number in range(4):
            write_pair(tmp_path, f"{number}.{folder[0]}", draw_mask(rng))
            for kind in ("images", "masks"):
                path = tmp_path / kind / f"{number}.{folder[0]}.png"
                (tmp_path / kind / folder).mkdir(parents=True, exist_ok=True)
                path.rename(tmp_path / kind / folder / "same.name.png".replace("same", str(number)))
    data = MaskFolderData(settings(tmp_path))
    assert sum(sizes(data)) == 8
    assert aligned_share(*all_of(data.batches("train", 2, CPU))) > 0.5


def test_a_removed_pair_moves_hardly_any_other(root: Path) -> None:
    before = {split: {*MaskFolderData(settings(root))._datasets[split]._paths} for split in SPLITS}
    for kind in ("images", "masks"):
        (root / kind / "07.png").unlink()
    after = {split: {*MaskFolderData(settings(root))._datasets[split]._paths} for split in SPLITS}
    assert all(len(before[split] ^ after[split]) <= 3 for split in SPLITS)


def test_classes_have_their_names_and_pixels(root: Path) -> None:
    data = load_data(settings(root))
    assert data.info.task == SEGMENTATION and isinstance(task_of(data), SegmentationTask)
    assert data.info.class_names == ("0", "1", "2", "3") and describe_data(settings(root)) == (3, 4)
    (root / "classes.txt").write_text("\ufeffground\r\n red wall\ngreen\nblue\nnever\n\n")
    data = load_data(settings(root))
    assert data.info.class_names == ("ground", "red wall", "green", "blue", "never")
    assert describe_data(settings(root)) == (3, 5)
    counts = torch.zeros(5, dtype=torch.int64)
    rng = np.random.default_rng(0)
    for number in range(20):
        mask = torch.from_numpy(draw_mask(rng))
        if str(root / "images" / f"{number:02d}.png") in data._datasets["train"]._paths:  # type: ignore[attr-defined]
            counts += mask.flatten().bincount(minlength=5)
    assert data.class_counts("train") == tuple(counts.tolist()) and counts[4] == 0
    assert counts.sum() == data.size("train") * 30 * 24


def test_rare_classes_weigh_more_in_the_loss(root: Path) -> None:
    data = MaskFolderData(settings(root, balance="loss"))
    weights, counts = class_weights(data), data.class_counts("train")
    assert weights is not None and weights == tuple(sum(counts) / 4 / count for count in counts)
    assert class_weights(MaskFolderData(settings(root))) is None


@pytest.mark.parametrize(("ignored_value", "labels"), [(255, {0, 1, 2, 3}), (0, {1, 2, 3, IGNORED})])
def test_an_ignored_value_counts_nowhere(root: Path, ignored_value: int, labels: set[int]) -> None:
    data = MaskFolderData(settings(root, ignored_value=ignored_value))
    _, masks = all_of(data.batches("train", 4, CPU))
    assert {*masks.flatten().tolist()} == labels
    assert data.num_classes == 4 and bool(data.class_counts("train")[0]) == (ignored_value == 255)


def test_255_is_ignored_beside_another_value(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2, 2], [9, 9, 255, 1]], np.uint8)
    for number in range(4):
        write_pair(tmp_path, str(number), mask)
    data = MaskFolderData(settings(tmp_path, ignored_value=9, crop_scale=1.0))
    assert data.info.class_names == ("0", "1", "2")
    assert data.class_counts("test") == (1, 2, 2)
    assert "37.5 % of the pixels are ignored" in data.notes


def test_a_second_start_reads_no_mask(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = MaskFolderData(settings(root))
    opened: list[str] = []
    read = mask_headers.read_mask_header

    def spy(path: Path) -> Any:
        opened.append(path.name)
        return read(path)

    monkeypatch.setattr(mask_headers, "read_mask_header", spy)
    second = MaskFolderData(settings(root))
    assert opened == [] and second.notes == first.notes
    assert [len(list((cache / kind).iterdir())) for kind in ("pictures", "masks")] == [1, 1]
    # Names of classes and what is ignored are not remembered, but applied.
    (root / "classes.txt").write_text("a\nb\nc\nd\ne")
    assert MaskFolderData(settings(root, ignored_value=0)).num_classes == 5 and opened == []
    write_mask(root / "masks" / "03.png", np.zeros((24, 30), np.uint8))
    assert MaskFolderData(settings(root)).class_counts("train") != first.class_counts("train")
    assert opened == ["03.png"]


def test_the_check_reports_its_progress(root: Path) -> None:
    reports: list[str] = []
    load_data(settings(root), progress=lambda done, total, text: reports.append(f"{done}/{total} {text}"))
    assert reports == [
        "0/20 checking photographs",
        "20/20 checking photographs",
        "0/20 reading masks",
        "20/20 reading masks",
    ]


def test_settings_that_would_part_image_and_mask_are_refused_at_once(root: Path) -> None:
    given = settings(root, balance="sampling", augment="trivial", random_erasing=0.5, stratified=True)
    with pytest.raises(UserError) as caught:
        MaskFolderData(dataclasses.replace(given, cache=str(root / "copies")))
    lines = str(caught.value).splitlines()
    for line, words in zip(
        lines,
        (
            "data.balance is sampling, .* expected none, or loss",
            "data.stratified is true, .* expected false",
            "data.augment is trivial, .* not their masks; expected standard",
            "data.random_erasing is 0.5, .* not of their masks; expected 0",
            "data.cache is for photographs without masks; expected null",
        ),
        strict=True,
    ):
        assert re.search(words, line)
    assert not (root / "copies").exists()
