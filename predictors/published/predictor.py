"""Published accuracy predictors: MLPs on one-hot architectures, as estimators."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofa.common.accelerator import torch_threads
from ofa.common.display import short_repr
from ofa.common.errors import UserError
from ofa.common.metric import TOP1, Metric
from ofa.common.mismatches import listed, mismatches, raise_mismatches
from ofa.common.reading import read_json
from ofa.common.tensors import file_hash, save_with_twin
from ofa.published.state import read_state
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace, check_fingerprint
from ofa.space.staged import StagedSpace
from predictors.published.layouts import PublishedEncoder

KIND = "published"
SCHEMA_VERSION = 1
ROWS_AT_ONCE = 512
"""Rows per forward pass, so that a hidden layer's activations fit in a core's cache."""

_ENTRY = re.compile(r"(?:layers\.)?(\d+)(?:\.0)?\.(weight|bias)")
_BASE = "base_acc"


@dataclass(frozen=True)
class PublishedMLP:
    """Linear layers with ReLU between them, and a constant that is added to the output.

    Attributes:
        layers: transposed weight (inputs, outputs) and bias (outputs,) of each layer, float32.
        base: constant that is added to the output.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    base: float

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map inputs (n, num_inputs) to top-1 fractions (n,)."""
        hidden = inputs
        for weight, bias in self.layers[:-1]:
            hidden = torch.addmm(bias, hidden, weight).relu_()
        weight, bias = self.layers[-1]
        return torch.addmm(bias, hidden, weight).squeeze(1) + self.base


class PublishedPredictor:
    """Estimator of ImageNet top-1 accuracy by a published MLP: genomes of a space in, fractions out."""

    def __init__(
        self, space: StagedSpace, mlp: PublishedMLP, source: str, *, threads: int | None = 1
    ) -> None:
        """Take the space (the MLP must know all choices its restriction allows), the MLP, and its source.

        `threads` are the CPU threads of a call; None for PyTorch's number.

        Raises:
            UserError: if the predictor does not fit the space; see `PublishedEncoder`.
        """
        self._encoder = PublishedEncoder(space)
        self.space, self.mlp, self.source = space.unrestricted, mlp, source
        self.threads = threads

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return the predicted top-1 fractions, shape (n,), of genomes (n, num_genes).

        NaN for genomes with choices that the MLP does not know.
        """
        starts = range(0, max(len(genomes), 1), ROWS_AT_ONCE)
        with torch.inference_mode(), torch_threads(self.threads):
            parts = [
                self.mlp(torch.from_numpy(self._encoder(genomes[start : start + ROWS_AT_ONCE])))
                for start in starts
            ]
            return torch.cat(parts).numpy().astype(np.float64)

    @property
    def metric(self) -> Metric:
        """The predicted metric."""
        return TOP1

    def save(self, path: Path) -> None:
        """Write the weights to `path` (predictor.pt) and everything else to its .json twin.

        Raises:
            UserError: if a file cannot be written; the old file is then unchanged.
        """
        tensors: dict[str, Tensor] = {_BASE: torch.tensor([self.mlp.base])}
        for index, (weight, bias) in enumerate(self.mlp.layers):
            tensors |= {f"{index}.weight": weight.t().contiguous(), f"{index}.bias": bias}
        twin = {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "space": {"fingerprint": self.space.fingerprint, **self.space.to_dict()},
            "source": self.source,
        }
        save_with_twin(path, tensors, lambda digest: {**twin, "weights_sha256": digest})

    @classmethod
    def load(cls, path: Path, space: SearchSpace, threads: int | None = 1) -> PublishedPredictor:
        """Return the predictor that `save` wrote to `path`; `threads` as in the constructor.

        Raises:
            UserError: if one of the two files is missing, damaged, or the two do not match, or the
                predictor belongs to another space.
        """
        twin = path.with_suffix(".json")
        values = read_json(twin, "accuracy predictor", "import-predictor")
        if (values.get("kind"), values.get("schema_version")) != (KIND, SCHEMA_VERSION):
            raise UserError(
                f"{twin} is a predictor of kind {short_repr(values.get('kind'))}, schema version "
                f"{short_repr(values.get('schema_version'))}; expected {KIND!r}, {SCHEMA_VERSION}.",
                stage="import-predictor",
            )
        space_values = values.get("space")
        fingerprint = space_values.get("fingerprint") if isinstance(space_values, Mapping) else None
        check_fingerprint(fingerprint, space, f"accuracy predictor {path}")
        if not isinstance(space, StagedSpace):
            raise UserError(
                f"{twin} is a published predictor; space {space.name!r} is not declared by stages."
            )
        state = read_state(path, "accuracy predictor")
        if file_hash(path) != values.get("weights_sha256"):
            raise UserError(
                f"The weights {path} do not match {twin.name}: the two were not written together.",
                stage="import-predictor",
            )
        encoder = PublishedEncoder(space)
        mlp = _build_mlp(state, encoder.num_inputs, str(path))
        return cls(space, mlp, str(values.get("source", "")), threads=threads)


def import_predictor(path: Path, space: StagedSpace) -> PublishedPredictor:
    """Return the published predictor of the file `path` for `space`.

    Raises:
        UserError: if the file is missing, damaged, holds code or another network (all mismatches are named),
            or no published predictor fits the space.
    """
    encoder = PublishedEncoder(space)
    state = read_state(path, "published accuracy predictor")
    mlp = _build_mlp(state, encoder.num_inputs, f"The published accuracy predictor {path}")
    return PublishedPredictor(space, mlp, f"{path.name} (SHA-256 {file_hash(path)})")


def _build_mlp(state: Mapping[str, Tensor], num_inputs: int, what: str) -> PublishedMLP:
    """Return the MLP of a state dict; biases and the constant may be absent.

    Raises:
        UserError: naming every entry that is missing, unexpected or of another shape.
    """
    numbered: dict[int, dict[str, str]] = {}
    for name in state:
        if match := _ENTRY.fullmatch(name):
            numbered.setdefault(int(match[1]), {})[match[2]] = name
    expected: dict[str, tuple[int, ...]] = {}
    inputs = num_inputs
    for index in sorted(numbered):
        is_last = index == max(numbered)
        name = numbered[index].get("weight", f"{index}.weight")
        shape = state[name].shape if name in state and state[name].dim() == 2 else (0, 0)
        outputs = 1 if is_last else int(shape[0])
        expected[name] = (outputs, inputs)
        if "bias" in numbered[index]:
            expected[numbered[index]["bias"]] = (outputs,)
        inputs = outputs
    if not numbered:
        expected |= {"0.weight": (400, num_inputs), "0.bias": (400,)}
    if _BASE in state:
        expected[_BASE] = (1,)
    other_names = [name for name, tensor in state.items() if not tensor.is_floating_point()]
    errors = [*mismatches(expected, state), *listed("not floating-point", other_names)]
    raise_mismatches(what, errors, f"Expected an MLP of {num_inputs} inputs and one output.")
    layers = []
    for index in sorted(numbered):
        tensors = {part: state[name].float() for part, name in numbered[index].items()}
        weight = tensors["weight"].t().contiguous()
        layers.append((weight, tensors.get("bias", torch.zeros(weight.shape[1]))))
    return PublishedMLP(tuple(layers), float(state[_BASE]) if _BASE in state else 0.0)
