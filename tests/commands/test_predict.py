"""`ofa predict`: a row of labels or numbers for each picture, by a bundle of a network for these."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from any_modules import two_branches, two_branches_card
from image_tables import write_picture
from PIL import Image
from predict import predict
from torch import nn

from ofa.common.errors import UserError
from ofa.data.preprocessing import Preprocessing
from ofa.data.settings import MULTI_LABEL, REGRESSION
from ofa.data.target_scale import TargetScale
from ofa.export.bundle import load_bundle
from ofa.export.card import ModelCard
from ofa.export.metadata import card_metadata
from ofa.export.predict import Prediction, predict_pictures, save_predictions
from ofa.export.write import export_bundle
from ofa.modules.unet import unet

NAMES = ("red", "green, or yellow")
SCALE = TargetScale((5.0, -1e4), (2.0, 1e3))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()


def card(task: str) -> ModelCard:
    return ModelCard(
        name="made",
        input_shape=(3, 16, 16),
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3),
        class_names=NAMES,
        task=task,
        target_scale=SCALE if task == REGRESSION else None,
    )


@pytest.fixture(params=[MULTI_LABEL, REGRESSION])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bundle(tmp_path: Path, task: str) -> Path:
    export_bundle(network(), card(task), tmp_path / "made", ["pt2"])
    return tmp_path / "made"


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "photos"
    write_picture(folder / "a.png", (200, 10, 30))
    write_picture(folder / "more" / "b.png", (20, 110, 230))
    (folder / "broken.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def expected(task: str, picture: Path) -> torch.Tensor:
    outputs = network()(card(task).read_image(picture))[0]
    mean, std = torch.tensor([SCALE.mean, SCALE.std])
    values: torch.Tensor = outputs.sigmoid() if task == MULTI_LABEL else outputs * std + mean
    return values


def test_a_folder_becomes_a_row_for_each_picture(
    bundle: Path, task: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = predict.run(f"bundle={bundle}", f"images={pictures}")
    assert path == Path("predicted-photos.csv")
    header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert header == ["file", *NAMES] and [row[0] for row in rows] == ["a.png", "more/b.png"]
    for row in rows:
        found = torch.tensor([float(text) for text in row[1:]])
        assert torch.allclose(found, expected(task, pictures / row[0]), rtol=1e-5)
    out = capsys.readouterr().out
    value = float(expected(task, pictures / "a.png")[0].detach())
    shown = f"{100 * value:.1f} %" if task == MULTI_LABEL else f"{value:.2f}"
    assert f"a.png: red {shown}, green, or yellow " in out
    assert "broken.png (not an image, or of an unknown format)" in out and "1 .txt" in out
    assert "a row for each of 2 pictures: predicted-photos.csv" in out
    assert not list(Path().glob("*.tmp"))


def test_a_single_picture_becomes_a_table_where_it_is_asked_for(bundle: Path, pictures: Path) -> None:
    assert predict.run(f"bundle={bundle}", f"images={pictures}/a.png", "output=new/out.csv").exists()
    assert predict.run(f"bundle={bundle}", f"images={pictures}/a.png") == Path("predicted-a.csv")


def test_rows_are_written_as_they_come_and_the_file_appears_whole(tmp_path: Path) -> None:
    def predictions() -> Iterator[Prediction]:
        for number in range(100):
            assert not (tmp_path / "out.csv").exists()
            yield Prediction(tmp_path / f"{number}.png", (1.0,), 2.0 + number)
        yield Prediction(tmp_path / "no.png", (), reason="gone")

    summary = save_predictions(predictions(), ["x"], tmp_path / "out.csv", tmp_path)
    assert (summary.num_pictures, summary.num_unreadable, len(summary.first)) == (100, 1, 40)
    assert summary.run_ms == 51.5 and len((tmp_path / "out.csv").read_text().splitlines()) == 101


def test_what_cannot_work_is_an_error(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    given = f"bundle={bundle}"
    with pytest.raises(UserError, match="no such file or folder"):
        predict.run(given, "images=nothing")
    with pytest.raises(UserError, match="lies in the folder of the pictures"):
        predict.run(given, f"images={pictures}", f"output={pictures}/out.csv")
    with pytest.raises(UserError, match=r"output is 'out.txt'; expected a file that ends in .csv"):
        predict.run(given, f"images={pictures}", "output=out.txt")
    with pytest.raises(UserError, match="broken.png cannot be read as an image"):
        predict.run(given, f"images={pictures}/broken.png")
    assert not list(Path().iterdir())
    loaded = load_bundle(bundle, network=network())
    with torch.no_grad():
        loaded.network[2].bias.fill_(float("nan"))  # type: ignore[index]
    with pytest.raises(UserError, match="outputs of made .* are not finite"):
        list(predict_pictures(loaded, "weights", [pictures / "a.png"]))


def test_classes_are_told_with_their_probabilities_and_pixels_are_not(pictures: Path, tmp_path: Path) -> None:
    export_bundle(two_branches(), two_branches_card(), tmp_path / "classes", ["pt2"])
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    path = predict.run(f"bundle={tmp_path / 'classes'}", f"images={tmp_path / 'one.png'}")
    header, row = csv.reader(path.read_text().splitlines())
    assert header[1:] == list(two_branches_card().class_names)
    assert sum(map(float, row[1:])) == pytest.approx(1, abs=1e-5)
    pixels = ModelCard(
        name="pixels",
        input_shape=(3, 32, 32),
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3),
        class_names=("a", "b", "c", "d"),
        task="segmentation",
    )
    export_bundle(unet(width=4).eval(), pixels, tmp_path / "pixels", ["pt2"])
    with pytest.raises(UserError, match="network for segmentation; expected one for classification"):
        predict.run(f"bundle={tmp_path / 'pixels'}", f"images={pictures}")


@pytest.mark.parametrize(
    ("task", "scale", "text"),
    [
        (REGRESSION, None, "target_scale has 0 columns, task 'regression' 2 names"),
        (REGRESSION, TargetScale((1.0,), (1.0,)), "target_scale has 1 columns, task 'regression' 2 names"),
        (
            MULTI_LABEL,
            SCALE,
            "target_scale has 2 columns, task 'multi_label' 2 names; .* none for other",
        ),
    ],
)
def test_a_card_has_the_scale_of_its_numbers(task: str, scale: TargetScale | None, text: str) -> None:
    with pytest.raises(UserError, match=text):
        ModelCard(
            name="made",
            input_shape=(3, 16, 16),
            preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3),
            class_names=NAMES,
            task=task,
            target_scale=scale,
        )
    with pytest.raises(UserError, match=f"a {task} network needs one per output"):
        ModelCard(name="m", input_shape=(3, 16, 16), preprocessing=card(MULTI_LABEL).preprocessing, task=task)


def test_numbers_are_read_with_the_scale_of_the_description_alone(tmp_path: Path) -> None:
    texts = card_metadata(card(REGRESSION))
    assert json.loads(texts["target_mean"]) == [5.0, -1e4] and json.loads(texts["target_std"]) == [2.0, 1e3]
    assert "target_mean" not in card_metadata(card(MULTI_LABEL))
    export_bundle(network(), card(REGRESSION), tmp_path / "made", [])
    file = tmp_path / "made" / "subnet.json"
    values = json.loads(file.read_text())
    assert values["target_scale"] == {"mean": [5.0, -1e4], "std": [2.0, 1e3]}
    assert load_bundle(tmp_path / "made", network()).card.target_scale == SCALE
    for damaged, text in (
        ({"mean": [5.0, 1.0], "std": [2.0, 0.0]}, "std above 0"),
        ({"mean": [5.0], "std": [2.0]}, "target_scale has 1 columns"),
        (None, "target_scale has 0 columns"),
    ):
        file.write_text(json.dumps({**values, "target_scale": damaged}))
        with pytest.raises(UserError, match=text):
            load_bundle(tmp_path / "made", network())
