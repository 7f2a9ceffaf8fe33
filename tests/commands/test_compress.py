"""The command that compresses a trained network: steps, measured plans, bundles, going on, and mistakes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import own_models
import pytest
import torch
from compress_network import compress_network
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from finetune_subnet import finetune_subnet
from onnx import numpy_helper
from torch import Tensor, nn
from train_supernet import train_supernet

import ofa.runs.compression_training
from ofa.common.errors import UserError
from ofa.compression.fake_quantisation import rounded_weight
from ofa.compression.programs import TimedModule
from ofa.compression.settings import SparsePattern
from ofa.data.sources import load_data
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.export.bundle import load_bundle
from ofa.modules.cost import module_cost
from ofa.runs import RunConfig, open_run
from ofa.runs.compression_run import CompressionReport
from ofa.runs.networks import run_networks
from ofa.runs.retarget import retargeted

NET = ("model=own_nets:Net", "model.weights=Net.pth", "model.divisor=4", "data=digits", "run_name=net")
SHORT = (
    *("finetuning.epochs=1", "finetuning.batch_size=300", "harm_images=8", "calibration_images=50"),
    *("quantisation_images=10", "formats=[]", "threads=1"),
)
SPLIT = (*NET, *SHORT, "steps=[split]", "limits.macs_share=0.7", "name=split")
ALL = (*NET, *SHORT, "steps=[split,sparse,finetune,int8]", "limits.macs_share=0.7", "formats=[onnx]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module of networks, and a compression by all steps and one by a split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with own_models.own_model_folder(tmp_path_factory.mktemp("own"), patch) as folder:
            assert compress_network.run(*ALL, "name=all") is not None
            assert compress_network.run(*SPLIT) is not None
            yield folder
    sys.modules.pop("own_nets", None)


def zeros_per_four(weight: Tensor) -> Tensor:
    """Return the number of zeros in each four input channels."""
    rows = torch.eq(weight, 0).movedim(1, -1)
    return rows.reshape(*rows.shape[:-1], -1, 4).sum(-1)


def test_a_bundle_has_what_the_steps_made(folder: Path) -> None:
    bundle = load_bundle("runs/net/bundles/all")
    facts = bundle.subnet.compression
    assert facts is not None and facts.pattern is not None
    assert {change.form for change in facts.changes} == {"split"}
    assert set(bundle.files) == {"weights", "onnx", "onnx_int8"}
    network = bundle.network
    macs = module_cost(network, bundle.card.input_shape).macs
    given = importlib.import_module("own_nets").Net()
    assert macs <= 0.7 * module_cost(given.eval(), bundle.card.input_shape).macs
    parameters = dict(network.named_parameters())
    for name in facts.sparse_layers:
        assert (zeros_per_four(parameters[f"{name}.weight"]) == 2).all()
    # The exported file has the same zeros, and nothing in it is computed from a mask.
    graph = onnx.load(str(bundle.file("onnx"))).graph
    weights = [torch.from_numpy(numpy_helper.to_array(entry).copy()) for entry in graph.initializer]
    sparse = [weight for weight in weights if weight.ndim == 4 and weight.shape[1] % 4 == 0]
    assert len(sparse) == sum(parameters[f"{name}.weight"].ndim == 4 for name in facts.sparse_layers)
    assert all((zeros_per_four(weight) == 2).all() for weight in sparse)
    assert {node.op_type for node in graph.node}.isdisjoint({"Mul", "Where"})


def test_a_card_tells_how_it_was_made(folder: Path) -> None:
    card = load_bundle("runs/net/bundles/all").card
    compressed = card.provenance["compressed"]
    assert compressed["settings"]["steps"] == ["split", "sparse", "finetune", "int8"]
    names = [step["name"] for step in compressed["steps"]]
    assert names == ["uncompressed", "split", "sparse", "finetune", "control"]
    assert compressed["source"]["model"]["name"] == "own_nets:Net"
    assert card.subnet is not None and card.subnet.compression is not None
    assert card.name.endswith(card.subnet.compression.digest)
    assert card.expected_metric is not None
    assert card.expected_metric.value == compressed["steps"][3]["value"]
    text = Path("runs/net/bundles/all/README.md").read_text()
    assert "compressed: " in text and "2 of 4 weights are zero" in text
    assert Path("runs/net/compression/all/steps.png").stat().st_size > 1000


def test_batch_norm_is_that_of_the_exported_network(folder: Path) -> None:
    network = load_bundle("runs/net/bundles/split").network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items() if "running" in name}
    data = load_data("digits")
    batches = data.batches("train", 250, torch.device("cpu"), 50)
    recalibrate_batchnorm(network, (images for images, _ in batches))
    for name, tensor in network.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(tensor, before[name], rtol=1e-4, atol=1e-5)


def test_a_second_run_has_nothing_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_bundle("runs/net/bundles/all").network.state_dict()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ofa.runs.compression_training, "fit", fail)
    assert compress_network.run(*ALL, "name=all") is not None
    after = load_bundle("runs/net/bundles/all").network.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_compression_of_an_earlier_version_goes_on(folder: Path) -> None:
    path = Path("runs/net/compression/all/record.json")
    record = json.loads(path.read_text())
    del record["settings"]["sparse"]["inputs"], record["settings"]["reconstruction_images"]
    path.write_text(json.dumps(record))
    assert compress_network.run(*ALL, "name=all") is not None


def test_a_bundle_is_evaluated_tuned_and_compressed_again(folder: Path) -> None:
    evaluate_subnet.run("run_name=net", "bundle=all", "latency=false", "format=onnx_int8", "split=validation")
    path = finetune_subnet.run(
        "run_name=net", "bundle=all", "data=digits", "name=tuned", "formats=[]", *SHORT[:2]
    )
    tuned, before = load_bundle(path), load_bundle("runs/net/bundles/all")
    facts = tuned.subnet.compression
    assert facts is not None and facts == before.subnet.compression
    assert not torch.equal(*(bundle.network.get_parameter("head.weight") for bundle in (tuned, before)))
    for name in facts.sparse_layers:
        assert (zeros_per_four(tuned.network.get_parameter(f"{name}.weight")) == 2).all()
    with pytest.raises(UserError, match="has zeros already .* split would lose or mix them"):
        compress_network.run("run_name=net", "bundle=all", "steps=[split]", "limits.macs_share=0.9", *SHORT)
    # One without zeros takes further steps; the earlier changes stay.
    report = compress_network.run(
        "run_name=net",
        "bundle=split",
        "steps=[tucker,sparse]",
        "limits.macs_share=0.97",
        "name=again",
        *SHORT,
    )
    assert report is not None
    again, first = (load_bundle(f"runs/net/bundles/{name}").subnet.compression for name in ("again", "split"))
    assert again is not None and first is not None
    assert again.changes[: len(first.changes)] == first.changes and len(again.changes) > len(first.changes)
    assert again.pattern is not None


def read_by(network: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return what a layer of a network reads."""
    read: list[Tensor] = []
    handle = network.get_submodule(name).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad():
        network(images)
    handle.remove()
    return read[0]


