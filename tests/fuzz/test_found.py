"""Damage that was once taken, waited for, or answered with a traceback: fixed cases of every artefact."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzed_artefacts import BUNDLE, Artefact, digest, make_artefacts, set_values

from ofa.common.errors import UserError
from ofa.common.tensors import content_digest, load_tensors, save_tensors
from ofa.export.bundle import load_bundle
from ofa.export.fresh_run import load_file

Values = dict[str, Any]


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    return {artefact.name: artefact for artefact in make_artefacts(tmp_path_factory.mktemp("artefacts"))}


def copied(artefact: Artefact, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artefact.folder, tmp_path / "runs" / "run"))


def refused(artefact: Artefact, copy: Path) -> str:
    with pytest.raises(UserError) as caught:
        artefact.read(copy)
    return str(caught.value)


def change(path: Path, edit: Callable[[Values], object]) -> None:
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


WEIGHTS: dict[str, Callable[[torch.Tensor], object]] = {
    "out of range": lambda tensor: torch.full_like(tensor, 1e30),
    "numbers out of range": lambda tensor: torch.full_like(tensor, torch.nan),
    "is torch.bool, expected torch.float32": lambda tensor: tensor.bool(),
    "is torch.int64, expected torch.float32": lambda tensor: tensor.long(),
    "not plain tensors": lambda tensor: tensor.to_sparse(),
    "has shape": lambda tensor: tensor.reshape(-1),
}


@pytest.mark.parametrize("reason", WEIGHTS)
@pytest.mark.parametrize("name", ["signed supernet", "signed teacher", "signed predictor"])
def test_weights_that_no_network_computes_with(
    name: str, reason: str, artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    artefact = artefacts[name]
    copy = copied(artefact, tmp_path)
    values = load_tensors(copy / artefact.file, "file")
    state = values.get("state", values)
    entry = max(state, key=lambda entry: state[entry].dim())
    state[entry] = WEIGHTS[reason](state[entry])
    torch.save(values, copy / artefact.file)
    assert artefact.sign is not None
    if name != "signed teacher" or reason != "not plain tensors":
        artefact.sign(copy)
    assert reason in refused(artefact, copy)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, 2], "holds a list"),
        ({}, "fingerprint None"),
        ({"fingerprint": True}, "fingerprint True"),
        ({"state": {}}, "fingerprint None"),
    ],
)
def test_files_of_tensors_that_are_no_supernets(
    values: object, reason: str, artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    copy = copied(artefacts["supernet"], tmp_path)
    torch.save(values, copy / "supernet.pt")
    assert reason in refused(artefacts["supernet"], copy)


def test_a_supernet_without_weights(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["signed supernet"]
    copy = copied(artefact, tmp_path)
    values = load_tensors(copy / "supernet.pt", "supernet")
    for state, reason in (
        (None, "holds no weights by name"),
        ([1], "holds no weights by name"),
        ({}, "missing"),
    ):
        # A file that is too small for the weights is refused before.
        save_tensors(copy / "supernet.pt", {**values, "state": state, "padding": torch.zeros(20_000)})
        assert artefact.sign is not None
        artefact.sign(copy)
        assert reason in refused(artefact, copy)


def test_a_flipped_bit_in_the_teacher(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    copy = copied(artefacts["teacher"], tmp_path)
    values = load_tensors(copy / "teacher.pt", "teacher")
    weight = next(tensor for tensor in values["state"].values() if tensor.dim() == 4)
    content, raw = (copy / "teacher.pt").read_bytes(), weight.numpy().tobytes()
    position = content.index(raw)
    changed = bytearray(content)
    changed[position] ^= 1
    (copy / "teacher.pt").write_bytes(bytes(changed))
    # PyTorch itself reads it without a word.
    assert not torch.equal(
        load_tensors(copy / "teacher.pt", "teacher")["state"]["layers.0.conv.weight"], weight
    )
    assert "is damaged: its content is not what was written" in refused(artefacts["teacher"], copy)


def test_a_teacher_of_an_earlier_version_has_no_digest(
    artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    artefact = artefacts["teacher"]
    copy = copied(artefact, tmp_path)
    values = load_tensors(copy / "teacher.pt", "teacher")
    del values["digest"]
    save_tensors(copy / "teacher.pt", values)
    assert artefact.read(copy) == artefact.read(artefact.folder)


def test_a_checkpoint_of_nan_is_passed_over(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["checkpoint"]
    copy = copied(artefact, tmp_path)
    values = load_tensors(copy / artefact.file, "checkpoint")
    del values["digest"]
    next(iter(values["supernet"].values())).fill_(torch.nan)
    save_tensors(copy / artefact.file, {**values, "digest": content_digest(values)})
    assert artefact.read(copy)["step"] == 2


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda values: values.pop("supernet"), "'supernet' is missing"),
        (lambda values: values["supernet"].popitem(), "1 missing"),
        (lambda values: values.update(phase_step="x"), "phase_step is 'x'; expected an integer"),
        (lambda values: values.update(phase=-1), "phase is -1"),
        (lambda values: values.pop("optimizer"), "optimizer is None"),
        (
            lambda values: values["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(1)),
            "momentum of",
        ),
        (lambda values: next(iter(values["supernet"].values())).resize_(1), "has shape [1]"),
    ],
)
def test_checkpoints_of_another_form(
    edit: Callable[[Values], object], reason: str, artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    artefact = artefacts["checkpoint"]
    copy = copied(artefact, tmp_path)
    values = load_tensors(copy / artefact.file, "checkpoint")
    del values["digest"]
    edit(values)
    save_tensors(copy / artefact.file, {**values, "digest": content_digest(values)})
    text = refused(artefact, copy)
    assert reason in text and "does not fit this training" in text


def test_archives_that_grow_are_not_unpacked(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    copy = copied(artefacts["supernet"], tmp_path)
    with zipfile.ZipFile(copy / "supernet.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(200_000_000))
    text = refused(artefacts["supernet"], copy)
    assert "would unpack 200 MB from 0.2 MB" in text


@pytest.mark.parametrize("setting", ["split_seed", "validation_size", "test_size"])
def test_the_supernet_decides_which_images_it_was_trained_on(
    setting: str, artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    copy = copied(artefacts["configuration"], tmp_path)
    change(copy / "config.json", lambda values: values["data"].update({setting: 77}))
    text = refused(artefacts["configuration"], copy)
    assert "was changed after the training" in text and f"data.{setting} was " in text and "is 77" in text


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "link"])
def test_a_bundle_names_files_of_its_own(name: str, artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["card"]
    copy = copied(artefact, tmp_path)
    weights = copy / BUNDLE / "weights.safetensors"
    shutil.copyfile(weights, copy.parent / "x")
    (copy / BUNDLE / "link").symlink_to(copy.parent / "x")
    name = name.replace("../../x", "../../../x")
    change(copy / BUNDLE / "subnet.json", lambda values: values["files"]["weights"].update(file=name))
    assert "which is not inside that folder" in refused(artefact, copy)


def test_an_engine_runs_the_file_whose_checksum_is_known(
    artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    artefact = artefacts["engine file"]
    copy = copied(artefact, tmp_path)
    (copy / BUNDLE / "model.onnx").rename(copy / BUNDLE / "other.onnx")
    (copy / BUNDLE / "model.onnx").write_bytes(b"never checked")
    change(copy / BUNDLE / "subnet.json", lambda values: values["files"]["onnx"].update(file="other.onnx"))
    assert "names other files of onnx than its engine opens, model.onnx" in refused(artefact, copy)


def test_a_graph_that_is_opened_is_the_one_that_is_trusted(
    artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    """A bundle could bring a graph that this user exported, and have another one opened."""
    copy = copied(artefacts["card"], tmp_path) / BUNDLE
    entry = json.loads((copy / "subnet.json").read_text())["files"]["onnx"]
    (copy / "model.pt2").write_bytes(b"never checked")
    change(copy / "subnet.json", lambda values: values["files"].update(pt2={**entry, "file": "model.onnx"}))
    with pytest.raises(UserError, match=r"names other files of pt2 than its engine opens, model\.pt2"):
        load_file(load_bundle(copy), "pt2", trust=True)


def test_outputs_are_those_of_the_classes(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    copy = copied(artefacts["card"], tmp_path) / BUNDLE
    bundle = load_bundle(copy)
    images = torch.zeros(2, *bundle.card.input_shape)
    logits = load_file(bundle, "onnx")
    assert logits(images).shape == (2, 10)
    with pytest.raises(UserError, match=r"Its engine does not run .*model\.onnx: "):
        logits(torch.zeros(2, 7, 3, 3))
    fewer = dataclasses.replace(bundle.card, class_names=("a", "b"), subnet=None)
    with pytest.raises(UserError, match=r"gives outputs of shape \[2, 10\] for 2 images of 2 classes"):
        load_file(dataclasses.replace(bundle, card=fewer), "onnx")(images)


@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_an_engine_refuses_a_file_by_name(
    content: bytes, artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    artefact = artefacts["engine file"]
    copy = copied(artefact, tmp_path)
    path = copy / BUNDLE / "model.onnx"
    path.write_bytes(content)
    entry = {"sha256": digest(path), "bytes": len(content)}
    change(copy / BUNDLE / "subnet.json", lambda values: values["files"]["onnx"].update(entry))
    assert "ONNX Runtime does not run" in refused(artefact, copy)


def test_a_format_that_is_unknown(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    copy = copied(artefacts["card"], tmp_path)
    change(copy / BUNDLE / "subnet.json", lambda v: v["files"].update(evil=v["files"]["onnx"]))
    with pytest.raises(UserError, match="Unknown format 'evil'"):
        load_file(load_bundle(copy / BUNDLE), "evil")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda values: values.update(seed=-1), "seed is -1; expected 0 or more"),
        (lambda values: values.update(num_calibration=10**9), "expected at most 1000 together"),
        (lambda values: values.update(num_calibration=1.5), "num_calibration is 1.5; expected an integer"),
        (lambda values: values.update({"k" * 50_000_000: 1}), "expected at most 34 MB"),
        (lambda values: values.update({"k" * 5_000_000: 1}), "holds a text of 5,000,000 characters"),
        (lambda values: values.update({"k" * 50_000: 1}), "is not a setting"),
        (lambda values: values["files"].update({"../x": "y"}), "'../x', which is not inside that folder"),
        (lambda values: values["programs"][0]["files"][0].update(file="/x"), "which is not inside"),
        (lambda values: values.update(restriction=[[99]]), "its restriction is none of space"),
        (lambda values: values["device"].update(name="../x"), "name of the device is '../x'"),
    ],
)
def test_manifests_of_kits(
    edit: Callable[[Values], object], reason: str, artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    artefact = artefacts["signed kit manifest"]
    copy = copied(artefact, tmp_path)
    change(copy / "manifest.json", edit)
    assert artefact.sign is not None
    artefact.sign(copy)
    text = refused(artefact, copy)
    assert reason in text and len(text) < 2000


@pytest.mark.parametrize("engine", ["x; touch PWNED #", "\x1b[2J", "pytorch", ""])
def test_engines_of_kits_are_known(engine: str, artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["kit results"]
    copy = copied(artefact, tmp_path)
    set_values(copy / "measurements.json", engine=engine)
    text = refused(artefact, copy)
    assert "Unknown engine in" in text and "known: onnx_runtime, openvino" in text and "\x1b" not in text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"runs_ms": [1.0, -1.0]}, "took -1.0 ms"),
        ({"runs_ms": ["1.0"]}, "a run is '1.0'; expected a number"),
        ({"runs_ms": [True]}, "a run is True; expected a number"),
        ({"runs_ms": []}, "runs_ms is empty"),
        ({"finished": False}, "finished is False; expected true"),
        ({"process": "0"}, "process is '0'; expected an integer"),
        ({"process": -1}, "process is -1"),
        ({"window": 0.5}, "window is 0.5"),
    ],
)
def test_lines_of_unfinished_tables(
    line: Values, reason: str, artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    artefact = artefacts["unfinished table"]
    copy = copied(artefact, tmp_path)
    path = copy / artefact.file
    lines = path.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **line})
    path.write_text("\n".join(lines) + "\n")
    text = refused(artefact, copy)
    assert "Line 2 of" in text and reason in text


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_runs_that_are_no_numbers(number: str, artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["unfinished table"]
    copy = copied(artefact, tmp_path)
    path = copy / artefact.file
    path.write_text(path.read_text().replace("1.25", number))
    assert "in place of a number" in refused(artefact, copy)


@pytest.mark.parametrize("content", [b"PK\x03\x04 an archive", b'{"another": "file"}', b"text"])
def test_a_file_that_is_no_unfinished_table_is_left_alone(
    content: bytes, artefacts: dict[str, Artefact], tmp_path: Path
) -> None:
    artefact = artefacts["unfinished table"]
    copy = copied(artefact, tmp_path)
    (copy / artefact.file).write_bytes(content)
    assert "is not an unfinished table; move it away" in refused(artefact, copy)
    assert (copy / artefact.file).read_bytes() == content


def test_a_pipe_is_not_waited_for(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    copy = copied(artefacts["unfinished table"], tmp_path)
    for artefact in artefacts.values():
        if artefact.folder == artefacts["unfinished table"].folder and not artefact.sign:
            path = copy / artefact.file
            path.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            os.mkfifo(path)
            refused(artefact, copy)


def test_flags_of_published_networks(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["published network"]
    copy = copied(artefact, tmp_path)
    block = json.loads((copy / "net.config").read_text())["blocks"][1]["mobile_inverted_conv"]
    assert block["use_se"] is True
    change(copy / "net.config", lambda v: v["blocks"][1]["mobile_inverted_conv"].update(use_se=[True]))
    assert "blocks.1.use_se is [True]; expected true or false" in refused(artefact, copy)


def test_a_published_network_that_no_memory_holds(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["published network"]
    copy = copied(artefact, tmp_path)
    change(copy / "net.config", lambda values: values["classifier"].update(out_features=2**24 - 1))
    change(copy / "net.config", lambda values: values["feature_mix_layer"].update(out_channels=2**20))
    change(copy / "net.config", lambda values: values["classifier"].update(in_features=2**20))
    assert "describes a network of 1.76e+13 parameters; expected at most 1e+09" in refused(artefact, copy)


def test_texts_in_results_are_no_numbers(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["search result"]
    copy = copied(artefact, tmp_path)
    for text in ("nan", "1.5", "inf"):
        change(copy / artefact.file, lambda values, text=text: values["ranked"][0].update(accuracy=text))  # type: ignore[misc]
        assert f"accuracy is '{text}'; expected a number" in refused(artefact, copy)


def test_every_candidate_has_the_limited_quantities(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["search result"]
    copy = copied(artefact, tmp_path)
    name = artefact.read(copy)["limits"][0]["name"]
    change(copy / artefact.file, lambda values: values["front"][0]["values"].pop(name))
    assert f"{name} is None; expected a number" in refused(artefact, copy)


def test_a_result_whose_network_was_changed(artefacts: dict[str, Artefact], tmp_path: Path) -> None:
    artefact = artefacts["search result"]
    copy = copied(artefact, tmp_path)
    change(copy / artefact.file, lambda values: values["front"][0]["config"].update(resolution=12))
    change(copy / artefact.file, lambda values: values["front"][1]["config"].update(resolution=16))
    assert "the id of sub-network" in refused(artefact, copy)
