"""A picture of every odd kind gives the same input in evaluation, a bundle and its README's code."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from odd_pictures import write_kinds
from PIL import Image

from ofa.common.errors import UserError
from ofa.data.file_data import CENTRE_SHARE, PHOTO_MEAN, PHOTO_STD
from ofa.data.folder import FolderData
from ofa.data.preprocessing import Preprocessing
from ofa.data.settings import DataInfo, DataSettings
from ofa.export.bundle import load_bundle
from ofa.export.card import ModelCard, subnet_card
from ofa.export.evaluate import card_batches, card_samples
from ofa.export.example import engine_example
from ofa.export.formats import FORMATS
from ofa.export.readme import bundle_readme
from ofa.export.write import export_bundle
from ofa.runtimes.base import missing_packages
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

SIDE = 16
CPU = torch.device("cpu")
# Two levels of 255, by the smallest of the deviations.
TOLERANCE = 2.1 / 255 / min(PHOTO_STD)
RUN = """
import sys, numpy, PIL.Image
open_image = PIL.Image.open
for path in sys.argv[2:]:
    PIL.Image.open = lambda name: open_image(path)
    exec(sys.argv[1])
    numpy.save(path + ".npy", pixels)
"""


def photograph_card(
    channels: int = 3, size: tuple[int, int] = (SIDE, SIDE), share: float = CENTRE_SHARE
) -> ModelCard:
    return ModelCard(
        name="toy",
        input_shape=(channels, *size),
        preprocessing=Preprocessing(PHOTO_MEAN[:channels], PHOTO_STD[:channels], centre_share=share),
        class_names=("a", "b"),
    )


def readme_pixels(card: ModelCard, paths: list[Path]) -> list[npt.NDArray[np.uint8]]:
    """Run the README's code, without this project, on files in place of `photo.jpg`."""
    code = engine_example(card, "logits = np.zeros((1, 2))")
    assert 'Image.open("photo.jpg")' in code and "ofa" not in code
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "subnet.json").write_text(json.dumps({"class_names": card.class_names}))
        subprocess.run(
            [sys.executable, "-c", RUN, code, *map(str, paths)], check=True, cwd=folder, capture_output=True
        )
    return [np.load(f"{path}.npy") for path in paths]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of every kind in the classes a and b."""
    root = tmp_path_factory.mktemp("kinds")
    for split in ("train", "val"):
        for name in ("a", "b"):
            write_kinds(root / split / name)
    return root


@pytest.fixture(scope="module")
def data(root: Path) -> FolderData:
    return FolderData(DataSettings("made", str(root), image_size=SIDE, workers=0, stratified=True))


def files(data: FolderData, split: str) -> list[Path]:
    return [Path(path) for path in data._datasets[split]._paths]


def test_readme_bundle_and_evaluation_agree_on_every_kind(data: FolderData) -> None:
    card, paths = photograph_card(), files(data, "test")
    images = torch.cat([images for images, _ in card_batches(card, data, "test")])
    pixels = readme_pixels(card, paths)
    assert len(paths) == 40
    for path, image, values in zip(paths, images, pixels, strict=True):
        own = card.read_image(path)
        assert own.shape == (1, 3, SIDE, SIDE)
        assert float((own[0] - image).abs().max()) < 1e-5, path.name
        # The README's pixels are cropped already.
        plain = Preprocessing(PHOTO_MEAN, PHOTO_STD).apply(torch.from_numpy(values), SIDE)
        assert float((plain - own).abs().max()) < TOLERANCE, path.name


def test_calibration_takes_the_same_images(data: FolderData) -> None:
    card = photograph_card()
    samples = card_samples(card, data, 12)
    for image, path in zip(samples.calibration, files(data, "train"), strict=False):
        assert np.abs(image - card.read_image(path).numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("channels", "size", "share"), [(1, (12, 12), 1.0), (3, (10, 14), 1.0), (1, (12, 12), 0.5)]
)
def test_other_inputs_agree_as_well(root: Path, channels: int, size: tuple[int, int], share: float) -> None:
    card, paths = photograph_card(channels, size, share), sorted((root / "val" / "a").glob("*[a-z0-9].*g"))
    for path, values in zip(paths, readme_pixels(card, paths), strict=True):
        plain = Preprocessing(PHOTO_MEAN[:channels], PHOTO_STD[:channels])
        difference = plain.apply(torch.from_numpy(values), size) - card.read_image(path)
        assert difference.shape == (1, channels, *size)
        assert float(difference.abs().max()) < TOLERANCE, path.name


def test_a_large_photograph_agrees_within_the_coarser_decoding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(40, 216, (12, 16, 3)).astype(np.uint8))
    small.resize((800, 600), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    card = photograph_card()
    (values,) = readme_pixels(card, [tmp_path / "large.jpg"])
    plain = Preprocessing(PHOTO_MEAN, PHOTO_STD).apply(torch.from_numpy(values), SIDE)
    difference = (plain - card.read_image(tmp_path / "large.jpg")).abs()
    assert float(difference.max()) < 2 * TOLERANCE


def test_networks_of_other_channels_read_no_files() -> None:
    card = ModelCard(
        name="toy",
        input_shape=(2, 8, 8),
        preprocessing=Preprocessing((0.5, 0.5), (0.2, 0.2)),
        class_names=("a", "b"),
    )
    example = engine_example(card, "logits = run(images)")
    assert "np.zeros((1, 2, 8, 8), np.uint8)" in example and "photo.jpg" not in example
    assert "it takes pixels and prints the most probable classes" in bundle_readme(card, {})
    with pytest.raises(UserError, match="takes images of 2 channels; a picture has 3, or 1 in grey"):
        card.read_image("photo.jpg")


# -- every section of a README ---------------------------------------------------------------------

SIDEWAYS = 6


@pytest.fixture(scope="module")
def bundle(
    micro_space: StagedSpace,
    make_supernet: Callable[[StagedSpace, int], Supernet],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle of a sub-network for photographs, with every file that can be written here and a picture."""
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    space = dataclasses.replace(micro_space, in_channels=3)
    info = DataInfo("photographs", 3, tuple("abcde"), PHOTO_MEAN, PHOTO_STD, CENTRE_SHARE)
    network = make_supernet(space, 0).extract(space.smallest).eval()
    formats = [name for name, kind in FORMATS.items() if not missing_packages(kind.packages)]
    export_bundle(network, subnet_card(space, space.smallest, info), path, formats)
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    pixels = np.random.default_rng(1).integers(0, 256, (13, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((90, 130)).save(path / "photo.jpg", exif=exif, quality=95)
    return path


@pytest.mark.parametrize("name", ["weights", *FORMATS])
def test_the_code_of_each_section_classifies_a_picture_as_the_bundle_does(name: str, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    if name not in loaded.files:
        pytest.skip(f"{name} cannot be written here")
    parts = re.findall(
        r"^## (\w+): .*?```python\n(.*?)```", (bundle / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", dict(parts)[name]],
        cwd=bundle,
        env=environment if name == "weights" else None,
        capture_output=True,
        text=True,
        check=True,
    )
    with torch.no_grad():
        shares = loaded.network(loaded.card.read_image(bundle / "photo.jpg")).softmax(1)[0]
    lines = [line.split(": ") for line in done.stdout.splitlines()]
    expected = shares.argsort(descending=True)[:3].tolist()
    assert [answer for answer, _ in lines] == [loaded.card.class_names[position] for position in expected]
    for (_, share), position in zip(lines, expected, strict=True):
        assert float(share.removesuffix(" %")) == pytest.approx(100 * float(shares[position]), abs=0.5)
