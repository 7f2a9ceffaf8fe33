"""Model cards: what fits together, and descriptions of this and of the earlier schema."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from any_modules import two_branches, two_branches_card

from ofa.common.errors import UserError
from ofa.common.expectation import MetricValue
from ofa.data.preprocessing import Preprocessing
from ofa.export.bundle import load_bundle
from ofa.export.write import export_bundle

EARLIER = Path(__file__).parents[2] / "data" / "earlier_run" / "before" / "bundles" / "my_cpu-0.8ms"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name is ''"),
        ({"task": ""}, "task ''; expected texts"),
        ({"input_shape": (1, 0, 4)}, r"input_shape is \(1, 0, 4\); expected \(channels, height, width\)"),
        ({"input_shape": (3, 10, 14)}, "mean and std have 1 channels; the network takes 3"),
        ({"class_names": ()}, "no class names; a classification network needs one per output"),
        ({"expected_metric": MetricValue("top1", 93.0)}, r"expected top1 is 93\.0; expected a share"),
        ({"expected_metric": MetricValue("psnr", float("nan"))}, "expected a name and a number"),
        (
            {"preprocessing": Preprocessing((0.5,), (0.5,), centre_share=0.8)},
            r"centre_share is 0\.8, which keeps a square; the network takes images of 14 x 10 pixels",
        ),
    ],
)
def test_a_card_that_contradicts_itself(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(two_branches_card(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("input_shape"), "input_shape is missing"),
        (lambda v: v.update(input_shape=[1, 10]), r"input_shape has 2 values; expected 3"),
        (lambda v: v.update(class_names=[]), r"subnet\.json: There are no class names"),
        (lambda v: v.pop("subnet"), "subnet is missing"),
        (lambda v: v.update(subnet={}), r"subnet\.space is missing"),
        (lambda v: v.update(expected_metric={"name": "top1", "value": 7.0}), r"expected top1 is 7\.0"),
        (lambda v: v.update(architecture="x"), "architecture is not a setting"),
    ],
)
def test_damaged_cards(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    path = export_bundle(two_branches(), two_branches_card(), tmp_path / "b", ()).path
    edit(path, change)
    with pytest.raises(UserError, match=message):
        load_bundle(path)


# -- schema 1 --------------------------------------------------------------------------------------


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A copy of a bundle of schema 1."""
    return Path(shutil.copytree(EARLIER, tmp_path / "earlier"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = bundle / "subnet.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_an_earlier_description_is_the_same_card(earlier: Path) -> None:
    values, loaded = json.loads((earlier / "subnet.json").read_text()), load_bundle(earlier)
    card, subnet = loaded.card, loaded.subnet
    assert values["schema_version"] == 1
    assert card.input_shape == (1, 16, 16) and card.class_names == tuple("0123456789")
    assert card.expected_metric == MetricValue("top1", values["expected_top1"])
    assert card.expected_latency_ms == values["expected_latency_ms"]
    assert card.name == "before-cbec91d20e" and card.provenance["run"] == "before"
    assert (subnet.config.id, subnet.space.fingerprint) == ("cbec91d20e", values["fingerprint"])
    assert loaded.date == values["date"] and loaded.versions == values["versions"]
    path = export_bundle(loaded.network, card, earlier.parent / "again", ()).path
    assert load_bundle(path).card == card
    assert json.loads((path / "subnet.json").read_text())["schema_version"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("space"), r"subnet\.space is missing"),
        (lambda v: v.pop("subnet"), r"subnet\.config is missing"),
        (lambda v: v.pop("in_channels"), r"input_shape\[0\] is None"),
        (lambda v: v.update(resolution=12), r"input_shape is \(1, 12, 12\); the sub-network takes \(1, 16"),
        (lambda v: v["space"].update(stem_channels=9), "has fingerprint .* is recorded"),
        (lambda v: v.pop("class_names"), "class_names is missing"),
    ],
)
def test_damaged_earlier_descriptions(
    change: Callable[[dict[str, Any]], object], message: str, earlier: Path
) -> None:
    edit(earlier, change)
    with pytest.raises(UserError, match=message):
        load_bundle(earlier)


def test_the_readme_of_an_earlier_bundle_still_runs(earlier: Path, root: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (earlier / "README.md").read_text(), re.DOTALL)[0]
    assert "bundle.info.space.in_channels" in code
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n{code}\nprint(logits.shape)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=earlier, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(1, 10)"
