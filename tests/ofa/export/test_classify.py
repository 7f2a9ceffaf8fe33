"""Pictures are classified by any file of a bundle; the results tell what is right, wrong and unreadable."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from any_modules import two_branches, two_branches_card
from PIL import Image
from rich.console import Console

from ofa.common.errors import UserError
from ofa.export.bundle import Bundle, load_bundle
from ofa.export.classified import (
    MAX_PICTURES,
    MAX_ROWS,
    WRONG_COLOUR,
    answers_table,
    contact_sheet,
    result_lines,
    save_results,
    sheet_path,
    shown_path,
)
from ofa.export.classify import Answer, Classification, classify_pictures
from ofa.export.engines import engine_title, runnable_file
from ofa.export.write import export_bundle
from ofa.runtimes.base import missing_packages

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "made"
    export_bundle(two_branches(), two_branches_card(), path, ["pt2"])
    return load_bundle(path, two_branches())


def write_picture(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (21, 33, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def made_result(labels: list[str | None], answers: list[str], folder: Path) -> Classification:
    """Return a classification of pictures in `folder`, whose classes are given."""
    every = tuple(
        Answer(write_picture(folder / f"{number}.png", number), ((name, 0.75), ("cat", 0.25)), 0.5, label)
        for number, (label, name) in enumerate(zip(labels, answers, strict=True))
    )
    return Classification("made", "onnx", "ONNX Runtime", 2, NAMES, every, {}, 3.0)


@pytest.mark.parametrize("file", ["weights", "pt2"])
def test_probabilities_are_those_of_the_network_on_the_picture(
    bundle: Bundle, tmp_path: Path, file: str
) -> None:
    paths = [write_picture(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    steps: list[tuple[int, int, str]] = []
    result = classify_pictures(bundle, file, paths, progress=lambda *step: steps.append(step))
    assert steps == [(0, 3, ""), (1, 3, ""), (2, 3, ""), (3, 3, "")]
    for path, answer in zip(paths, result.answers, strict=True):
        with torch.no_grad():
            shares = two_branches()(bundle.card.read_image(path)).softmax(1)[0]
        expected = sorted(zip(NAMES, shares.tolist(), strict=True), key=lambda pair: -pair[1])[:3]
        assert [name for name, _ in answer.classes] == [name for name, _ in expected]
        assert [share for _, share in answer.classes] == pytest.approx([share for _, share in expected])
        assert answer.path == path and answer.run_ms > 0 and not answer.is_wrong
    assert result.confusion is None and result.engine == "PyTorch" and result.reading_ms > 0


def test_pictures_that_cannot_be_read_are_skipped_unless_they_are_all(bundle: Bundle, tmp_path: Path) -> None:
    good, empty = write_picture(tmp_path / "good.png", 0), tmp_path / "empty.png"
    empty.touch()
    result = classify_pictures(bundle, "weights", [empty, good])
    assert [answer.path for answer in result.answers] == [good]
    assert result.unreadable == {empty: "not an image, or of an unknown format"}
    assert result_lines(result, tmp_path)[:2] == [
        "skipped, because they cannot be read as an image: 1 of 2",
        "  empty.png (not an image, or of an unknown format)",
    ]
    with pytest.raises(UserError, match=r"None of 2 pictures can be read.*\n  .*empty\.png \(not an image"):
        classify_pictures(bundle, "weights", [empty, empty.with_name("missing.jpg")])


def test_labels_give_an_accuracy_and_name_what_is_wrong(tmp_path: Path) -> None:
    result = made_result(["ant", "ant", "bee", None], ["ant", "bee", "bee", "dog"], tmp_path)
    assert result.confusion is not None and result.confusion.total == 3
    assert [answer.is_wrong for answer in result.answers] == [False, True, False, False]
    lines = result_lines(result, tmp_path)
    assert lines[0] == "top-1: 66.7 ± 28.3 % (standard error of 3 pictures in folders of a class)"
    assert lines[1:] == [
        "0.50 ms an image: onnx in ONNX Runtime, one at a time, 2 threads",
        "3.0 ms to read and scale a picture",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal_and_keeps_every_name(tmp_path: Path, width: int) -> None:
    result = made_result(["ant", "bee"], ["bee", "bee"], tmp_path / "a folder [bold]" / "of a long name")
    console = Console(width=width, record=True)
    console.print(answers_table(result, tmp_path))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert "ant (wrong)" in lines[1] and "75.0" in lines[1] and "cat: 25.0" in lines[1]
    assert "[bold]" in "".join(lines)


def test_long_lists_are_cut_and_say_so(tmp_path: Path) -> None:
    result = made_result([None], ["ant"], tmp_path)
    many = dataclasses.replace(result, answers=result.answers * (MAX_ROWS + 3))
    assert answers_table(many, tmp_path).row_count == MAX_ROWS
    assert result_lines(many, tmp_path)[0] == "and 3 more pictures"


def test_all_results_are_in_the_files(tmp_path: Path) -> None:
    result = made_result(["ant", "bee"], ["bee", "bee"], tmp_path / "photos")
    broken = tmp_path / "photos" / "odd\nname.png"
    result = dataclasses.replace(result, unreadable={broken: "truncated"})
    text = save_results(result, tmp_path / "out" / "sheet.png", tmp_path / "photos")
    assert text.endswith("sheet.png: contact sheet; all answers beside it in sheet.csv and sheet.json")
    with (tmp_path / "out" / "sheet.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["0.png", "1.png", "odd\\nname.png"]
    assert (rows[0]["class"], rows[0]["probability"], rows[0]["class_2"]) == ("bee", "0.750000", "cat")
    assert (rows[0]["true_class"], rows[2]["problem"], rows[2]["class"]) == ("ant", "truncated", "")
    values = json.loads((tmp_path / "out" / "sheet.json").read_text())
    assert values["labelled"]["metrics"]["top1"] == 0.5 and values["median_ms"] == 0.5
    assert values["answers"][0]["classes"][0] == {"class": "bee", "probability": 0.75}


def test_wrong_pictures_come_first_on_the_sheet_and_are_marked(tmp_path: Path) -> None:
    result = made_result(["bee", "ant"], ["bee", "bee"], tmp_path)
    sheet = contact_sheet(result.answers)
    red = tuple(int(WRONG_COLOUR[i : i + 2], 16) for i in (1, 3, 5))
    is_red = np.all(np.asarray(sheet) == red, axis=2)
    assert is_red[:, : sheet.width // 2].any() and not is_red[:, sheet.width // 2 :].any()
    many = dataclasses.replace(result, answers=result.answers * MAX_PICTURES)
    text = save_results(many, tmp_path / "many.png", tmp_path)
    assert f"contact sheet of {MAX_PICTURES} of {2 * MAX_PICTURES} pictures, wrong ones first;" in text


def test_a_sheet_with_too_little_room_shows_all_parts_of_the_folder(tmp_path: Path) -> None:
    (answer,) = made_result([None], ["ant"], tmp_path).answers
    names = [str(number) for number in range(2 * MAX_PICTURES)]
    answers = [dataclasses.replace(answer, classes=((name, 1.0),)) for name in names]
    wrong = [dataclasses.replace(answer, label="bee", classes=((f"wrong {n}", 1.0),)) for n in range(2)]
    captions: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ofa.export.classified.picture_sheet", lambda images, texts, **settings: captions.extend(texts)
        )
        contact_sheet([*answers, *wrong])
    shown = [caption.split(":")[0] for caption in captions]
    assert shown[:2] == ["wrong 0", "wrong 1"] and len(shown) == MAX_PICTURES
    assert shown[2] == "0" and int(shown[-1]) > 1.9 * MAX_PICTURES
    assert np.diff([int(name) for name in shown[2:]]).max() == 3


def test_a_picture_that_is_gone_leaves_a_grey_square(tmp_path: Path) -> None:
    result = made_result([None], ["ant"], tmp_path)
    result.answers[0].path.unlink()
    assert contact_sheet(result.answers).getpixel((60, 60)) == (128, 128, 128)


def test_results_are_never_among_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "my photos"
    picture = write_picture(photos / "cat" / "a.png", 0)
    monkeypatch.chdir(tmp_path)
    assert sheet_path(None, photos) == Path("classified-my photos.png")
    assert sheet_path(None, picture) is None
    assert sheet_path("~/a.png", picture) == Path.home() / "a.png"
    with pytest.raises(UserError, match=r"expected a file that ends in \.png"):
        sheet_path("results", photos)
    with pytest.raises(UserError, match="would be in the folder of the pictures"):
        sheet_path("my photos/cat/sheet.png", photos)
    monkeypatch.chdir(photos)
    with pytest.raises(UserError, match=r"Give output=FILE\.png in another folder"):
        sheet_path(None, Path())
    with pytest.raises(UserError, match="exists and is no contact sheet"):
        sheet_path(str(picture), picture)
    (tmp_path / "sheet.png").touch()
    (tmp_path / "sheet.json").touch()
    assert sheet_path("../sheet.png", photos) == Path("../sheet.png")


def test_the_file_that_runs_is_chosen_by_what_is_installed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runnable_file(bundle) == "weights" and engine_title(bundle, "weights") == "PyTorch"
    foreign = dataclasses.replace(bundle, module=None)
    assert runnable_file(foreign) == "pt2"
    record = bundle.files["pt2"]
    files = {"weights": record, "onnx_int8": dataclasses.replace(record, precision="int8"), "onnx": record}
    both = dataclasses.replace(foreign, files=files)
    assert engine_title(both, "onnx_int8") == "ONNX Runtime"
    if not missing_packages(("onnx", "onnxruntime")):
        assert runnable_file(both) == "onnx"
    monkeypatch.setattr("ofa.export.engines.missing_packages", lambda packages: list(packages))
    with pytest.raises(UserError, match=r"None of the files .* can be run here:\n  onnx needs onnx, onnxr.*"):
        runnable_file(both)
    assert runnable_file(dataclasses.replace(both, module=bundle.module)) == "weights"


def test_networks_of_other_tasks_and_damaged_ones_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png", 0)
    other = dataclasses.replace(bundle, card=dataclasses.replace(bundle.card, task="depth"))
    with pytest.raises(UserError, match="is a network for depth; pictures are classified by one for"):
        classify_pictures(other, "weights", [picture])
    broken = two_branches()
    with torch.no_grad():
        broken.head.bias[0] = torch.nan
    with pytest.raises(UserError, match="are not finite"):
        classify_pictures(dataclasses.replace(bundle, module=broken), "weights", [picture])


def test_names_that_cannot_be_printed_are_escaped() -> None:
    assert shown_path(Path("/a/b/c\n\udcff猫.png"), Path("/a")) == "b/c\\n\\udcff猫.png"
    assert shown_path(Path("/z/x.png"), Path("/a")) == "/z/x.png"
