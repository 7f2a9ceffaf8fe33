"""A process whose error nobody catches ends, although its workers ignore the signal to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROGRAM = """
import sys
import torch
from ofa.data import DataSettings, load_data

settings = DataSettings("image_folder", sys.argv[1], image_size=8, workers=2, validation_size=2, test_size=2)
data = load_data(settings)
arguments = {"train_batches": (2, 0, 0), "batches": ("train", 2)}[sys.argv[2]]
batches = getattr(data, sys.argv[2])(*arguments, torch.device("cpu"))
for images, labels in batches:
    raise ArithmeticError("nobody catches this")
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["train_batches", "batches"])
def test_an_error_between_batches_ends_the_process(method: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(20):
            pixels = rng.integers(0, 255, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ArithmeticError: nobody catches this"
