"""The networks of a run: its bundles, of whatever module, and random sub-networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from any_modules import TwoBranches, random_images
from torch import nn

from ofa.common.errors import UserError
from ofa.data.preprocessing import Preprocessing
from ofa.evaluation.evaluate import SubnetEvaluator, logits_top1
from ofa.export.card import ModelCard, subnet_card
from ofa.export.evaluate import card_batches
from ofa.export.write import export_bundle
from ofa.runs.directory import RunDirectory
from ofa.runs.networks import run_networks
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

MakeSupernet = Callable[[StagedSpace, int], Supernet]
CPU = torch.device("cpu")


@pytest.fixture
def run(
    tmp_path: Path, micro_space: StagedSpace, make_supernet: Callable[[StagedSpace, int], Supernet]
) -> Any:
    """A run of a random supernet, with what `run_networks` needs of it."""
    return SimpleNamespace(
        directory=RunDirectory(str(tmp_path), "made"),
        supernet=make_supernet(micro_space, 0),
        data=random_images(micro_space.in_channels, 12, micro_space.num_classes),
        device=CPU,
        trained_space=micro_space,
    )


def card_of(module: nn.Module, data: Any) -> ModelCard:
    return ModelCard(
        name=type(module).__name__,
        input_shape=(2, 10, 10),
        preprocessing=Preprocessing(data.info.mean, data.info.std),
        class_names=data.info.class_names,
        provenance={"subnet": "by_hand"},
    )


def evaluated(run: Any, num_random: int) -> list[Any]:
    evaluator = SubnetEvaluator(run.supernet, run.data, "test", calibration_images=40)
    return list(run_networks(cast(Any, run), evaluator, "test", num_random=num_random, seed=3))


def test_bundles_come_first_and_random_networks_are_of_the_trained_space(run: Any) -> None:
    config, info = run.trained_space.smallest, run.data.info
    card = subnet_card(run.trained_space, config, info)
    export_bundle(run.supernet.extract(config).eval(), card, run.directory.bundles / "small", ())
    networks = evaluated(run, 2)
    assert [network.name for network in networks] == ["small", "", ""]
    assert networks[0].config == config and networks[0].image_shape == (2, 8, 8)
    assert all(run.trained_space.contains(network.config) for network in networks)
    assert all(0 <= network.values["top1"] <= 1 and not network.network.training for network in networks)


def test_a_module_of_no_space_runs_by_its_graph(run: Any) -> None:
    torch.manual_seed(0)
    module = TwoBranches(channels=2, num_classes=run.data.info.num_classes).eval()
    card = card_of(module, run.data)
    export_bundle(module, card, run.directory.bundles / "other", ["pt2"])
    (network,) = evaluated(run, 0)
    assert (network.config, network.subnet, network.image_shape) == (None, "by_hand", (2, 10, 10))
    assert network.values["top1"] == logits_top1(module, card_batches(card, run.data, "test"))


def test_a_module_without_a_graph_is_refused_by_name(run: Any) -> None:
    module = TwoBranches(channels=2, num_classes=run.data.info.num_classes).eval()
    export_bundle(module, card_of(module, run.data), run.directory.bundles / "other", ())
    with pytest.raises(UserError, match="architecture of 'TwoBranches' is not in the bundle"):
        evaluated(run, 0)


def test_a_bundle_of_other_classes_is_refused_by_name(run: Any) -> None:
    info = dataclasses.replace(run.data.info, class_names=tuple("vwxyz"))
    config = run.trained_space.smallest
    card = subnet_card(run.trained_space, config, info)
    export_bundle(run.supernet.extract(config).eval(), card, run.directory.bundles / "strange", ())
    run.data.info = dataclasses.replace(run.data.info, class_names=tuple("abcde"))
    with pytest.raises(UserError, match=r"strange tells 5 classes \(v, w, x, y, z\)"):
        evaluated(run, 0)
