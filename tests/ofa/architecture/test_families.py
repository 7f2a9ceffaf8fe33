"""Every family goes the whole way: train, collect, fit, measure, search, export; on real engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from build_latency_table import build_latency_table
from collect_accuracy import collect_accuracy
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from fit_predictor import fit_predictor
from search_for_device import search_for_device
from train_supernet import train_supernet

from ofa.architecture.cost import compile_cost, macs
from ofa.architecture.lowering import distinct_layers
from ofa.data.settings import DataInfo
from ofa.export.card import subnet_card
from ofa.export.write import export_bundle
from ofa.modules.static import static_layer
from ofa.runs.supernet_file import load_supernet
from ofa.runtimes.onnx_export import export_onnx
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet
from ofa.training.phases import Phase
from predictors.collection.sampling import plan_subnets
from predictors.records import RecordFile

FAMILIES = ["micro_proxyless", "micro_resnet", "micro_resnet_rank"]
QUICK = (
    *(f"phases.{phase}.epochs=1" for phase in ("largest", "width_1", "width_2")),
    *(f"~phases.{phase}" for phase in ("kernel", "depth_1")),
    "phases.largest.warmup_epochs=0",
    "training.batch_size=400",
    "training.validation_images=50",
    "training.calibration_images=100",
)
FAST_TIMING = (
    "device.rounds=2",
    "device.runs_per_visit=1",
    "device.warmup_runs=1",
    "device.processes=1",
)


@pytest.fixture(params=FAMILIES)
def space(request: pytest.FixtureRequest) -> StagedSpace:
    value: StagedSpace = request.getfixturevalue(request.param)
    return value


def overrides(space: StagedSpace) -> list[str]:
    """Return the command-line settings that describe `space`."""
    values = space.to_dict()
    return [f"++space.{name}={json.dumps(value).replace(chr(34), '')}" for name, value in values.items()]


def test_the_whole_pipeline(space: StagedSpace, tmp_path: Path) -> None:
    common = (f"runs_dir={tmp_path}", f"run_name={space.name}")
    checkpoint = train_supernet.run(*common, *overrides(space), *QUICK)
    trained = load_supernet(checkpoint)[1].family
    assert (trained.family, trained.stages, trained.stem) == (space.family, space.stages, space.stem)
    collect_accuracy.run(*common, "count=30", "calibration_images=60", "validation_images=60")
    fit_predictor.run(*common)
    table = build_latency_table.run(*common, *FAST_TIMING, "max_table_error=1000")
    assert set(table.entries) == {spec.key for spec in distinct_layers(trained)}
    smallest, largest = (
        compile_cost(trained, macs)(trained.genomes([trained.smallest, trained.largest])) / 1e6
    )
    limits = ("limits.latency_ms=1000", f"limits.macs_m={(smallest * largest) ** 0.5}")
    name, result = search_for_device.run(
        *common, *FAST_TIMING, *limits, "search.generations=5", "name=chosen", "max_table_error=1000"
    )
    assert trained.contains(result.best.config)
    assert result.best.values["macs_m"] <= (smallest * largest) ** 0.5
    export_subnet.run(*common, f"subnet={name}", "calibration_images=60", "formats=[]")
    accuracy, latency_ms = evaluate_subnet.run(*common, *FAST_TIMING, "bundle=chosen")
    assert 0 <= accuracy <= 1 and latency_ms is not None and latency_ms > 0


def test_after_a_compound_training_all_stages_stay_compound(
    micro_proxyless: StagedSpace, tmp_path: Path
) -> None:
    common = (f"runs_dir={tmp_path}", f"run_name={micro_proxyless.name}")
    epochs = ("phases.largest.epochs=1", "phases.compound.epochs=1", "phases.largest.warmup_epochs=0")
    recipe = ("phases=small_compound", *epochs, *(o for o in QUICK if o.startswith("training.")))
    info = load_supernet(train_supernet.run(*common, *overrides(micro_proxyless), *recipe))[1]
    compound = info.space.restrict(compound=True)
    count = min(30, compound.size)
    records = collect_accuracy.run(*common, f"count={count}", "calibration_images=60", "validation_images=60")
    measured = RecordFile.read(records, info.space).configs
    assert len(measured) == count and all(map(compound.contains, measured))
    fit_predictor.run(*common)
    result = search_for_device.run(
        *common, "limits.latency_ms=null", "limits.macs_m=1000", "search.generations=5"
    )[1]
    assert compound.contains(result.best.config)


def test_exported_formats_compute_the_same(
    space: StagedSpace, make_supernet: Callable[[StagedSpace, int], Supernet], tmp_path: Path
) -> None:
    config = space.largest
    network = make_supernet(space, 0).extract(config)
    mean, std = (0.5,) * space.in_channels, (0.25,) * space.in_channels
    card = subnet_card(space, config, DataInfo("toy", space.in_channels, tuple("abcde"), mean, std))
    report = export_bundle(network, card, tmp_path / "bundle")
    assert set(report.files) == {"weights", "onnx", "pt2"}


def test_every_kind_of_layer_runs_in_onnx_runtime(space: StagedSpace) -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = {}
    for spec in distinct_layers(space.restrict({"resolution": space.resolutions[-1:]})):
        odd = spec.input_size % 2
        kinds[type(spec), odd, spec.residual, len(spec.operators)] = spec
    for spec in kinds.values():
        shape = (2, spec.in_channels, spec.input_size, spec.input_size)
        images = torch.randn(shape, generator=generator)
        layer = static_layer(spec).eval()
        session = onnxruntime.InferenceSession(export_onnx(layer, images), providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        expected = layer(images).detach().numpy()
        assert expected.shape[1] == spec.out_channels
        np.testing.assert_allclose(output, expected, atol=1e-5, err_msg=spec.key)


def test_a_plan_enumerates_small_spaces(space: StagedSpace) -> None:
    few = space.keep_largest({"resolution": 1, "width": 2, "kernel_size": 1, "expand_ratio": 1})
    genomes = plan_subnets(few, few.size, 0, compile_cost(space, macs))
    assert {row.tobytes() for row in genomes} == {row.tobytes() for row in few.all_genomes()}


def test_phases_open_widths_and_stem(micro_resnet: StagedSpace) -> None:
    largest = Phase(1, 0.1, kernel_sizes=1, depths=1, expand_ratios=1, widths=1).space(micro_resnet)
    assert largest.size == len(micro_resnet.resolutions)
    deeper = Phase(1, 0.1, expand_ratios=1, widths=1).space(micro_resnet)
    assert deeper.size == 2 * 2 * (2 * 2)
    wider = Phase(1, 0.1, depths=1, expand_ratios=1, widths=2).space(micro_resnet)
    assert wider.size == 2 * (2 * 2) * (2 * 2)
    assert Phase(1, 0.1).space(micro_resnet).size == micro_resnet.size
