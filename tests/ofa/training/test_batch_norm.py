"""Batches that leave a batch norm with one value per channel are refused before anything is made."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from train_supernet import train_supernet
from training_run import PHASES, SPACE, STRATEGIES, make_data, make_trainer

from ofa.common.distributed import World
from ofa.common.errors import UserError
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import build_supernet
from ofa.training.batch_norm import batch_norms, values_per_image
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

# Maps of one pixel at 4 px, of two by two at 8 px.
NARROW = dataclasses.replace(SPACE, resolutions=(4, 8))
SETTINGS = FinetuneSettings(1, 0.1, 1, 0.9, 0.0, 0.0, 0.0, 0)


def test_the_smallest_map_is_counted_on_the_network_itself(micro_resnet: StagedSpace) -> None:
    for space, resolution, side in ((SPACE, 8, 2), (SPACE, 12, 3), (NARROW, 4, 1), (micro_resnet, 16, 2)):
        supernet = build_supernet(space)
        config = space.restrict({"resolution": (resolution,)}).smallest
        images = torch.zeros(1, space.in_channels, resolution, resolution)
        network = supernet.extract(config).train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert values_per_image(network, network, images) == side**2
        assert values_per_image(supernet, partial(supernet, config=config), images) == side**2
        assert network.training and all(norm.training for norm in batch_norms(network))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert values_per_image(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 3, 3)) is None


def test_one_image_and_maps_of_one_pixel_are_refused(tmp_path: Path) -> None:
    message = (
        r"at 4 px the smallest feature map is 1 x 1: batch_size is 1, one image; expected at least 2\. "
        r"Change that, or leave out the resolutions below 8 px\."
    )
    with pytest.raises(UserError, match=message):
        make_trainer(tmp_path / "run", space=NARROW, batch_size=1)
    assert not (tmp_path / "run").exists()
    make_trainer(tmp_path / "run", space=NARROW, batch_size=2)
    make_trainer(tmp_path / "run", space=SPACE, batch_size=1)
    frozen = [dataclasses.replace(phase, frozen_batch_norm=True) for phase in PHASES]
    make_trainer(tmp_path / "run", space=NARROW, batch_size=1, phases=frozen)


def test_two_processes_with_one_image_each_are_refused(tmp_path: Path) -> None:
    given = {"space": NARROW, "batch_size": 2, "phases": STRATEGIES["sandwich"]}
    with pytest.raises(UserError, match=r"batch_size is 2, one image for each process; expected at least 4"):
        make_trainer(tmp_path, world=World(0, 2), **given)  # type: ignore[arg-type]


def test_one_calibration_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at 4 px .*: calibration_images is 1; expected at least 2"):
        make_trainer(tmp_path, space=NARROW, calibration_images=1)
    both = r"batch_size is 1, one image; expected at least 2\. calibration_images is 1"
    with pytest.raises(UserError, match=both):
        make_trainer(tmp_path, space=NARROW, batch_size=1, calibration_images=1)


def test_the_command_refuses_before_it_makes_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one image; expected at least 2"):
        train_supernet.run(
            *("space=mobilenet_v3_tiny", "space.resolutions=[8,16]", "training.batch_size=1"),
            *(f"runs_dir={tmp_path / 'runs'}", "run_name=refused", "phases=small_sandwich"),
        )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_fine_tuning_refuses_as_well(tmp_path: Path, processes: int) -> None:
    network = build_supernet(NARROW).extract(NARROW.smallest)
    settings = dataclasses.replace(SETTINGS, batch_size=processes)
    with pytest.raises(UserError, match=f"at 4 px .*batch_size is {processes}, one image"):
        fit(network, make_data(), settings, resolution=4, folder=tmp_path / "run", world=World(0, processes))
    assert not (tmp_path / "run").exists()


def test_a_last_calibration_batch_of_one_image_is_joined_to_the_one_before() -> None:
    supernet = build_supernet(NARROW)

    images = torch.randn(61, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    networks = [supernet.extract(NARROW.smallest).eval() for _ in range(2)]
    sizes: list[int] = []
    networks[0].register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    recalibrate_batchnorm(networks[0], torch.split(images, 30))  # maps of one pixel, and 30, 30 and 1 images
    assert sizes == [30, 31]
    recalibrate_batchnorm(networks[1], torch.split(images, [30, 31]))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    with pytest.raises(UserError, match="single value per channel"):
        recalibrate_batchnorm(networks[0], [images[:1]])
    evaluator = SubnetEvaluator(supernet, make_data(), calibration_images=61, batch_size=30)
    evaluator.network(NARROW.smallest)
