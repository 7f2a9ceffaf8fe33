"""How many threads PyTorch and linear algebra use, in every library entry and command that computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import build_latency_table
import classify
import collect_accuracy
import compress_network
import evaluate_subnet
import export_subnet
import find_networks
import finetune_subnet
import fit_predictor
import import_network
import inspect_model
import make_device_kit
import numpy as np
import predict
import prune_model
import pytest
import quickstart
import report_run
import scipy.linalg
import search_for_device
import segment
import torch
import train_supernet
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from latency_tables.engines.registry import create_engine
from latency_tables.table.device import DeviceSpec
from ofa.architecture.cost import compile_cost, macs
from ofa.common.accelerator import choose_accelerator, threads_set
from ofa.common.errors import UserError
from ofa.common.metric import TOP1
from ofa.common.shipped import CONF
from ofa.common.threads import blas_threads
from ofa.launch import Command, compose
from ofa.space.estimator import Estimator
from ofa.space.genes import Genomes
from ofa.space.staged import StagedSpace
from predictors import fitting
from predictors.baselines import fit_baseline
from predictors.collection.active import next_batch
from predictors.model.predictor import AccuracyPredictor
from predictors.published.predictor import PublishedMLP, PublishedPredictor
from predictors.settings import FitSettings
from search.algorithms.registry import plan_search
from search.limits.limit import Limit
from search.limits.reachable import smallest_reachable

Array = NDArray[np.float64]
SMALL = FitSettings(hidden_units=16, members=2, max_iterations=2)


@pytest.fixture(autouse=True)
def two_of_each() -> Iterator[None]:
    """Two threads for PyTorch and BLAS, whatever the machine and its environment say."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        assert numbers() == {2}
        yield
    torch.set_num_threads(before)


def blas_numbers() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def numbers() -> set[int]:
    """Return the numbers of threads of NumPy's and SciPy's BLAS and of PyTorch."""
    assert scipy.linalg.norm(np.eye(2)) > 0  # it is loaded
    return {*blas_numbers(), torch.get_num_threads()}


class Probe:
    """An estimator that notes how many threads BLAS would use while it is asked."""

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator
        self.seen: set[int] = set()

    def __call__(self, genomes: Genomes, /) -> Array:
        self.seen.update(blas_numbers())
        return self.estimator(genomes)


@pytest.fixture
def size(micro_space: StagedSpace) -> Probe:
    return Probe(compile_cost(micro_space, macs))


def records(space: StagedSpace, count: int = 40) -> tuple[Genomes, Array]:
    genomes = np.unique(space.sample(count, np.random.default_rng(0)), axis=0)
    return genomes, 0.5 + 0.01 * np.random.default_rng(1).standard_normal(len(genomes))


def test_blas_threads_are_restored_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="boom"), blas_threads(1):
        assert set(blas_numbers()) == {1}
        assert torch.get_num_threads() == 2
        raise RuntimeError("boom")
    with blas_threads(None):
        assert numbers() == {2}


def test_a_setting_bounds_pytorch_and_linear_algebra() -> None:
    with pytest.raises(RuntimeError, match="boom"), threads_set(1):
        assert numbers() == {1}
        raise RuntimeError("boom")
    with threads_set(None):
        assert numbers() == {2}
    with pytest.raises(UserError, match="threads is 0"), threads_set(0):
        pass
    choose_accelerator("cpu", None)
    assert numbers() == {2}
    choose_accelerator("cpu", 1)
    assert numbers() == {1}


def test_an_engine_of_pytorch_bounds_linear_algebra() -> None:
    with create_engine(DeviceSpec("d", "pytorch", threads=1)).measuring():
        assert numbers() == {1}
    assert numbers() == {2}


@pytest.mark.parametrize("algorithm", ["evolution", "pareto", "random"])
def test_a_search_uses_one_thread_for_linear_algebra(
    micro_space: StagedSpace, size: Probe, algorithm: str
) -> None:
    accuracy = Probe(compile_cost(micro_space, macs))
    small = (
        {"evaluations": 60, "batch_size": 20}
        if algorithm == "random"
        else {"population_size": 20, "generations": 4}
    )
    plan = plan_search({"algorithm": algorithm, **small})
    plan.run(micro_space, accuracy, [Limit("macs", size, 1e9)], 0)
    assert accuracy.seen == size.seen == {1}
    assert numbers() == {2}


