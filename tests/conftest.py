"""Fixtures that all tests share: small spaces, supernets with non-trivial values, the shared data folder."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from randomised import randomise

from ofa.common.config import build
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec, StemSpec
from ofa.space.subnet import SubnetConfig
from ofa.supernet.supernet import Supernet, build_supernet

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Leave the user's folders alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def forked_measuring() -> Iterator[None]:
    """Processes that measure are forked from one that has loaded PyTorch, which takes them seconds otherwise.

    That they share nothing with the program is tested with new interpreters, in test_fresh_process.py.
    """
    multiprocessing.set_forkserver_preload(["latency_tables.measuring.build"])
    with pytest.MonkeyPatch.context() as patch:
        context = multiprocessing.get_context("forkserver")
        patch.setattr("latency_tables.measuring.fresh_process.CONTEXT", context)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def load_space() -> Callable[[str], StagedSpace]:
    """Loads a space of conf/space by name."""

    def load(name: str) -> StagedSpace:
        path = ROOT / "conf" / "space" / f"{name}.yaml"
        return build(StagedSpace, yaml.safe_load(path.read_text()), str(path.name))

    return load


@pytest.fixture(scope="session")
def full_space(load_space: Callable[[str], StagedSpace]) -> StagedSpace:
    return load_space("mobilenet_v3")


@pytest.fixture(scope="session")
def tiny_space(load_space: Callable[[str], StagedSpace]) -> StagedSpace:
    return load_space("mobilenet_v3_tiny")


@pytest.fixture(scope="session")
def micro_space() -> StagedSpace:
    """1,680 networks: small enough to enumerate, with everything that a block can have."""
    return StagedSpace(
        name="micro",
        family="mobilenet_v3",
        resolutions=(8, 12),
        stem_channels=8,
        stem_stride=1,
        stages=(
            StageSpec(8, 1, (1, 2), (3, 5), (3.0, 6.0), "relu", False),
            StageSpec(16, 2, (1, 2), (3, 5, 7), (2.0, 4.0), "hard_swish", True),
        ),
        head_channels=(24, 32),
        num_classes=5,
        in_channels=2,
    )


@pytest.fixture(scope="session")
def micro_proxyless() -> StagedSpace:
    """Inverted bottlenecks of the MobileNetV2 kind; the last stage has a single block."""
    return StagedSpace(
        name="micro_proxyless",
        family="proxyless_nas",
        resolutions=(8, 12),
        stem_channels=16,
        stem_stride=1,
        stages=(
            StageSpec(16, 2, (1, 2), (3, 5, 7), (2.0, 3.0), "relu6", False),
            StageSpec(24, 1, (1,), (3, 5), (3.0, 6.0), "relu6", False),
        ),
        head_channels=(32,),
        num_classes=5,
        in_channels=2,
        bn_epsilon=1e-3,
        first_block_channels=8,
    )


@pytest.fixture(scope="session")
def micro_resnet() -> StagedSpace:
    """Bottlenecks with every elastic choice; the second stage halves maps of 4 and of 5 pixels."""
    widths, ratios = (0.5, 0.75, 1.0), (0.25, 0.5)
    return StagedSpace(
        name="micro_resnet",
        family="resnet",
        resolutions=(16, 20),
        stem_channels=32,
        stem_stride=2,
        stages=(
            StageSpec(64, 1, (1, 2), (3,), ratios, "relu", False, widths),
            StageSpec(96, 2, (2, 3), (3,), ratios, "relu", False, widths),
        ),
        head_channels=(),
        num_classes=5,
        in_channels=2,
        stem=StemSpec((0, 1), (0.5, 1.0), (0.5, 1.0)),
    )


@pytest.fixture(scope="session")
def micro_resnet_rank(micro_resnet: StagedSpace) -> StagedSpace:
    """Elastic ranks and fewer other choices; the second stage always splits its convolutions."""
    ranks = ((0.25, 1.0), (0.25, 0.5))
    stages = tuple(
        dataclasses.replace(stage, expand_ratios=(0.5,), widths=(0.5, 1.0), ranks=choices)
        for stage, choices in zip(micro_resnet.stages, ranks, strict=True)
    )
    return dataclasses.replace(micro_resnet, name="micro_resnet_rank", stages=stages)


@pytest.fixture(scope="session")
def small_space() -> StagedSpace:
    """Three stages with three kernel sizes; unlike the spaces in conf/, its values never change."""
    kernel_sizes, expand_ratios = (3, 5, 7), (3.0, 4.0, 6.0)
    return StagedSpace(
        name="small",
        family="mobilenet_v3",
        resolutions=(16, 20, 24, 28, 32),
        stem_channels=16,
        stem_stride=2,
        stages=(
            StageSpec(16, 1, (1, 2, 3), kernel_sizes, expand_ratios, "relu", False),
            StageSpec(24, 2, (1, 2, 3), kernel_sizes, expand_ratios, "hard_swish", True),
            StageSpec(32, 2, (1, 2, 3), kernel_sizes, expand_ratios, "hard_swish", True),
        ),
        head_channels=(64, 96),
        num_classes=10,
        in_channels=1,
    )


@pytest.fixture(scope="session")
def make_supernet() -> Callable[[StagedSpace, int], Supernet]:
    """Makes a supernet in eval mode whose statistics, matrices and biases are not the initial ones."""

    def make(space: StagedSpace, seed: int) -> Supernet:
        supernet = build_supernet(space, seed)
        randomise(supernet, seed)
        return supernet.eval()

    return make


@pytest.fixture(scope="session")
def random_configs() -> Callable[[StagedSpace, int, int], list[SubnetConfig]]:
    """Draws (space, count, seed) random networks, with the smallest and largest in front."""

    def draw(space: StagedSpace, count: int, seed: int) -> list[SubnetConfig]:
        genomes = space.sample(count, np.random.default_rng(seed))
        return [space.smallest, space.largest, *(space.config(genome) for genome in genomes)]

    return draw


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data that others measured; tests that need it are skipped without it."""
    folder = Path(os.environ.get("OFA_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set OFA_SHARED_DATA")
    return folder
