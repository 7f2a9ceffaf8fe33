"""Conversions for a set of images: the classifier stays a layer that other classes can renew."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.graph.settings import ModelSettings
from ofa.runs.conversion import convert_for

SOURCE = """
from torch import nn

def pooled():
    return nn.Sequential(
        nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.Conv2d(16, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )
"""


def test_a_classifier_is_not_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pooled_nets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    model = ModelSettings("pooled_nets:pooled", ranks=(0.5, 1.0))
    supernet = convert_for(model, load_data("digits"), DataSettings("digits"), 0).supernet
    assert [split.name for split in supernet.space.structure.splits] == ["2"]
    assert supernet.source is not None and supernet.source.classifier_names == ("4.weight", "4.bias")
