"""Published accuracy predictors: the two files of the shared data, and all that a file can have wrong."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ofa.architecture.cost import compile_cost, macs
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.subnet import BlockConfig, StemConfig, SubnetConfig
from predictors.load import load_predictor
from predictors.published.layouts import PublishedEncoder
from predictors.published.predictor import PublishedPredictor, import_predictor

MOBILE, RESNET = "ofa_mbv3_acc_predictor.pth", "ofa_resnet50_acc_predictor.pth"


@pytest.fixture
def wide_space(full_space: StagedSpace) -> StagedSpace:
    return dataclasses.replace(full_space, width_multiplier=1.2)


@pytest.fixture
def resnet_space(load_space: Callable[[str], StagedSpace]) -> StagedSpace:
    return load_space("resnet50")


def small_mlp(num_inputs: int = 128) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(5, num_inputs), (5,), (1, 5), (1,)]
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    return {n: torch.randn(size, generator=generator) for n, size in zip(names, sizes, strict=True)}


def test_inputs_of_a_mobilenet(wide_space: StagedSpace) -> None:
    blocks = ((3, 3), (5, 4), (7, 6))
    first = tuple(BlockConfig(kernel, ratio) for kernel, ratio in blocks)
    stages = (first, *[(BlockConfig(7, 3), BlockConfig(3, 6))] * 4)
    inputs = PublishedEncoder(wide_space)(wide_space.genomes([SubnetConfig(176, stages)]))
    kernels, ratios, resolution = np.split(inputs[0], [60, 120])
    expected = np.zeros((2, 20, 3))
    for block, (kernel, ratio) in enumerate(blocks):
        expected[0, block, (3, 5, 7).index(kernel)] = expected[1, block, (3, 4, 6).index(ratio)] = 1
    for block in (4, 8, 12, 16):
        expected[0, block, 2] = expected[1, block, 0] = expected[0, block + 1, 0] = expected[
            1, block + 1, 2
        ] = 1
    np.testing.assert_array_equal(kernels.reshape(20, 3), expected[0])
    np.testing.assert_array_equal(ratios.reshape(20, 3), expected[1])
    assert resolution.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_inputs_of_a_resnet(resnet_space: StagedSpace) -> None:
    depths, ratios = (2, 4, 5, 3), (0.2, 0.35, 0.25, 0.2)
    stages = tuple((BlockConfig(3, ratio),) * depth for depth, ratio in zip(depths, ratios, strict=True))
    config = SubnetConfig(240, stages, (0.65, 1.0, 0.8, 1.0), StemConfig(1, 0.8, 0.65))
    inputs = PublishedEncoder(resnet_space)(resnet_space.genomes([config]))[0]
    assert np.flatnonzero(inputs[:8]).tolist() == [6]
    assert inputs[8:10].tolist() == [0, 1]
    assert inputs[10:28].reshape(6, 3).argmax(1).tolist() == [1, 0, 0, 2, 1, 2]
    assert inputs[10:28].sum() == 6
    blocks = inputs[28:].reshape(18, 3)
    starts = np.cumsum([0, 4, 4, 6])
    active = [start + b for start, depth in zip(starts, depths, strict=True) for b in range(depth)]
    assert np.flatnonzero(blocks.sum(1)).tolist() == active
    choices = [(0.2, 0.25, 0.35).index(r) for r, d in zip(ratios, depths, strict=True) for _ in range(d)]
    assert blocks[active].argmax(1).tolist() == choices


def test_a_resnet_may_have_ranks_that_split_nothing(
    resnet_space: StagedSpace, load_space: Callable[[str], StagedSpace]
) -> None:
    split = load_space("resnet50_rank")
    whole = split.restrict({"rank": [1]})
    assert np.array_equal(
        PublishedEncoder(whole)(whole.genomes([whole.middle])),
        PublishedEncoder(resnet_space)(resnet_space.genomes([whole.middle])),
    )
    with pytest.raises(UserError, match=r"stages.0.blocks.0.rank 0.125, 0.25 \(known: 1\)"):
        PublishedEncoder(split)


def test_predictions_are_those_of_the_published_network(wide_space: StagedSpace, shared_data: Path) -> None:
    file = shared_data / "predictor" / MOBILE
    genomes = wide_space.sample(700, np.random.default_rng(0))
    predicted = import_predictor(file, wide_space)(genomes)
    state = torch.load(file, weights_only=True, map_location="cpu")
    mlp = torch.nn.Sequential()
    for index in range(7):
        layer = torch.nn.ReLU() if index % 2 else torch.nn.Linear(*state[f"{index}.weight"].shape[::-1])
        mlp.append(layer)
    mlp.load_state_dict(state)
    with torch.inference_mode():
        expected = mlp(torch.from_numpy(PublishedEncoder(wide_space)(genomes)))[:, 0].numpy()
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    assert 0.7 < predicted.min() < predicted.max() < 0.85
    largest = import_predictor(file, wide_space)(wide_space.genomes([wide_space.largest]))
    assert predicted.max() < largest[0]


def test_predictions_of_resnets_rise_with_macs(resnet_space: StagedSpace, shared_data: Path) -> None:
    predictor = import_predictor(shared_data / "predictor" / RESNET, resnet_space)
    genomes = resnet_space.sample(1000, np.random.default_rng(0))
    predicted = predictor(genomes)
    assert predicted.min() >= 0.70
    assert predicted.max() <= 0.85
    assert spearmanr(predicted, compile_cost(resnet_space, macs)(genomes)).statistic >= 0.8
    assert predictor.mlp.base != 0


@pytest.mark.parametrize("name", [MOBILE, RESNET])
def test_save_and_load_give_the_same_predictions(
    name: str, wide_space: StagedSpace, resnet_space: StagedSpace, shared_data: Path, tmp_path: Path
) -> None:
    space = wide_space if name == MOBILE else resnet_space
    predictor = import_predictor(shared_data / "predictor" / name, space)
    predictor.save(tmp_path / "predictor.pt")
    loaded = load_predictor(tmp_path / "predictor.pt", space)
    assert isinstance(loaded, PublishedPredictor)
    genomes = space.sample(20, np.random.default_rng(0))
    np.testing.assert_array_equal(loaded(genomes), predictor(genomes))
    assert name in json.loads((tmp_path / "predictor.json").read_text())["source"]
    other = dataclasses.replace(space, num_classes=10)
    with pytest.raises(UserError, match=f"{space.fingerprint}.*{other.fingerprint}"):
        load_predictor(tmp_path / "predictor.pt", other)


def test_damaged_copies_of_ours_are_refused(wide_space: StagedSpace, tmp_path: Path) -> None:
    torch.save(small_mlp(), tmp_path / "published.pth")
    path = tmp_path / "predictor.pt"
    import_predictor(tmp_path / "published.pth", wide_space).save(path)
    torch.save({"0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="do not match predictor.json"):
        load_predictor(path, wide_space)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        load_predictor(path, wide_space)
    twin = path.with_suffix(".json")
    twin.write_text(twin.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(UserError, match="schema version 9; expected 'published', 1"):
        load_predictor(path, wide_space)
    twin.write_text(twin.read_text()[:50])
    with pytest.raises(UserError, match="truncated"):
        load_predictor(path, wide_space)
    with pytest.raises(UserError, match="No accuracy predictor at"):
        load_predictor(tmp_path / "none.pt", wide_space)


def test_all_misfits_of_a_file_are_named(wide_space: StagedSpace, tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    state = small_mlp(82) | {"extra.weight": torch.zeros(2), "2.bias": torch.zeros(2)}
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError) as caught:
        import_predictor(path, wide_space)
    for text in (
        "1 unexpected: extra.weight",
        "0.weight has shape [5, 82], expected [5, 128]",
        "2.bias has shape [2], expected [1]",
        "Expected an MLP of 128 inputs and one output",
    ):
        assert text in str(caught.value)
    torch.save({name: value for name, value in small_mlp().items() if name != "0.weight"}, path)
    with pytest.raises(UserError, match="1 missing: 0.weight"):
        import_predictor(path, wide_space)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="2 missing: 0.weight, 0.bias\n.*1 unexpected: a"):
        import_predictor(path, wide_space)
    torch.save(small_mlp() | {"0.bias": torch.full((5,), float("nan")), "note": "text"}, path)
    with pytest.raises(UserError, match="1 not plain tensors: note\n.*1 not finite: 0.bias"):
        import_predictor(path, wide_space)


def test_code_in_a_file_is_not_run(wide_space: StagedSpace, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = tmp_path / "published.pth"

    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (ran,))

    path.write_bytes(pickle.dumps({"0.weight": Code()}))
    for _ in range(2):
        with pytest.raises(UserError, match="cannot be read"):
            import_predictor(path, wide_space)
        torch.save({"0.weight": Code()}, path)
    assert not ran.exists()


@pytest.mark.parametrize(
    "content", [b"", b"hello world", b"\x89PNG\r\n\x1a\n", b"{}", b"PK\x03\x04" + bytes(40)]
)
def test_files_of_another_kind_are_refused(content: bytes, wide_space: StagedSpace, tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        import_predictor(path, wide_space)
    with pytest.raises(UserError, match="No published accuracy predictor at"):
        import_predictor(tmp_path / "none", wide_space)


def test_spaces_that_the_predictor_does_not_know_are_refused(
    wide_space: StagedSpace, tiny_space: StagedSpace, load_space: Callable[[str], StagedSpace]
) -> None:
    with pytest.raises(UserError, match="'proxyless_nas'; known: mobilenet_v3, resnet"):
        PublishedEncoder(load_space("proxyless_nas"))
    with pytest.raises(UserError, match="has 3 stages; .* is for 5"):
        PublishedEncoder(tiny_space)
    stages = (dataclasses.replace(wide_space.stages[0], expand_ratios=(2.0, 4.0)), *wide_space.stages[1:])
    odd = dataclasses.replace(wide_space, resolutions=(100, 224), stages=stages)
    with pytest.raises(UserError) as caught:
        PublishedEncoder(odd)
    for text in ("resolution 100 (known: 112, 128,", "stages.0.blocks.3.expand_ratio 2 (known: 3, 4, 6)"):
        assert text in str(caught.value)
    known = odd.restrict({"resolution": [224], "expand_ratio": [3, 4, 6]})
    inputs = PublishedEncoder(known)(odd.genomes([odd.smallest, known.largest]))
    assert np.isnan(inputs).all(axis=1).tolist() == [True, False]
