"""The command that prunes a user's model: both methods, files, a run that goes on, and its mistakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from prune_model import measured_ms, prune_model
from safetensors.torch import load_file
from torch import nn

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.sources import load_data
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.export.bundle import load_bundle
from ofa.runs.pruned import PrunedNetwork
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

SOURCE = """
from torch import nn

def small(width=16):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )
"""
FULL_MACS = 64 * 9 * 16 + 64 * 9 * 16 * 32 + 1280
COMMON = (
    *("model=pruned_module:small", "model.weights=trained.pt", "model.divisor=4", "data=digits"),
    *("finetuning.batch_size=100", "finetuning.lr=0.02", "calibration_images=200", "threads=1", "formats=[]"),
)
ONE_STEP = ("macs_share=0.5", "candidates=4", "finetuning.epochs=1", "run_name=one")
STEPS = ("method=iterative", "steps=2", "points=2", "finetuning.epochs=2", "run_name=steps")


def made() -> nn.Module:
    """Return the network with random weights."""
    namespace: dict[str, Any] = {}
    exec(SOURCE, namespace)
    network: nn.Module = namespace["small"]()
    return network


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that were trained for some seconds."""
    torch.manual_seed(0)
    network = made()
    settings = FinetuneSettings(3, 0.05, 64, 0.9, 0.0, 0.0, 0.0, 0)
    fit(network, load_data("digits"), settings, resolution=8)
    path = tmp_path_factory.mktemp("trained") / "trained.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def folder(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pruned_module.py").write_text(SOURCE)
    (tmp_path / "trained.pt").write_bytes(weights.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "pruned_module", raising=False)
    return tmp_path


def width_of(network: nn.Module) -> int:
    return len(network.state_dict()["0.weight"])


def same(first: PrunedNetwork, second: PrunedNetwork) -> bool:
    states = first.network.state_dict(), second.network.state_dict()
    return first.config == second.config and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def check_files(folder: Path, pruned: PrunedNetwork, name: str = "pruned") -> None:
    """Check that the network can be had from its files as they say."""
    values = json.loads((folder / f"{name}.json").read_text())
    saved = load_file(folder / f"{name}.safetensors")
    assert f'"bundles/{name}"' in values["how_to_load"][1]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in pruned.network.state_dict().items())
    bundle = load_bundle(folder / f"bundles/{name}")
    assert bundle.subnet.config == pruned.config and bundle.card.expected_metric is not None
    assert bundle.card.expected_metric.value == pruned.after
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(bundle.network(images), pruned.network(images))
    units = {name: counts["pruned"] for name, counts in values["units"].items()}
    assert units == {"0": saved["0.weight"].shape[0], "3": saved["3.weight"].shape[0]}
    assert values["costs"]["macs"]["original"] == FULL_MACS
    assert values["test"]["pruned"] == pruned.test and values["class_names"] == list("0123456789")
    assert values["is_own_class"]


def test_a_network_is_pruned_in_one_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = prune_model.run(*COMMON, *ONE_STEP)
    printed = capsys.readouterr().out
    assert pruned.costs["macs"][1] <= 0.5 * FULL_MACS < 1.2 * pruned.costs["macs"][1]
    assert isinstance(pruned.network, nn.Sequential) and not pruned.network.training
    check_files(folder / "runs/one", pruned)
    assert pruned.test > 0.5 and pruned.after >= pruned.before
    assert "4 candidates within the limits" in printed and "\n".join(pruned.lines) in printed
    assert len((folder / "runs/one/pruning/one_step/candidates.jsonl").read_text().splitlines()) == 4