def test_zeros_of_inputs_are_in_bundles_files_and_further_trainings(folder: Path) -> None:
    settings = ("steps=[sparse,finetune,int8]", "sparse.share=0.75", "sparse.inputs=0.5", "formats=[onnx]")
    assert compress_network.run(*NET, *SHORT, *settings, "name=inputs") is not None
    evaluate_subnet.run("run_name=net", "bundle=inputs", "latency=false", "format=onnx_int8")
    path = finetune_subnet.run(
        "run_name=net", "bundle=inputs", "data=digits", "name=tuned_inputs", "formats=[]", *SHORT[:2]
    )
    images = torch.from_numpy(np.random.default_rng(0).random((1, 1, 8, 8), np.float32))
    for bundle in (load_bundle(Path("runs/net/bundles/inputs")), load_bundle(path)):
        facts = bundle.subnet.compression
        assert facts is not None and facts.pattern == SparsePattern(0.75, 4, 0.5)
        assert len(facts.sparse_layers) > 2
        for name in facts.sparse_layers:
            assert (zeros_per_four(read_by(bundle.network, name, images)) >= 2).all()


def test_other_classes_and_supernets_refuse_it(folder: Path) -> None:
    bundle, info = load_bundle("runs/net/bundles/split"), load_data("digits").info
    with pytest.raises(UserError, match="is compressed .* Fine-tune the bundle that it was made of"):
        retargeted(bundle, dataclasses.replace(info, class_names=("even", "odd")), seed=0)
    with pytest.raises(UserError, match="bundle of a compressed network .* which no supernet can start from"):
        train_supernet.run(*NET[:3], "run_name=new", "init=runs/net/bundles/split", *own_models.SHORT)


