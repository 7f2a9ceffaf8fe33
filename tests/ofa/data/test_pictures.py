"""The one function that reads pictures: every odd kind, crops before scaling, and what cannot be read."""

from __future__ import annotations

import io
import pickle
import struct
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
from odd_pictures import TURNS, smooth, write_kinds, write_turned
from PIL import Image

from ofa.common.errors import UserError
from ofa.data import formats
from ofa.data.formats import readable_endings
from ofa.data.modes import ModeError, to_rgb
from ofa.data.pictures import UnreadableError, displayed_size, read_picture
from ofa.data.views import View, centre_view, random_view, shrunk_view, whole_view

Values = npt.NDArray[np.int64]


def pixels(image: Image.Image) -> Values:
    return np.asarray(image).astype(np.int64)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, npt.NDArray[np.uint8]]]:
    return write_kinds(tmp_path_factory.mktemp("kinds"))


KINDS = (
    *("grey 8 bit", "grey 16 bit", "grey 16 bit big-endian", "integers", "floats", "alpha", "webp alpha"),
    *("grey alpha", "cmyk", "bilevel", "palette", "animated", *(f"orientation {turn}" for turn in TURNS)),
)


def test_the_kinds_are_all_tested(kinds: dict[str, tuple[Path, npt.NDArray[np.uint8]]]) -> None:
    assert set(KINDS) == set(kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_as_a_viewer_shows_it(
    kinds: dict[str, tuple[Path, npt.NDArray[np.uint8]]], kind: str
) -> None:
    path, expected = kinds[kind]
    image = read_picture(path)
    assert image.mode == "RGB" and image.size == (36, 24)
    assert np.abs(pixels(image) - expected).max() <= (4 if path.suffix == ".jpg" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_every_kind_is_that_part_of_the_whole(
    kinds: dict[str, tuple[Path, npt.NDArray[np.uint8]]], kind: str
) -> None:
    path, expected = kinds[kind]
    part = read_picture(path, lambda width, height: View(5, 3, 14, 12, 7, 6))
    reference = Image.fromarray(expected[3:15, 5:19]).resize((7, 6), Image.Resampling.BILINEAR)
    assert np.abs(pixels(part) - pixels(reference)).max() <= (4 if path.suffix == ".jpg" else 1)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_other_formats_are_turned_as_well(tmp_path: Path, ending: str, orientation: int) -> None:
    path, shown = tmp_path / f"turned.{ending}", smooth()
    write_turned(path, shown, orientation)
    image = read_picture(path)
    assert image.size == (36, 24)
    assert np.abs(pixels(image) - shown).max() <= (30 if ending == "webp" else 0)
    with Image.open(path) as opened:
        assert displayed_size(opened) == (36, 24)


def test_a_large_jpeg_is_decoded_smaller_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, shown = tmp_path / "large.jpg", smooth(803, 605)
    write_turned(path, shown, 6)
    sizes: list[tuple[int, int]] = []
    load = Image.Image.resize

    def spy(image: Image.Image, *given: object, **named: object) -> Image.Image:
        sizes.append(image.size)
        return load(image, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", spy)
    view = partial(centre_view, size=32, share=0.875)
    small = pixels(read_picture(path, view))
    assert sizes == [(605 // 8 + 1, 803 // 8 + 1)]
    square = view(803, 605)
    cut = shown[square.y : square.y + square.height, square.x : square.x + square.width]
    expected = pixels(Image.fromarray(cut).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(small - expected).max() <= 3
    # The other way round, as it was done before: the same but for the border.
    scaled = Image.fromarray(shown).resize((round(803 * 37 / 605), 37), Image.Resampling.BILINEAR)
    x, y = (scaled.width - 32) // 2, (scaled.height - 32) // 2
    assert np.abs(small - pixels(scaled.crop((x, y, x + 32, y + 32)))).max() <= 8


def test_random_views_are_within_the_picture_and_of_the_usual_shape() -> None:
    rng = np.random.default_rng(0)
    views = [random_view(400, 300, size=64, min_area=0.25, rng=rng) for _ in range(300)]
    for view in views:
        assert view.x >= 0 and view.x + view.width <= 400 and view.y >= 0 and view.y + view.height <= 300
        assert 0.74 < view.width / view.height < 1.35
        assert (view.out_width, view.out_height) == (64, 64)
    shares = np.array([view.width * view.height / 120_000 for view in views])
    assert shares.min() > 0.24 and shares.max() > 0.85 and 0.5 < shares.mean() < 0.65
    assert len({(view.x, view.y) for view in views}) > 250


def _given(view: View, width: int, height: int) -> View:
    return view


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 900), (1, 1)])
def test_very_thin_pictures_have_views(size: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    Image.new("RGB", size, (7, 8, 9)).save(tmp_path / "thin.png")
    for view in (
        *(random_view(*size, size=8, min_area=0.25, rng=rng) for _ in range(20)),
        centre_view(*size, size=8, share=0.875),
        shrunk_view(*size, short_side=64),
    ):
        assert view.width > 0 and view.height > 0
        assert 0 <= view.x <= size[0] - view.width and 0 <= view.y <= size[1] - view.height
        image = read_picture(tmp_path / "thin.png", partial(_given, view))
        assert image.size == (view.out_width, view.out_height) and image.getpixel((0, 0)) == (7, 8, 9)
    assert whole_view(*size) == View(0, 0, *size, *size)


def test_sixteen_bits_are_scaled_by_their_range(tmp_path: Path) -> None:
    for name, low, high in (("dark", 4000, 12_000), ("bright", 40_000, 48_000)):
        values = np.linspace(low, high, 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    dark, bright = (pixels(read_picture(tmp_path / f"{name}.png")) for name in ("dark", "bright"))
    assert (dark.min(), dark.max()) == (round(4000 / 257), round(12_000 / 257))
    assert (bright.min(), bright.max()) == (round(40_000 / 257), round(48_000 / 257))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0.0, 200.0]], np.float32), "mode F from 0 to 200; expected 0 to 1"),
        (np.array([[0.0, np.nan]], np.float32), "mode F from nan"),
        (np.array([[-1, 70_000]], np.int32), "mode I from -1 to 70000; expected 0 to 65535"),
    ],
)
def test_values_beyond_the_range_are_refused_by_name(
    tmp_path: Path, values: npt.NDArray[np.float32], words: str
) -> None:
    path = tmp_path / "odd.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(UnreadableError, match=words):
        read_picture(path)