def test_the_descent_to_the_smallest_network_uses_one_thread(micro_space: StagedSpace, size: Probe) -> None:
    smallest_reachable(micro_space, size, np.random.default_rng(0))
    assert size.seen == {1}


def test_the_choice_of_networks_to_measure_uses_one_thread(micro_space: StagedSpace, size: Probe) -> None:
    next_batch(micro_space, *records(micro_space), 2, 0, size)
    assert size.seen == {1}
    assert numbers() == {2}


@pytest.mark.parametrize("threads", [1, 2])
def test_fits_use_the_threads_that_they_are_given(
    micro_space: StagedSpace, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    seen: list[set[int]] = []

    def note(*values: object) -> None:
        seen.append(set(blas_numbers()))

    def interval_factor(errors: Array) -> float:
        note()
        return 1.0

    def baseline(features: NDArray[np.float32], targets: Array, seed: int) -> Callable[..., Array]:
        def predict(rows: NDArray[np.float32]) -> Array:
            note()
            return np.arange(len(rows), dtype=np.float64)

        note()
        return predict

    genomes, top1 = records(micro_space)
    fitting.fit_mlp(micro_space, genomes, top1, SMALL, 0, report=note, threads=threads)
    fit_baseline(baseline, micro_space.encode(genomes), top1, 0, threads=threads)
    assert len(seen) == SMALL.max_iterations + 1
    monkeypatch.setattr("predictors.fitting.BASELINES", {"probe": baseline})
    monkeypatch.setattr("predictors.model.posterior._interval_factor", interval_factor)
    fitting.fit_predictor(micro_space, genomes, top1, SMALL, 0, {}, threads=threads)
    # Five folds, and the fit on all records.
    assert len(seen) == SMALL.max_iterations + 1 + (5 + 1) + 5 * 2
    assert all(found == {threads} for found in seen)
    assert numbers() == {2}


def test_fits_use_one_thread_by_default(micro_space: StagedSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def note(errors: Array) -> float:
        seen.extend(blas_numbers())
        return 1.0

    genomes, top1 = records(micro_space)
    monkeypatch.setattr("predictors.model.posterior._interval_factor", note)
    fitting.fit_predictor(micro_space, genomes, top1, SMALL, 0, {})
    assert set(seen) == {1}


def test_predictors_use_the_threads_that_they_are_given(
    micro_space: StagedSpace, full_space: StagedSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class NotingMLP(PublishedMLP):
        def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return inputs.sum(dim=1)

    genomes, top1 = records(micro_space)
    fitted = fitting.fit_mlp(micro_space, genomes, top1, SMALL, 0)
    fitted.network.hidden.register_forward_hook(lambda *values: seen.append(torch.get_num_threads()))
    for threads, expected in ((1, 1), (3, 3), (None, 2)):
        parts = fitted.features, fitted.network, fitted.scale, fitted.info
        predictor = AccuracyPredictor(*parts, threads=threads)
        predictor(genomes)
        predictor.uncertainty(genomes)
        PublishedPredictor(full_space, NotingMLP((), 0.0), "", threads=threads)(
            full_space.sample(2, np.random.default_rng(0))
        )
        assert seen == 3 * [expected]
        seen.clear()
    assert torch.get_num_threads() == 2
    fitted(genomes)
    PublishedPredictor(full_space, NotingMLP((), 0.0), "")(full_space.sample(2, np.random.default_rng(0)))
    assert seen == [1, 1]


class StopError(Exception):
    """Ends a command where it begins to compute."""


DATA = "ofa.runs.trained.load_data_settings"
TINY = "space=mobilenet_v3_tiny"
DURATION = "ofa.runs.duration.estimate_durations"
# Of each command: the function that it computes with, or what it calls just before, and its settings.
COMPUTES: dict[str, tuple[Command[Any, Any], str, tuple[str, ...]]] = {
    "train_supernet": (train_supernet.train_supernet, "ofa.runs.train.load_data", ()),
    "collect_accuracy": (collect_accuracy.collect_accuracy, DATA, ()),
    "evaluate_subnet": (evaluate_subnet.evaluate_subnet, DATA, ("bundle=b",)),
    "export_subnet": (export_subnet.export_subnet, DATA, ("subnet=largest",)),
    "finetune_subnet": (finetune_subnet.finetune_subnet, DATA, ("bundle=b",)),
    "report_run": (report_run.report_run, DATA, ()),
    "fit_predictor": (fit_predictor.fit_predictor, "predictors.fitting.fit", ()),
    "build_latency_table": (
        build_latency_table.build_latency_table,
        "latency_tables.measuring.tables.measure",
        (TINY,),
    ),
    "make_device_kit": (make_device_kit.make_device_kit, "latency_tables.remote.kit.make_table_kit", (TINY,)),
    "search_for_device": (
        search_for_device.search_for_device,
        "predictors.load.load_predictor",
        (TINY, "limits.macs_m=9"),
    ),
    "import_network": (
        import_network.import_network,
        "ofa.export.write.export_bundle",
        ("net_config=n", "weights=w"),
    ),
    "inspect_model": (
        inspect_model.inspect_model,
        "ofa.graph.from_settings.supernet_of",
        ("model=torchvision:resnet18",),
    ),
    "prune_model": (
        prune_model.prune_model,
        "ofa.data.sources.load_data",
        ("model=torchvision:resnet18", "macs_share=0.5"),
    ),
    "compress_network": (compress_network.compress_network, DATA, ("steps=[sparse]", "bundle=b")),
    "classify": (classify.classify, "ofa.export.bundle.load_bundle", ("bundle=.", f"images={CONF}")),
    "segment": (segment.segment, "ofa.export.bundle.load_bundle", ("bundle=.", f"images={CONF}")),
    "predict": (predict.predict, "ofa.export.bundle.load_bundle", ("bundle=.", f"images={CONF}")),
    "quickstart": (quickstart.quickstart, DURATION, ()),
    "find_networks": (find_networks.find_networks, DURATION, ("data=digits",)),
}


def test_the_commands_with_a_setting_are_known() -> None:
    with_threads = {path.stem for path in CONF.glob("*.yaml") if "threads" in compose(path.stem)}
    assert with_threads == set(COMPUTES)


@pytest.fixture
def without_files(monkeypatch: pytest.MonkeyPatch, micro_space: StagedSpace) -> None:
    """What some commands read before they compute."""
    read = SimpleNamespace(provenance={}, metric=TOP1, name="n", build=lambda weights: None)
    monkeypatch.setattr("ofa.runs.config.RunConfig.trained_space", micro_space)
    monkeypatch.setattr("predictors.records.RecordFile.read", lambda *_: read)
    monkeypatch.setattr("ofa.published.network.read_network", lambda *_: read)
    monkeypatch.setattr("ofa.published.bundle.photograph_card", lambda *_: read)


@pytest.mark.usefixtures("without_files")
@pytest.mark.parametrize("name", sorted(COMPUTES))
def test_the_setting_of_every_command_reaches_pytorch_and_linear_algebra(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compute(*values: object, **named: object) -> None:
        seen.append(numbers())
        raise StopError

    command, place, settings = COMPUTES[name]
    monkeypatch.setattr(place, compute)
    for threads in (1, 3):
        seen: list[set[int]] = []
        with pytest.raises(StopError):
            command.run(f"runs_dir={tmp_path}", f"threads={threads}", *settings)
        assert seen == [{threads}]


@pytest.mark.usefixtures("without_files")
@pytest.mark.parametrize(("name", "position"), [("fit_predictor", "threads"), ("search_for_device", 2)])
def test_the_setting_reaches_fit_and_predictor(
    name: str, position: int | str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compute(*values: object, **named: object) -> None:
        seen.append(named[position] if isinstance(position, str) else values[position])
        raise StopError

    command, place, settings = COMPUTES[name]
    monkeypatch.setattr(place, compute)
    seen: list[object] = []
    for threads in ((), ("threads=3",)):
        with pytest.raises(StopError):
            command.run(f"runs_dir={tmp_path}", *threads, *settings)
    assert seen == [1, 3]
    assert numbers() == {2}, "a command that is run in a program leaves its numbers"
