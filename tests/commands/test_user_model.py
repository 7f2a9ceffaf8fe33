"""A user's model the whole way by the commands: training, records, predictor, search, bundles."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import own_models
import pytest
import torch
from build_latency_table import build_latency_table
from collect_accuracy import collect_accuracy
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from finetune_subnet import finetune_subnet
from fit_predictor import fit_predictor
from make_device_kit import make_device_kit
from report_run import report_run
from search_for_device import search_for_device
from train_supernet import train_supernet

from latency_tables.table.load import load_table
from ofa.architecture.cost import space_costs
from ofa.common.errors import UserError
from ofa.common.tensors import load_tensors
from ofa.data.sources import load_data
from ofa.export import load_bundle
from ofa.export.write import export_bundle
from ofa.graph.supernet import GraphSupernet
from ofa.modules.cost import module_cost
from ofa.modules.split import composed_weight
from ofa.runs import RunConfig, open_run
from ofa.runs.retarget import retargeted
from predictors.baselines import BASELINES, LINEAR

NET = ("model=own_nets:Net", "model.weights=Net.pth", "model.divisor=4", "model.min_channels=8")
RANKS = (*NET, "model.ranks=[0.25,1]", "model.widths=[0.5,1]")
HALVES = ("model=own_nets:Halves", "model.weights=Halves.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run of each model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with own_models.own_model_folder(tmp_path_factory.mktemp("own"), patch) as folder:
            for name, settings in (("net", NET), ("halves", HALVES), ("ranks", RANKS)):
                train_supernet.run(*settings, *own_models.SHORT, f"run_name={name}")
            yield folder
    sys.modules.pop("own_nets", None)


def supernet_of(name: str) -> GraphSupernet:
    supernet = open_run(RunConfig(run_name=name)).supernet
    assert isinstance(supernet, GraphSupernet)
    return supernet


@pytest.mark.parametrize("name", ["net", "halves"])
def test_a_run_begins_with_the_weights_that_were_given(folder: Path, name: str) -> None:
    model = {"net": "Net", "halves": "Halves"}[name]
    given = torch.load(folder / f"{model}.pth", weights_only=True)
    first = load_tensors(folder / "runs" / name / "model.pt", "model")["state"]
    assert all(torch.equal(first[f"model.{key}"], tensor) for key, tensor in given.items())
    trained = supernet_of(name).state_dict()
    changed = [key for key in given if not torch.equal(trained[f"model.{key}"], given[key])]
    assert {key for key in given if not key.endswith("num_batches_tracked")} <= set(changed)


def test_the_whole_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
    collect_accuracy.run("run_name=net", "count=24", "calibration_images=64", "validation_images=100")
    fit_predictor.run("run_name=net")
    name, result = search_for_device.run(
        "run_name=net", "limits.macs_m=0.2", "search=random", "search.evaluations=2000"
    )
    config = result.best.config
    assert supernet_of("net").costs["macs"](supernet_of("net").space.genomes([config]))[0] <= 0.2e6
    path = export_subnet.run("run_name=net", f"subnet={name}", "formats=[onnx,openvino]", "precision=int8")
    assert "a network of the class that own_nets:Net makes" in capsys.readouterr().out
    bundle = load_bundle(path)
    assert type(bundle.network).__name__ == "Net"
    given = torch.load(folder / "Net.pth", weights_only=True)
    own_names = {key for key in given if not key.startswith("blocks.1.")}
    assert own_names <= set(bundle.network.state_dict())
    assert set(bundle.files) == {"weights", "onnx", "onnx_int8", "openvino", "openvino_int8"}
    evaluate_subnet.run("run_name=net", f"bundle={name}", "latency=false", "split=validation")
    tuned = finetune_subnet.run(
        "run_name=net", f"bundle={name}", "name=tuned", "finetuning.epochs=1", "formats=[pt2]"
    )
    assert type(load_bundle(tuned).network).__name__ == "Net"
    with pytest.raises(UserError, match="finetuning.epochs is 0; expected at least 1"):
        finetune_subnet.run("run_name=net", f"bundle={name}", "finetuning.epochs=0")


@pytest.mark.usefixtures("forked_measuring")
def test_a_measured_table_limits_a_verified_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
    collect_accuracy.run("run_name=net", "count=24", "calibration_images=64", "validation_images=100")
    fit_predictor.run("run_name=net")
    effort = ("device.rounds=2", "device.runs_per_visit=1", "device.warmup_runs=1", "device.processes=1")
    networks = ("calibration_networks=4", "validation_networks=4", "max_table_error=1000")
    table = build_latency_table.run("run_name=net", *effort, *networks)
    output = capsys.readouterr().out
    assert f"{len(table.entries)} pieces on PyTorch eager" in output
    assert "next: ofa search run_name=net" in output and "max_table_error=1000" in output
    assert load_table(folder / "runs" / "net" / "latency" / "my_cpu.json") == table
    search = ("run_name=net", *effort, "max_table_error=1000", "search.generations=3", "limits.latency_ms=99")
    verify = ("verify=true", "verification.turns=1", "verification.candidates=2", "verification.processes=1")
    name, result = search_for_device.run(*search, *verify)
    assert result.verification is not None and result.best.values["latency_ms"] <= 99
    export_subnet.run("run_name=net", f"subnet={name}", "formats=[]")
    rows = report_run.run("run_name=net", *effort, "random_networks=1", "calibration_images=60")
    assert all(row.predicted_ms is not None and row.measured_ms > 0 for row in rows)


def test_widths_and_ranks_are_searched_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_tensors(folder / "runs" / "ranks" / "model.pt", "model")["state"]
    factors = (first[f"model.wide.{number}.weight"] for number in (0, 1))
    given = torch.load(folder / "Net.pth", weights_only=True)["wide.weight"]
    torch.testing.assert_close(composed_weight(*factors), given, rtol=0, atol=1e-5)
    space = supernet_of("ranks").space
    ranks = [gene.name for gene in space.genes if gene.kind == "rank"]
    assert ranks == ["rank:blocks.0.conv", "rank:blocks.1.conv", "rank:wide"]
    monkeypatch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})
    collect_accuracy.run("run_name=ranks", "count=24", "calibration_images=64", "validation_images=100")
    fit_predictor.run("run_name=ranks")
    macs = supernet_of("ranks").costs["macs"]
    limit = float(macs(space.genomes([space.middle]))[0]) / 1e6
    name, result = search_for_device.run(
        "run_name=ranks", f"limits.macs_m={limit}", "search=random", "search.evaluations=2000"
    )
    path = export_subnet.run("run_name=ranks", f"subnet={name}", "formats=[onnx]")
    network = load_bundle(path).network
    counted = module_cost(network, (1, 8, 8))
    assert macs(space.genomes([result.best.config])) == counted.macs <= limit * 1e6
    tuned = finetune_subnet.run("run_name=ranks", f"bundle={name}", "finetuning.epochs=1", "formats=[]")
    assert type(load_bundle(tuned).network).__name__ == "Net"


def test_what_needs_a_family_refuses_a_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match="Kits and tables from whole networks are for the published families alone; .* the model",
    ):
        build_latency_table.run("run_name=net", f"from_kit={tmp_path}")
    with pytest.raises(UserError, match="is of the model .*published famil"):
        make_device_kit.run("run_name=net")


def test_a_bundle_for_other_classes_has_the_costs_of_its_network(folder: Path) -> None:
    path = export_subnet.run("run_name=net", "subnet=smallest", "formats=[]", "name=old")
    info = dataclasses.replace(load_data("digits").info, class_names=("even", "odd"))
    network, card, _ = retargeted(load_bundle(path), info, 0)
    assert card.subnet is not None and card.subnet.space.num_classes == 2
    space, config = card.subnet.space.unrestricted, card.subnet.config
    costs, counted = space_costs(space), module_cost(network, card.input_shape)
    assert costs["macs"](space.genomes([config])) == counted.macs
    assert costs["parameters"](space.genomes([config])) == counted.parameters
    export_bundle(network, card, folder / "other_classes", [])
    loaded = load_bundle(folder / "other_classes")
    assert loaded.subnet.space == card.subnet.space
    images = torch.rand(2, *card.input_shape)
    assert torch.equal(loaded.network(images), network(images))


def test_a_graph_goes_into_a_bundle_and_out_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = export_subnet.run("run_name=halves", "subnet=smallest", "formats=[onnx]")
    assert "a graph of the network that own_nets:Halves makes" in capsys.readouterr().out
    bundle = load_bundle(path)
    assert type(bundle.network).__name__ == "GraphModule"
    assert set(bundle.network.state_dict()) >= {"stem.weight", "norm.running_mean", "head.bias"}
    tuned = finetune_subnet.run(
        "run_name=halves", "bundle=smallest", "name=tuned", "finetuning.epochs=1", "formats=[]"
    )
    images = torch.rand(3, 1, 8, 8)
    assert not torch.equal(load_bundle(tuned).network(images), bundle.network(images))


def test_code_of_a_foreign_run_or_bundle_is_not_called(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = export_subnet.run("run_name=net", "subnet=middle", "formats=[onnx]")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # As on another machine.
    text = "made by own_nets:Net, and the file that says so was not made on this machine"
    with pytest.raises(UserError, match=text):
        collect_accuracy.run("run_name=net")
    bundle = load_bundle(path)
    with pytest.raises(UserError, match=text + r"[\s\S]*ofa inspect model=own_nets:Net"):
        _ = bundle.network
    # What needs no code of its maker works.
    assert evaluate_subnet.run("run_name=net", "bundle=middle", "format=onnx", "latency=false") is not None


def test_a_training_goes_on_without_converting_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("converted again")

    before = supernet_of("net").state_dict()
    monkeypatch.setattr("ofa.runs.user_model.noted_conversion", refuse)
    monkeypatch.setattr("ofa.runs.train.save_first_supernet", refuse)
    (folder / "Net.pth").rename(folder / "moved.pth")
    train_supernet.run(*NET, *own_models.SHORT, "run_name=net")
    (folder / "moved.pth").rename(folder / "Net.pth")
    assert "going on after step" in capsys.readouterr().out
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet_of("net").state_dict().items())
    with pytest.raises(UserError, match="began with other weights than model.weights=Halves.pth"):
        train_supernet.run(*NET[:1], "model.weights=Halves.pth", *NET[2:], *own_models.SHORT, "run_name=net")
    with pytest.raises(UserError, match="model.divisor was 4 and is 8"):
        train_supernet.run(*NET[:2], *own_models.SHORT, "run_name=net")


def test_a_run_starts_from_another_one_of_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_supernet.run(*NET, *own_models.SHORT, "run_name=second", "init=net")
    assert "weights of net: " in capsys.readouterr().out
    with pytest.raises(UserError, match="Net.pth is a file of weights; a user's model takes it as model.we"):
        train_supernet.run(*NET, *own_models.SHORT, "run_name=third", "init=Net.pth")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["model=own_nets:Net", "space=mobilenet_v3_tiny"], "There is a space and a model"),
        (["space=null"], "There is neither space nor model"),
        (["model.widths=[0.5,1.0]"], "widths need the name of a network"),
        ([*NET, "training.dropout=0.1"], "a user's model has its own"),
        (["model=torchvision:resnet18"], "no network is trained before it: give weights"),
        ([*NET, "model.kwargs.classes=7"], "weights Net.pth for own_nets:Net does not have the expected"),
        ([*NET, "model.weights=none.pth"], "none.pth"),
        (
            ["model=own_nets:Net", "model.kwargs.classes=7"],
            "classifier is new .* Choose phases that",
        ),
    ],
)
def test_mistakes_are_explained(folder: Path, settings: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        train_supernet.run(*settings, "run_name=wrong")
    assert not (folder / "runs" / "wrong").exists()
