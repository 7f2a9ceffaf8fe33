"""Weight files of other trainings: envelopes, prefixes, NumPy's scalars, and what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ofa.common.errors import UserError
from ofa.common.numpy_scalars import SCALARS
from ofa.published.state import ENVELOPES, read_state

STATE = {"first.weight": torch.arange(6.0).reshape(2, 3), "first.bias": torch.tensor([0.5, -1.0])}


def assert_reads(values: object, path: Path) -> None:
    torch.save(values, path)
    state = read_state(path)
    assert list(state) == list(STATE)
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("name", ENVELOPES)
def test_weights_are_found_in_an_envelope(name: str, tmp_path: Path) -> None:
    assert_reads({"epoch": 7, "optimizer": {"state": {}}, name: STATE}, tmp_path / "a.pth")
    assert_reads({name: {"state_dict": STATE, "note": "nested"}}, tmp_path / "b.pth")


@pytest.mark.parametrize(
    "scalar",
    [np.float64(0.731), np.float32(0.5), np.int64(3), np.bool_(True), np.dtype(">f8").type(2.5)],
    ids=lambda scalar: type(scalar).__name__,
)
def test_scalars_of_numpy_are_harmless(scalar: Any, tmp_path: Path) -> None:
    assert_reads({"best_acc": scalar, "state_dict": STATE}, tmp_path / "a.pth")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.net.", "supernet."]
)
def test_prefixes_of_wrappers_are_left_out(prefix: str, tmp_path: Path) -> None:
    assert_reads({f"{prefix}{name}": tensor for name, tensor in STATE.items()}, tmp_path / "a.pth")


def test_averaged_weights_are_read(tmp_path: Path) -> None:
    averaged = {"n_averaged": torch.tensor(9), **{f"module.{name}": STATE[name] for name in STATE}}
    assert_reads({"model": averaged}, tmp_path / "a.pth")


def test_a_prefix_of_some_names_alone_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "a.pth")
    assert list(read_state(tmp_path / "a.pth")) == ["module.a", "b"]


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (argparse.Namespace(lr=0.1), r"it holds argparse\.Namespace beside tensors"),
        (np.str_("text"), "cannot be read"),
        (np.datetime64("2020-01-01"), "cannot be read"),
    ],
    ids=["namespace", "text", "date"],
)
def test_other_objects_are_refused_by_name(extra: object, named: str, tmp_path: Path) -> None:
    torch.save({"args": extra, "state_dict": STATE}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=named):
        read_state(tmp_path / "a.pth")
    assert not set(SCALARS) & set(torch.serialization.get_safe_globals())


def test_safetensors_are_read_and_damaged_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({f"module.{name}": tensor for name, tensor in STATE.items()}, path)
    state = read_state(path)
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"a\.safetensors is truncated"):
        read_state(path)
    with pytest.raises(UserError, match="No published checkpoint at"):
        read_state(tmp_path / "none.safetensors")


def test_tensors_without_plain_values_are_named(tmp_path: Path) -> None:
    odd = {"sparse": torch.eye(3).to_sparse(), "meta": torch.zeros(2, device="meta")}
    torch.save({**STATE, **odd}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="2 not plain tensors: sparse, meta"):
        read_state(tmp_path / "a.pth")
