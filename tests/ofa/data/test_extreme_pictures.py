"""Very large and very thin pictures: time and memory of a process that reads one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MAX_MB = 500
# Inflating the four channels of a PNG file takes most of it.
MAX_S = {"RGBA": 3.0}
# On a slow machine decoding alone takes nearly as long, and nothing that reads a whole file can avoid it.
# There the time is bounded by that of Pillow's `load`, measured right after: the rest, which converts and
# scales, takes up to a quarter of it.
MAX_DECODINGS = 1.3
# Processor time, too, is longer where others use the caches; the shortest of a few readings counts.
MAX_READINGS = 3
READ = """
import json, sys, time
import numpy as np
from functools import partial
from pathlib import Path
from PIL import Image
from ofa.data.pictures import read_picture
from ofa.data.views import centre_view, random_view, shrunk_view
path, max_s, max_decodings, max_readings = sys.argv[1], *map(float, sys.argv[2:])
rng = np.random.default_rng(0)
views = {
    "centre": partial(centre_view, size=224, share=0.875),
    "random": partial(random_view, size=224, min_area=0.25, rng=rng),
    "shrunk": partial(shrunk_view, short_side=448),
}
def seconds_of(act):
    start_s = time.process_time()
    act()
    return time.process_time() - start_s
def decode():
    with Image.open(path) as image:
        image.load()
too_long = []
for name, view in views.items():
    readings = []
    while len(readings) < max_readings:
        seconds, bound_s = seconds_of(partial(read_picture, path, view)), max_s
        if seconds >= bound_s:
            bound_s = max(max_s, max_decodings * seconds_of(decode))
        readings.append((seconds, bound_s))
        if seconds < bound_s:
            break
    else:
        too_long.append((name, readings))
# Unlike that of getrusage, this peak begins with the program.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"megabytes": int(peak.split()[1]) / 1000, "too_long": too_long}))
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
    tmp_path: Path, name: str, width: int, height: int, mode: str
) -> None:
    path = tmp_path / name
    options = {"compress_level": 1} if path.suffix == ".png" else {}
    photograph(width, height, mode).save(path, **options)  # type: ignore[arg-type]
    bounds = (MAX_S.get(mode, 2.0), MAX_DECODINGS, MAX_READINGS)
    answer = subprocess.run(
        [sys.executable, "-c", READ, str(path), *map(str, bounds)], capture_output=True, text=True, check=True
    )
    path.unlink()
    found = json.loads(answer.stdout)
    assert found["megabytes"] < MAX_MB
    assert found["too_long"] == [], "seconds and bound of each reading"
