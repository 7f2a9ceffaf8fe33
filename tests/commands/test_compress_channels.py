"""The step `channels` of the command that compresses: fewer channels of any network, as its card says."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import own_models
import pytest
import torch
from compress_network import compress_network
from export_subnet import export_subnet
from train_supernet import train_supernet

import ofa.runs.channels
from ofa.common.errors import UserError
from ofa.compression.programs import TimedModule
from ofa.data.sources import load_data
from ofa.evaluation.evaluate import score
from ofa.export.bundle import load_bundle
from ofa.modules.cost import module_cost
from ofa.runs.compression_run import CompressionReport

NET = ("model=own_nets:Net", "model.weights=Net.pth", "data=digits", "run_name=net")
SHORT = (
    *("finetuning.epochs=1", "finetuning.batch_size=300", "harm_images=8", "calibration_images=50"),
    *("channels.candidates=2", "channels.divisor=4", "reconstruction_images=40", "formats=[]"),
    *("threads=1", "control=false"),
)
CHANNELS = (*NET, *SHORT, "steps=[channels]", "channels.macs_share=0.5", "name=channels")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module of networks, and a compression by `channels`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with own_models.own_model_folder(tmp_path_factory.mktemp("own"), patch) as folder:
            assert compress_network.run(*CHANNELS) is not None
            yield folder
    sys.modules.pop("own_nets", None)


def made_up(modules: Mapping[str, TimedModule]) -> dict[str, float]:
    """Return latencies that follow the MACs."""
    return {
        name: module_cost(program.module, program.input_shape).macs / 1e4 + 0.01
        for name, program in modules.items()
    }


def test_a_bundle_has_fewer_channels(folder: Path) -> None:
    bundle = load_bundle("runs/net/bundles/channels")
    facts = bundle.subnet.compression
    assert facts is not None and facts.shapes and not facts.changes and facts.text == "channels left out"
    compressed = bundle.card.provenance["compressed"]
    before, after = compressed["steps"]
    assert [before["name"], after["name"]] == ["uncompressed", "channels"]
    macs = module_cost(bundle.network, bundle.card.input_shape).macs
    assert macs == after["macs"] <= 0.5 * before["macs"]
    # The network of the card computes what was measured.
    data = load_data("digits")
    assert score(bundle.network, data.batches("test", 250, torch.device("cpu"))) == pytest.approx(
        compressed["test"]["compressed"]
    )


def test_what_was_made_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_bundle("runs/net/bundles/channels").network.state_dict()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(ofa.runs.channels, "make_elastic", fail)
    assert compress_network.run(*CHANNELS) is not None
    after = load_bundle("runs/net/bundles/channels").network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_splits_follow_within_a_share_of_the_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress_network.measured_ms", lambda _, modules: made_up(modules))
    settings = (*NET, *SHORT, "steps=[channels,split,finetune]", "channels.macs_share=0.6", "name=both")
    report = compress_network.run(*settings, "limits.latency_share=0.4", "device=my_cpu_onnx")
    assert isinstance(report, CompressionReport)
    steps = {step.name: step for step in report.compressed.steps}
    assert list(steps) == ["uncompressed", "channels", "split", "finetune"]
    latencies = {name: step.latency_ms or 0.0 for name, step in steps.items()}
    assert latencies["uncompressed"] > 1.5 * latencies["channels"] > latencies["split"]
    assert 0.25 < latencies["split"] / latencies["uncompressed"] <= 0.4
    bundle = load_bundle("runs/net/bundles/both")
    facts = bundle.subnet.compression
    assert facts is not None and facts.shapes and facts.changes
    assert module_cost(bundle.network, bundle.card.input_shape).macs == steps["split"].macs


def test_networks_of_a_family_are_narrowed_as_well(folder: Path) -> None:
    training = ("data=digits", "space=mobilenet_v3_tiny", "run_name=family", "threads=1")
    train_supernet.run(*training, *own_models.SHORT, "phases=quick")
    export_subnet.run("run_name=family", "subnet=smallest", "formats=[]", "threads=1")
    settings = ("run_name=family", "bundle=smallest", "steps=[channels]", "channels.macs_share=0.8", *SHORT)
    report = compress_network.run(*settings)
    assert isinstance(report, CompressionReport)
    bundle = load_bundle("runs/family/bundles/smallest-compressed")
    steps = report.compressed.steps
    assert module_cost(bundle.network, bundle.card.input_shape).macs == steps[-1].macs < 0.8 * steps[0].macs
    with pytest.raises(
        UserError, match="has fewer channels already .* channels would change its layers again"
    ):
        compress_network.run(
            *("run_name=family", "bundle=smallest-compressed", "steps=[channels]"),
            *("channels.macs_share=0.8", *SHORT),
        )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["steps=[channels]"], "The step channels and channels.macs_share, .* are given together"),
        (["steps=[finetune]", "channels.macs_share=0.5"], "are given together or not at all"),
        (["steps=[channels]", "channels.macs_share=1.5"], "channels.macs_share is 1.5; expected a share"),
        (["steps=[channels]", "channels.macs_share=0.01"], "smallest"),
        (["steps=[split,channels]", "channels.macs_share=0.5"], "channels comes before split"),
        (
            ["steps=[channels]", "channels.macs_share=0.5", "reconstruction_images=3"],
            "reconstruction_images is 3; expected at least 8",
        ),
    ],
)
def test_mistakes_are_explained(folder: Path, settings: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        compress_network.run(*NET, *SHORT, "name=wrong", *settings)
