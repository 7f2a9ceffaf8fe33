"""`ofa segment`: overlays and masks of a picture or a folder, by a bundle of a segmentation network."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from any_modules import two_branches, two_branches_card
from PIL import Image
from segment import segment

from ofa.common.errors import UserError
from ofa.data.preprocessing import Preprocessing
from ofa.data.shapes import CLASS_NAMES, draw_shapes
from ofa.export.bundle import load_bundle
from ofa.export.card import ModelCard
from ofa.export.segment import (
    SegmentedPicture,
    UnreadablePicture,
    class_colours,
    overlay,
    segment_pictures,
)
from ofa.export.segmented import MAX_LINES, MAX_PICTURES, save_segmented
from ofa.export.write import export_bundle
from ofa.modules.unet import UNet, unet


def network() -> UNet:
    torch.manual_seed(0)
    return unet(width=4).eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "made"
    card = ModelCard(
        name="made",
        input_shape=(3, 32, 32),
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3),
        class_names=CLASS_NAMES,
        task="segmentation",
    )
    export_bundle(network(), card, path, ["pt2"])
    return path


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    drawn, _ = draw_shapes(2, seed=1)
    for name, pixels in zip(("a.png", "more/b.png"), drawn, strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name)
    (folder / "broken.png").write_bytes(b"x")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_a_folder_becomes_overlays_masks_and_shares(
    bundle: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = segment.run(f"bundle={bundle}", f"images={pictures}")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    assert names == [
        "a.png-mask.png",
        "a.png-overlay.png",
        "more/b.png-mask.png",
        "more/b.png-overlay.png",
        "overlays.png",
        "segmented.json",
    ]
    out = capsys.readouterr().out
    assert "a.png: " in out and "broken.png (not an image, or of an unknown format)" in out
    loaded = load_bundle(bundle, network=network())
    logits = loaded.network(loaded.card.read_image(pictures / "more/b.png"))
    mask = Image.open(folder / "more/b.png-mask.png")
    assert np.array_equal(np.asarray(mask), logits[0].argmax(0).numpy())
    assert mask.mode == "P" and mask.getpalette()[:12] == class_colours(CLASS_NAMES).ravel().tolist()  # type: ignore[index]
    shares = json.loads((folder / "segmented.json").read_text())["shares"]["more/b.png"]
    counts = np.bincount(np.asarray(mask).ravel(), minlength=4) / 32**2
    assert shares == {CLASS_NAMES[i]: counts[i] for i in range(4) if counts[i]}
    assert Image.open(folder / "more/b.png-overlay.png").size == (256, 256)


def test_an_overlay_is_the_grey_picture_with_colours() -> None:
    picture = Image.new("RGB", (4, 2), (100, 100, 100))
    palette = np.array([[0, 0, 0], [200, 0, 50]], np.uint8)
    mixed = np.asarray(overlay(picture, np.array([[0, 1]], np.uint8), palette))
    assert (mixed[:, :2] == 100).all() and (mixed[:, 2:] == [160, 40, 70]).all()


def test_classes_have_colours_of_their_own() -> None:
    assert (class_colours(("background", "cat"))[0] == 0).all()
    colours = class_colours([f"class {number}" for number in range(20)])
    assert len(np.unique(colours, axis=0)) == 20 and colours.any(-1).all()


def test_what_cannot_work_is_an_error(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        segment.run(f"bundle={bundle}", "images=nothing")
    with pytest.raises(UserError, match="lies in the folder of the pictures"):
        segment.run(f"bundle={bundle}", f"images={pictures}", f"output={pictures}/out")
    with pytest.raises(UserError, match="broken.png cannot be read as an image"):
        segment.run(f"bundle={bundle}", f"images={pictures}/broken.png")
    export_bundle(two_branches(), two_branches_card(), tmp_path / "classes", ["pt2"])
    with pytest.raises(UserError, match="is a network for classification; overlays are drawn by one for seg"):
        segment.run(f"bundle={tmp_path / 'classes'}", f"images={pictures}")
    loaded = load_bundle(bundle, network=network())
    with torch.no_grad():
        loaded.network.head.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(UserError, match="outputs of made .* are not finite"):
        list(segment_pictures(loaded, "weights", [pictures / "a.png"]))


def test_pictures_are_written_as_they_come_and_are_not_kept(tmp_path: Path) -> None:
    alive: list[weakref.ref[SegmentedPicture]] = []

    def pictures() -> Iterator[SegmentedPicture | UnreadablePicture]:
        for number in range(MAX_PICTURES + 20):
            if number:
                assert (tmp_path / "out" / f"{number - 1}.png-overlay.png").exists()
                assert not (tmp_path / "out" / "segmented.json").exists()
            classes, image = np.zeros((4, 4), np.uint8), Image.new("RGB", (4, 4))
            picture = SegmentedPicture(tmp_path / f"{number}.png", classes, image, image, 1.0)
            assert sum(reference() is not None for reference in alive) <= MAX_PICTURES + 1
            alive.append(weakref.ref(picture))
            yield picture
            del picture
        yield UnreadablePicture(tmp_path / "no.png", "gone")

    written = save_segmented(pictures(), CLASS_NAMES, tmp_path / "out", tmp_path)
    assert len(written.shares) == MAX_PICTURES + 20 and len(written.lines) == MAX_LINES
    assert written.unreadable == {tmp_path / "no.png": "gone"}
    gc.collect()
    assert not any(reference() for reference in alive)
    assert (tmp_path / "out" / "overlays.png").exists() and (tmp_path / "out" / "segmented.json").exists()