def test_several_shares_are_made_from_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller network begins as a part of the larger one that is tuned, and the original teaches both."""
    teachers, starts = [], []

    def watched(network: nn.Module, *args: object, teacher: nn.Module, **named: object) -> None:
        teachers.append({name: value.clone() for name, value in teacher.state_dict().items()})
        starts.append(network.state_dict()["0.weight"].clone())
        fit(network, *args, teacher=teacher, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("ofa.runs.pruning.fit", watched)
    settings = ("macs_share=[0.5,0.75]", "candidates=3", "finetuning.epochs=1", "run_name=two")
    smallest = prune_model.run(*COMMON, *settings)
    run = folder / "runs/two"
    assert smallest.costs["macs"] == (FULL_MACS, smallest.costs["macs"][1])
    check_files(run, smallest, "pruned-50")
    larger = load_bundle(run / "bundles/pruned-75").network
    assert width_of(larger) > width_of(smallest.network)
    first = torch.load("trained.pt", weights_only=True)["0.weight"]
    assert all(torch.equal(teacher["0.weight"].sum(), first.sum()) for teacher in teachers)
    channels = {tuple(channel.flatten().tolist()) for channel in larger.state_dict()["0.weight"]}
    assert {tuple(channel.flatten().tolist()) for channel in starts[1]} <= channels
    assert same(prune_model.run(*COMMON, *settings), smallest) and len(starts) == 2
    names = {path.name for path in (run / "bundles").iterdir() if not path.name.startswith(".")}
    assert names == {"pruned-75", "pruned-50"}


def test_a_network_is_pruned_in_steps(folder: Path) -> None:
    pruned = prune_model.run(*COMMON, *STEPS, "limits.parameters_m=0.0025", "importance=taylor")
    assert pruned.costs["parameters"][1] <= 2500
    check_files(folder / "runs/steps", pruned)
    steps = folder / "runs/steps/pruning"
    for number in (1, 2):
        assert (steps / f"step_{number}/sensitivity.png").read_bytes().startswith(b"\x89PNG")
        lines = (steps / f"step_{number}/sensitivity.jsonl").read_text().splitlines()
        assert 3 <= len(lines) <= 5
        assert not (steps / f"step_{number}/checkpoints").exists()


@pytest.mark.parametrize("settings", [ONE_STEP, (*STEPS, "macs_share=0.4")])
def test_a_pruning_that_was_interrupted_goes_on(
    folder: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends during the analysis, then in the fine-tuning; nothing is evaluated or trained twice."""
    expected = prune_model.run(*COMMON, *settings, "runs_dir=other")
    num_calls = []

    def counted(network: nn.Module, batches: object) -> None:
        num_calls.append(1)
        if len(num_calls) == stop_after:
            raise KeyboardInterrupt
        original(network, batches)  # type: ignore[arg-type]

    original, stop_after = recalibrate_batchnorm, 3
    monkeypatch.setattr("ofa.evaluation.evaluate.recalibrate_batchnorm", counted)
    with pytest.raises(KeyboardInterrupt):
        prune_model.run(*COMMON, *settings)
    num_calls.clear()
    stop_after = -1

    def broken_off(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ofa.runs.pruning.fit", broken_off)
    with pytest.raises(KeyboardInterrupt):
        prune_model.run(*COMMON, *settings)
    assert len(num_calls) > 1
    num_calls.clear()
    monkeypatch.setattr("ofa.runs.pruning.fit", fit)
    assert same(prune_model.run(*COMMON, *settings), expected)
    first_count = len(num_calls)
    num_calls.clear()
    monkeypatch.setattr("ofa.runs.pruning.fit", broken_off)
    assert same(prune_model.run(*COMMON, *settings), expected)
    assert not num_calls and first_count > 0


def test_a_pruning_goes_on_without_converting_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first start ends at a limit out of reach; weights that are gone are not needed any more."""
    with pytest.raises(UserError, match="The limit of macs is"):
        prune_model.run(*COMMON, *ONE_STEP, "macs_share=0.001")
    kept = (folder / "runs/one/pruning/model.pt").read_bytes()
    expected = prune_model.run(*COMMON, *ONE_STEP, "runs_dir=other")
    monkeypatch.setattr(
        "ofa.runs.pruning_run.noted_conversion", lambda *_: pytest.fail("it was converted again")
    )
    assert same(prune_model.run(*COMMON, *ONE_STEP), expected)
    (folder / "trained.pt").unlink()
    assert same(prune_model.run(*COMMON, *ONE_STEP), expected)
    assert (folder / "runs/one/pruning/model.pt").read_bytes() == kept
    (folder / "runs/one/pruning/model.json").write_text("{}")
    with pytest.raises(UserError, match=r"Delete \S+model\.pt to convert the network again"):
        prune_model.run(*COMMON, *ONE_STEP)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("model.divisor=8", r"model\.divisor was 4 and is 8"),
        ("model.weights=others.pt", r"model\.weights_digest was"),
        ("seed=1", r"pruning\.seed was 0 and is 1"),
    ],
)
def test_a_kept_network_of_other_settings_is_not_taken(folder: Path, setting: str, text: str) -> None:
    torch.save(made().state_dict(), folder / "others.pt")
    prune_model.run(*COMMON, *ONE_STEP)
    kept = (folder / "runs/one/pruning/model.pt").read_bytes()
    with pytest.raises(UserError, match=text):
        prune_model.run(*COMMON, *ONE_STEP, setting)
    assert (folder / "runs/one/pruning/model.pt").read_bytes() == kept


def test_a_folder_without_results_takes_another_network(folder: Path) -> None:
    with pytest.raises(UserError, match="The limit of macs is"):
        prune_model.run(*COMMON, *ONE_STEP, "macs_share=0.001")
    kept = (folder / "runs/one/pruning/model.pt").read_bytes()
    pruned = prune_model.run(*COMMON, *ONE_STEP, "model.divisor=8")
    assert same(pruned, prune_model.run(*COMMON, *ONE_STEP, "model.divisor=8", "runs_dir=other"))
    # As after a kill between the two files.
    (folder / "runs/one/pruning/model.pt").write_bytes(kept)
    assert same(pruned, prune_model.run(*COMMON, *ONE_STEP, "model.divisor=8"))


def test_without_training_the_network_is_only_recalibrated(folder: Path) -> None:
    pruned = prune_model.run(*COMMON, "macs_share=0.6", "candidates=2", "finetuning.epochs=0")
    assert pruned.before == pruned.after


@pytest.mark.parametrize("settings", [("candidates=3",), ("method=iterative", "steps=2", "points=1")])
def test_a_limit_of_latency_is_measured(
    folder: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is measured while no other progress bar is open: a terminal shows one at a time."""
    open_bars: list[str] = []

    @contextmanager
    def bar(description: str) -> Iterator[ProgressCallback]:
        assert not open_bars
        open_bars.append(description)
        yield silent
        open_bars.clear()

    def measured(device: object, seed: int, networks: list[nn.Module], shape: tuple[int, ...]) -> list[float]:
        assert shape == (1, 8, 8) and not open_bars
        return [width_of(network) / 10 for network in networks]

    monkeypatch.setattr("prune_model.progress_bar", bar)
    monkeypatch.setattr("prune_model.measured_ms", measured)
    limits = ("limits.latency_ms=0.85", "device=my_cpu", "finetuning.epochs=1")
    pruned = prune_model.run(*COMMON, *limits, *settings)
    assert pruned.costs["latency_ms"] == (1.6, width_of(pruned.network) / 10)
    assert pruned.costs["latency_ms"][1] <= 0.85


def test_networks_are_measured_on_a_device(folder: Path) -> None:
    config = prune_model.config(
        *COMMON, "limits.latency_ms=1", "device=my_cpu", "device.min_rounds=1", "device.rounds=2"
    )
    networks = [nn.Conv2d(1, 4, 3).eval(), nn.Conv2d(1, 8, 3).eval()]
    assert config.device is not None
    first, second = measured_ms(config.device, 0, networks, (1, 8, 8))
    assert first > 0 and second > 0


def test_a_folder_of_another_pruning_is_refused(folder: Path) -> None:
    prune_model.run(*COMMON, *ONE_STEP)
    words = r"pruning\.macs_share was 0\.5 and is 0\.6; pruning\.candidates was 4 and is 5"
    with pytest.raises(UserError, match=words):
        prune_model.run(*COMMON, *ONE_STEP, "macs_share=0.6", "candidates=5")


def test_a_pruning_of_an_earlier_version_goes_on(folder: Path) -> None:
    expected = prune_model.run(*COMMON, *ONE_STEP)
    path = folder / "runs/one/pruning.json"
    record = json.loads(path.read_text())
    del record["pruning"]["reconstruction_images"], record["model"]["min_pointwise_width"]
    path.write_text(json.dumps(record))
    # The kept conversion as well: nothing is converted again.
    twin = folder / "runs/one/pruning/model.json"
    values = json.loads(twin.read_text())
    del values["provenance"]["conversion"]["model"]["min_pointwise_width"]
    twin.write_text(json.dumps(values))
    with patch("ofa.runs.conversion.convert_for", side_effect=AssertionError("converted again")):
        assert same(prune_model.run(*COMMON, *ONE_STEP), expected)
    path.write_text("{}")
    with pytest.raises(UserError, match="holds a pruning with other settings"):
        prune_model.run(*COMMON, *ONE_STEP)


def test_a_folder_without_results_takes_other_settings(folder: Path) -> None:
    with pytest.raises(UserError, match="The limit of macs is"):
        prune_model.run(*COMMON, *ONE_STEP, "macs_share=0.001")
    assert prune_model.run(*COMMON, *ONE_STEP).costs["macs"][1] < FULL_MACS


def test_latencies_of_a_limit_out_of_reach_do_not_bind_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(device: object, seed: int, networks: list[nn.Module], shape: object) -> list[float]:
        return [width_of(network) / 10 for network in networks]

    monkeypatch.setattr("prune_model.measured_ms", measured)
    device = ("device=my_cpu", "candidates=2", "finetuning.epochs=0")
    with pytest.raises(UserError, match=r"The limit of latency_ms is 0\.1; the smallest .* has 0\.4"):
        prune_model.run(*COMMON, "limits.latency_ms=0.1", *device)
    prune_model.run(*COMMON, "limits.latency_ms=1", *device)
    with pytest.raises(UserError, match=r"device\.threads was 1 and is 2"):
        prune_model.run(*COMMON, "limits.latency_ms=1", *device, "device.threads=2")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            ["macs_share=0.001"],
            r"The limit of macs is 305\.4\d*; the smallest network of Sequential has 11680\.",
        ),
        (["limits.macs_m=0.001"], "The limit of macs is 1000; the smallest network"),
        (["method=iterative", "limits.parameters_m=0.0001"], "The limit of parameters is 100; the smallest"),
        (["macs_share=1.5"], r"macs_share is 1\.5; expected a share between 0 and 1"),
        (["macs_share=0"], "macs_share is 0; expected a share between 0 and 1"),
        ([], "There is no limit; give macs_share, or one of limits"),
        (["macs_share=0.5", "limits.macs_m=1"], "macs_share and limits.macs_m both limit the MACs"),
        (["macs_share=0.5", "method=onestep"], "Unknown method 'onestep'; .* Did you mean 'one_step'"),
        (["macs_share=[]"], "expected shares that differ by a percent or more"),
        (["macs_share=[0.5,0.501]"], "expected shares that differ by a percent or more"),
        (["macs_share=[0.5,1.5]"], "macs_share is 1.5; expected a share between 0 and 1"),
        (["macs_share=0.5", "importance=l2"], "Unknown importance 'l2'"),
        (["macs_share=0.5", "method=iterative", "steps=0"], "steps is 0; expected at least 1"),
        (
            ["macs_share=0.5", "candidates=0", "validation_images=0"],
            "candidates is 0; .* validation_images is 0",
        ),
        (["limits.latency_ms=1"], r"limits\.latency_ms and device are given together"),
        (["macs_share=0.5", "device=my_cpu"], r"limits\.latency_ms and device are given together"),
        (["macs_share=0.5", "model.resolutions=[8,16]"], "a network is pruned at one resolution"),
        (["macs_share=0.5", "model.ranks=[0.5]"], "model.ranks split convolutions .* ofa compress steps"),
        (["macs_share=0.5", "model.rules=[{pattern: '3', ranks: [0.5]}]"], "leave them empty here"),
        (["macs_share=0.5", "finetuning.epochs=-1"], "epochs and steps must not be negative"),
    ],
)
def test_mistakes_are_explained(folder: Path, settings: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        prune_model.run(*COMMON, *settings)
