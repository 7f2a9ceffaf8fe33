"""Very large and very thin pictures: time and memory of a process that reads one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MAX_MB = 500
# Inflating the four channels of a PNG file takes most of it.
MAX_S = {"RGBA": 3.0}
# Processor time, too, is longer where others use the caches; the shortest of a few readings counts.
MAX_READINGS = 3
READ = """
import sys, time
import numpy as np
from functools import partial
from pathlib import Path
from ofa.data.pictures import read_picture
from ofa.data.views import centre_view, random_view, shrunk_view
rng = np.random.default_rng(0)
views = {
    "centre": partial(centre_view, size=224, share=0.875),
    "random": partial(random_view, size=224, min_area=0.25, rng=rng),
    "shrunk": partial(shrunk_view, short_side=448),
}
start_s = time.process_time()
read_picture(sys.argv[1], views[sys.argv[2]])
seconds = time.process_time() - start_s
# Unlike that of getrusage, this peak begins with the program.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) / 1000)
"""


def photograph(width: int, height: int, mode: str) -> Image.Image:
    """Return a picture with the detail of a photograph."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(
        rng.integers(0, 256, (max(2, height // 40), max(2, width // 40), 3)).astype(np.uint8)
    )
    image = small.resize((width, height), Image.Resampling.BILINEAR)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
    if mode == "RGBA":
        image.putalpha(image.getchannel("R"))
    return image if mode == "RGBA" else image.convert(mode)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read as on Linux")
@pytest.mark.timing
@pytest.mark.parametrize("view", ["centre", "random", "shrunk"])
@pytest.mark.parametrize(
    ("name", "width", "height", "mode"),
    [
        ("thin.png", 1, 20_000, "RGB"),
        ("thin.jpg", 1, 20_000, "RGB"),
        ("wide.jpg", 20_000, 1, "RGB"),
        ("large.jpg", 8000, 6000, "RGB"),
        ("large.png", 8000, 6000, "RGB"),
        ("large_alpha.png", 8000, 6000, "RGBA"),
        ("large_deep.png", 8000, 6000, "I;16"),
        ("large_palette.png", 8000, 6000, "P"),
    ],
)
def test_extreme_pictures_take_little_memory_and_time(
    tmp_path_factory: pytest.TempPathFactory, name: str, width: int, height: int, mode: str, view: str
) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / name
    if not path.exists():
        options = {"compress_level": 1} if path.suffix == ".png" else {}
        photograph(width, height, mode).save(path, **options)  # type: ignore[arg-type]
    for _ in range(MAX_READINGS):
        answer = subprocess.run(
            [sys.executable, "-c", READ, str(path), view], capture_output=True, text=True, check=True
        )
        seconds, megabytes = map(float, answer.stdout.split())
        assert megabytes < MAX_MB
        if seconds < MAX_S.get(mode, 2.0):
            return
    raise AssertionError(f"reading takes {seconds} s in {MAX_READINGS} readings")
