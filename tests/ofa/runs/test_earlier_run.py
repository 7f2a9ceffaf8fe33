"""A run made before the layout changed (tests/data/earlier_run) loads, gives the same numbers and goes on.

`expected.json` was written by the code that made them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from train_supernet import train_supernet

from latency_tables.table.table import LatencyTable
from ofa.common.errors import UserError
from ofa.export.bundle import load_bundle
from ofa.runs.config import TrainConfig, claim_directory
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import load_supernet
from predictors.load import load_predictor
from predictors.records import RecordFile
from search.result.result import SearchResult

STAGES = (
    "[{channels: 8, stride: 2, depths: [1, 2], kernel_sizes: [3, 5], expand_ratios: [2, 3], "
    "activation: relu, squeeze_excite: false}, {channels: 16, stride: 2, depths: [1, 2], "
    "kernel_sizes: [3, 5], expand_ratios: [2, 3], activation: hard_swish, squeeze_excite: true}]"
)
SETTINGS = (
    *("run_name=before", "threads=1", "space.name=before", "space.resolutions=[12,16]"),
    *("space.stem_channels=8", "space.head_channels=[16,24]", f"space.stages={STAGES}"),
    *("training.batch_size=128", "phases.largest.epochs=3", "phases.kernel.epochs=1"),
    *("phases.depth_1.epochs=1", "phases.width_1.epochs=1", "phases.width_2.epochs=2"),
    "data.validation_size=200",
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run."""
    source = Path(__file__).parents[2] / "data" / "earlier_run" / "before"
    return Path(shutil.copytree(source, tmp_path / "before"))


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    path = Path(__file__).parents[2] / "data" / "earlier_run" / "expected.json"
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def test_the_supernet_gives_the_same_logits(run: Path, expected: dict[str, Any]) -> None:
    supernet, info = load_supernet(run / "supernet.pt")
    assert info.space.fingerprint == expected["fingerprints"]["earlier_run"]
    images = torch.linspace(-1, 1, 2 * 16 * 16).reshape(2, 1, 16, 16)
    logits = supernet(images, dataclasses.replace(info.family.largest, resolution=16))
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=1e-4, atol=1e-5)


def test_genomes_estimates_and_predictions_are_the_same(run: Path, expected: dict[str, Any]) -> None:
    _, info = load_supernet(run / "supernet.pt")
    space = info.family
    genomes = np.array(expected["genomes"], np.int8)
    assert space.sample(6, np.random.default_rng(0)).tolist() == expected["genomes"]
    configs = [space.config(genome) for genome in genomes]
    assert [config.to_dict() for config in configs] == expected["configs"]
    assert [config.id for config in configs] == expected["ids"]
    latency = LatencyTable.load(run / "latency" / "my_cpu.json").estimator(space)
    np.testing.assert_allclose(latency(genomes), expected["latency_ms"], rtol=1e-12)
    predictor = load_predictor(run / "predictor.pt", space)
    np.testing.assert_allclose(predictor(genomes), expected["top1"], rtol=1e-5)
    assert len(RecordFile.read(run / "accuracy.jsonl", space)) == 40


@pytest.mark.parametrize("name", ["my_cpu-0.8ms", "my_cpu-pareto-latency_ms"])
def test_search_results_are_read(run: Path, name: str) -> None:
    _, info = load_supernet(run / "supernet.pt")
    result = SearchResult.load(run / "search" / f"{name}.json", info.space)
    latency = LatencyTable.load(run / "latency" / "my_cpu.json").estimator(info.family)
    assert len(result.ranked) > 1 and result.limits[0].name == "latency_ms"
    for candidate in result.ranked:
        value = latency(info.space.genomes([candidate.config]))[0]
        assert candidate.values["latency_ms"] == pytest.approx(value)


def test_the_bundle_gives_the_same_logits(run: Path, expected: dict[str, Any]) -> None:
    bundle = load_bundle(run / "bundles" / "my_cpu-0.8ms")
    channels, height, width = bundle.card.input_shape
    images = torch.linspace(-1, 1, 2 * height * width).reshape(2, channels, height, width)
    torch.testing.assert_close(
        bundle.network(images), torch.tensor(expected["bundle_logits"]), rtol=1e-4, atol=1e-5
    )


def test_the_training_goes_on_from_its_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished = load_supernet(run / "supernet.pt")[0].state_dict()
    checkpoint = torch.load(run / "checkpoints" / "step_00000048.pt", weights_only=True)["supernet"]
    for file in ("supernet.pt", "supernet.json"):
        (run / file).unlink()
    path = train_supernet.run(*SETTINGS, f"runs_dir={run.parent}")
    assert "going on after step 48" in capsys.readouterr().out
    resumed = load_supernet(path)[0].state_dict()
    # Other processors round differently: 24 steps lead at most a tenth of their way apart.
    for kind in ("weight", "bias", "matrices", "running_mean", "running_var"):
        way = distance(checkpoint, finished, kind)
        assert distance(resumed, finished, kind) < 0.2 * way, kind


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor], kind: str) -> float:
    """Return the Euclidean distance of all tensors of a kind, e.g. "weight"."""
    names = [name for name in one if kind in name.split(".")]
    assert names
    return math.sqrt(sum(float((one[name] - other[name]).double().square().sum()) for name in names))


def recorded(run: Path) -> tuple[RunDirectory, TrainConfig, dict[str, Any]]:
    config = train_supernet.config(*SETTINGS, f"runs_dir={run.parent}")
    return RunDirectory(str(run.parent), "before"), config, json.loads((run / "config.json").read_text())


def test_a_run_from_before_settings_existed_is_claimed(run: Path) -> None:
    directory, config, values = recorded(run)
    for phase in values["phases"].values():
        assert phase.pop("final_lr") == 0.0
    assert values["training"].pop("temperature") == 1.0
    (run / "config.json").write_text(json.dumps(values))
    claim_directory(directory, config)
    changed = dataclasses.replace(config, training=dataclasses.replace(config.training, temperature=2.0))
    with pytest.raises(UserError, match=r"training\.temperature was 1\.0 and is 2\.0"):
        claim_directory(directory, changed)


def test_a_run_with_settings_of_a_later_version_is_refused_by_name(run: Path) -> None:
    directory, config, values = recorded(run)
    values["training"]["gravity"] = 9.81
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"training\.gravity is not a setting.*choose another run_name"):
        claim_directory(directory, config)
