"""`ofa classify`: a picture or a folder, a bundle by its path or by its name in a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from any_modules import two_branches, two_branches_card
from classify import classify
from PIL import Image

from ofa.common.errors import UserError
from ofa.export.bundle import load_bundle
from ofa.export.write import export_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in the folder of a run."""
    path = tmp_path_factory.mktemp("runs") / "mine" / "bundles" / "made"
    export_bundle(two_branches(), two_branches_card(), path, ["pt2"])
    (path.parent.parent / "config.json").write_text("{}")
    return path


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in folders of a class and elsewhere, and files that are none; beside the working folder."""
    folder = tmp_path / "my (photos)"
    rng = np.random.default_rng(0)
    for name in ("ant/1.png", "ant/more/2.jpg", "bee/3.png", "holiday/4.png", "5.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 20, 3)).astype(np.uint8)).save(folder / name)
    (folder / "ant" / "._1.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    (folder / "bee" / "broken.png").write_bytes(b"x")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_is_listed_as_training_does_and_its_results_are_in_the_working_folder(
    bundle: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(photos)
    result = classify.run(f"bundle={bundle}", f"images='{photos}'")
    out = capsys.readouterr().out
    answers = {str(answer.path.relative_to(photos)): answer.label for answer in result.answers}
    assert answers == {
        "5.png": None,
        "ant/1.png": "ant",
        "ant/more/2.jpg": "ant",
        "bee/3.png": "bee",
        "holiday/4.png": None,
    }
    assert "2 files left out: 1 .txt, 1 hidden" in out and "  bee/broken.png (not an image" in out
    assert (
        "(standard error of 3 pictures in folders of a class)" in out and "ms an image: pt2 in PyTorch" in out
    )
    assert contents(photos) == before
    assert contents(Path()) == [f"classified-my (photos).{ending}" for ending in ("csv", "json", "png")]
    values = json.loads(Path("classified-my (photos).json").read_text())
    assert values["unreadable"] == {"bee/broken.png": "not an image, or of an unknown format"}
    classify.run(f"bundle={bundle}", f"images='{photos}'")  # the results are replaced


def test_a_single_picture_is_printed_and_nothing_is_written(
    bundle: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = bundle.parent.parent.parent
    picture = f"images='{photos / '5.png'}'"
    results = [
        classify.run("bundle=made", picture, f"runs_dir={runs}", *settings)
        for settings in (("run_name=mine",), ())
    ]
    best = [result.answers[0].classes[0][0] for result in results]
    out = capsys.readouterr().out
    assert best[0] == best[1] and f" {best[0]} " in out and contents(Path()) == []
    classify.run(f"bundle={bundle}", picture, "output=one.png")
    assert contents(Path()) == ["one.csv", "one.json", "one.png"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("images=missing.jpg",), r"images is 'missing\.jpg': no such file or folder"),
        (("images=.",), r"would be in the folder of the pictures"),
        (("images=..", "output=../../x.png"), r"a\.png cannot be read as an image \(not an image, or"),
        (("images=../empty", "output=x.png"), r"has no pictures \(there are 1 \.txt\)\. Expected files"),
        (("images=..", "output=x.jpg"), r"expected a file that ends in \.png"),
        (("images=../a.png", "format=onnx"), "has no format 'onnx'; it has: weights, pt2"),
        (("images=../a.png", "threads=0"), "threads is 0"),
    ],
)
def test_mistakes_are_explained(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], message: str
) -> None:
    (tmp_path / "deep" / "work").mkdir(parents=True)
    (tmp_path / "deep" / "a.png").write_bytes(b"x")
    (tmp_path / "deep" / "empty").mkdir()
    (tmp_path / "deep" / "empty" / "a.txt").touch()
    monkeypatch.chdir(tmp_path / "deep" / "work")
    with pytest.raises(UserError, match=message):
        classify.run(f"bundle={bundle}", *settings)


def test_other_tasks_and_missing_bundles_are_refused(bundle: Path, photos: Path, tmp_path: Path) -> None:
    card = dataclasses.replace(load_bundle(bundle).card, task="depth", class_names=())
    export_bundle(two_branches(), card, tmp_path / "depth", ["pt2"])
    with pytest.raises(UserError, match="is a network for depth"):
        classify.run(f"bundle={tmp_path / 'depth'}", f"images='{photos}'")
    with pytest.raises(UserError, match=r"No bundle 'nothing' in .*\nMake it with: ofa export "):
        classify.run("bundle=nothing", f"images='{photos}'")