def made_up(modules: Mapping[str, TimedModule]) -> dict[str, float]:
    """Return latencies that follow the MACs; networks as a whole take a little longer than their layers."""
    latencies = {}
    for name, program in modules.items():
        cost = module_cost(program.module, program.input_shape)
        is_network = name in ("the network", "before", "after")
        latencies[name] = (1.1 if is_network else 1.0) * (cost.macs / 1e4 + 0.01)
    return latencies


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of programs of each measurement, whose latencies are made up."""
    counts: list[int] = []

    def measure(_: object, modules: Mapping[str, TimedModule]) -> dict[str, float]:
        counts.append(len(modules))
        return made_up(modules)

    monkeypatch.setattr("compress_network.measured_ms", measure)
    return counts


def test_a_limit_of_latency_is_kept_as_measured(
    folder: Path, measured: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (*NET, *SHORT, "steps=[split,tucker]", "device=my_cpu_onnx", "name=fast")
    assert compress_network.run(*settings, "limits.latency_share=0.9", "plan_only=true") is None
    output = capsys.readouterr().out
    assert "convolutions qualify" in output and "ms before" in output and "measured (" in output
    assert not Path("runs/net/bundles/fast").exists()
    first = measured.copy()
    assert first[0] > 10 and set(first[1:]) == {2}
    # Another limit uses what was measured.
    report = compress_network.run(*settings, "limits.latency_share=0.7")
    assert isinstance(report, CompressionReport)
    assert set(measured[len(first) :]) == {2}
    steps = {step.name: step.latency_ms for step in report.compressed.steps}
    before, after = steps["uncompressed"], steps["split+tucker"]
    assert before is not None and after is not None and after <= 0.7 * before
    card = load_bundle("runs/net/bundles/fast").card
    assert card.expected_latency_ms == {"latency_ms": after}
    assert card.latency_targets["latency_ms"].device == "my_cpu_onnx"
    with pytest.raises(UserError, match="A limit of .* ms cannot be reached"):
        compress_network.run(*settings, "name=tiny", "limits.latency_ms=0.001")


def test_what_gains_nothing_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress_network.measured_ms", lambda _, modules: dict.fromkeys(modules, 1.0))
    with pytest.raises(UserError, match="None of the .* takes less time .* gain nothing here"):
        compress_network.run(
            *NET, *SHORT, "steps=[split]", "device=my_cpu_onnx", "limits.latency_share=0.9", "name=none"
        )


def test_int8_is_planned_in_int8(
    folder: Path, measured: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("steps=[split,int8]", "device=my_cpu_onnx", "limits.latency_share=0.9", "plan_only=true")
    compress_network.run(*NET, *SHORT, *settings, "name=low")
    assert "everything is measured in int8, not fp32" in capsys.readouterr().out
    record = json.loads(Path("runs/net/compression/low/record.json").read_text())
    assert record["device"]["precision"] == "int8"


def test_numbers_are_rounded_in_a_training_for_int8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = compress_network.run(*NET, *SHORT, "steps=[qat,int8]", "formats=null", "name=rounded")
    assert report is not None
    assert [step.name for step in report.compressed.steps] == ["uncompressed", "qat", "control"]
    bundle = load_bundle("runs/net/bundles/rounded")
    assert set(bundle.files) == {"weights", "onnx", "onnx_int8"}
    for name in ("stem", "wide", "head"):
        weight = bundle.network.get_parameter(f"{name}.weight")
        assert torch.equal(rounded_weight(weight, 8), weight)
    # The engine's file has the ranges of the training, which further training would make wrong.
    assert bundle.subnet.compression is not None
    ranges = {own.layer: own.maximum - own.minimum for own in bundle.subnet.compression.input_ranges}
    assert set(ranges) == {"stem", "wide", "head", "blocks.0.conv", "blocks.1.conv"}
    model = onnx.load(bundle.path / "int8" / "model.onnx")
    scales = [float(value) for value in map(numpy_helper.to_array, model.graph.initializer) if not value.ndim]
    assert all(np.isclose(scales, value / 255, rtol=1e-5, atol=0).any() for value in ranges.values())
    short = ("data=digits", "formats=[]", *SHORT[:2])
    tuned = load_bundle(finetune_subnet.run("run_name=net", "bundle=rounded", "name=again", *short))
    assert tuned.subnet.compression is not None and not tuned.subnet.compression.input_ranges
    four = compress_network.run(*NET, *SHORT, "steps=[qat]", "weight_bits=4", "control=false", "name=four")
    assert four is not None
    weight = load_bundle("runs/net/bundles/four").network.get_parameter("head.weight")
    assert torch.unique(weight[0]).numel() <= 15


def test_a_precision_that_a_format_lacks_is_told_before_the_work(folder: Path) -> None:
    with pytest.raises(UserError, match="Format pt2 offers fp32"):
        compress_network.run(*NET, *SHORT, "steps=[finetune,int8]", "formats=[pt2]", "name=late")
    assert not Path("runs/net/compression/late").exists()


def test_too_large_a_loss_fails_after_the_bundle_is_written(folder: Path) -> None:
    settings = ("steps=[sparse]", "sparse.share=0.9", "sparse.block=null", "max_loss=0", "name=poor")
    with pytest.raises(UserError, match=r"loses .* more than max_loss=0.* bundle was written"):
        compress_network.run(*NET, *SHORT, *settings)
    assert load_bundle("runs/net/bundles/poor").network is not None


def test_other_settings_do_not_mix(folder: Path) -> None:
    with pytest.raises(UserError, match=r"holds a compression with other settings: .*macs_share"):
        compress_network.run(*ALL, "name=all", "limits.macs_share=0.8")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["steps=[]"], "There are no steps"),
        (["steps=[splitt]", "limits.macs_share=0.5"], "split"),
        (["steps=[split,split]", "limits.macs_share=0.5"], "split stands twice"),
        (["steps=[finetune,split]", "limits.macs_share=0.5"], "split comes before finetune: what is changed"),
        (["steps=[int8,finetune]"], "finetune comes before int8: a network in int8 cannot"),
        (["steps=[sparse,split]", "limits.macs_share=0.5"], "split comes before sparse: the zeros"),
        (["steps=[split]"], "split need a limit"),
        (["steps=[finetune]", "limits.macs_share=0.5"], "limits.macs_share belong to steps"),
        (["steps=[split]", "limits.macs_share=1.5"], "limits.macs_share is 1.5; expected a share"),
        (["steps=[split]", "limits.macs_share=0.5", "limits.latency_share=0.5"], "expected one limit"),
        (["steps=[split]", "limits.latency_ms=-1", "device=my_cpu"], "limits.latency_ms is -1"),
        (["steps=[split]", "limits.latency_share=0.5"], "limit of latency and a device are given together"),
        (["steps=[split]", "limits.macs_share=0.5", "device=my_cpu"], "are given together"),
        (["steps=[finetune]", "finetuning.epochs=0"], "finetuning.epochs is 0; expected at least 1"),
        (["steps=[finetune]", "harm_images=1"], "harm_images is 1"),
        (["steps=[qat]", "weight_bits=3"], "weight_bits is 3; expected 4 or 8"),
        (["steps=[qat,finetune]"], "finetune comes before qat: a further training would lose the rounding"),
        (["steps=[bf16,int8]"], "bf16 and int8 are two precisions"),
        (["steps=[finetune]", "max_loss=-1"], "max_loss is -1"),
        (["steps=[sparse]", "sparse.inputs=0.5"], "inputs of 0.5 need a share of 0.75 in blocks"),
        (["steps=[sparse]", "sparse.block=3"], "block is 3; expected 4, 8, 16, or null"),
        (["steps=[sparse]", "plan_only=true"], "plan_only is for steps that change"),
        (["steps=[sparse]", "bundle=all"], "bundle and model are given"),
        (["steps=[sparse]", "data=null"], "model needs its images"),
        (["steps=[sparse]", "model.ranks=[0.5]"], "model.ranks split convolutions for a supernet"),
    ],
)
def test_mistakes_are_explained(folder: Path, settings: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        compress_network.run(*NET, *settings)


def test_a_network_is_needed(folder: Path) -> None:
    with pytest.raises(UserError, match="There is no network"):
        compress_network.run("run_name=net", "steps=[sparse]")


def test_a_network_without_such_convolutions_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    train_supernet.run(
        *own_models.SHORT,
        "phases=small_uniform",
        "phases.largest.epochs=1",
        "phases.largest.warmup_epochs=0",
        "phases.uniform.epochs=1",
        "run_name=mobile",
    )
    export_subnet.run("run_name=mobile", "subnet=smallest", "formats=[]", "calibration_images=50")
    settings = ("run_name=mobile", "bundle=smallest", *SHORT)
    with pytest.raises(UserError, match=r"0 of \d+ convolutions qualify: .* grouped, \d+ with a 1x1 kernel"):
        compress_network.run(*settings, "steps=[split]", "limits.macs_share=0.5")
    report = compress_network.run(*settings, "steps=[sparse,finetune]", "control=false", "name=sparse")
    assert report is not None and [step.name for step in report.compressed.steps][-1] == "finetune"
    # A report has the costs of the compressed network, not of the one that it was.
    run = open_run(RunConfig(run_name="mobile"))
    evaluator = SubnetEvaluator(run.supernet, run.data, calibration_images=50)
    networks = {
        network.name: network for network in run_networks(run, evaluator, "validation", num_random=0, seed=0)
    }
    assert networks["smallest"].config is not None and networks["sparse"].config is None
    assert networks["sparse"].expected is not None