def test_a_mode_without_a_rule_is_refused_by_name() -> None:
    with pytest.raises(ModeError, match="pixels of mode LAB; save the picture in 8-bit RGB"):
        to_rgb(Image.new("LAB", (4, 4)))


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    write_turned(tmp_path / "whole.jpg", smooth(200, 200), 1)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "album.png").mkdir()
    reasons = {
        "truncated.jpg": "truncated",
        "page.jpg": "not an image",
        "link.png": "no such file",
        "album.png": "Is a directory",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=f"{name} cannot be read as an image .*{reason}"):
            read_picture(tmp_path / name)


def test_a_picture_beyond_pillows_limit_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(UnreadableError, match=r"huge.png cannot be read .*more than 0 megapixels"):
        read_picture(tmp_path / "huge.png")


def test_damaged_exif_data_do_not_lose_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    Image.fromarray(smooth()).save(path, exif=b"Exif\x00\x00II*\x00" + struct.pack("<I", 4000))
    assert read_picture(path).size == (36, 24)
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.fromarray(smooth()).save(path, exif=exif)
    assert read_picture(path).size == (36, 24)


def test_the_error_survives_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(UnreadableError("a.png", "truncated")))
    assert (error.path, error.reason) == ("a.png", "truncated") and "a.png cannot be read" in str(error)


def test_heic_is_read_where_its_package_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name whose files are PNG files with another beginning."""
    path = tmp_path / "photo.heic"
    Image.fromarray(smooth()).save(tmp_path / "photo.png")
    path.write_bytes(b"ftypheic" + (tmp_path / "photo.png").read_bytes())
    formats._register_heif.cache_clear()
    with pytest.raises(UnreadableError, match="not an image"):
        read_picture(path)
    module = ModuleType("pillow_heif")

    def open_heic(file: BinaryIO, name: object) -> Image.Image:
        file.seek(8)
        return Image.open(io.BytesIO(file.read()))

    def register_heif_opener() -> None:
        Image.register_open("HEIF", open_heic, lambda prefix: prefix[:8] == b"ftypheic")  # type: ignore[arg-type]

    module.register_heif_opener = register_heif_opener  # type: ignore[attr-defined]
    module.__spec__ = sys.__spec__
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    formats._register_heif.cache_clear()
    try:
        assert ".heic" in readable_endings()
        assert np.array_equal(pixels(read_picture(path)), smooth())
    finally:
        Image.ID.remove("HEIF")
        del Image.OPEN["HEIF"]
        formats._register_heif.cache_clear()


def test_a_real_heic_file_is_read(tmp_path: Path) -> None:
    package = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    package.register_heif_opener()
    Image.fromarray(smooth(240, 160)).save(tmp_path / "photo.heic", quality=95)
    image = read_picture(tmp_path / "photo.heic")
    assert image.mode == "RGB" and np.abs(pixels(image) - smooth(240, 160)).max() <= 5


def test_the_endings_are_those_of_this_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa.data.formats.features.check", lambda name: name == "webp")
    monkeypatch.setattr(formats, "HEIF_MODULE", "no_such_module")
    endings = readable_endings()
    assert ".webp" in endings and ".avif" not in endings and ".heic" not in endings
    assert {".jpg", ".jfif", ".gif", ".tiff"} <= set(endings)
