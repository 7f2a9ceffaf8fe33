"""The accuracy predictor: a small MLP on one-hot genes, and its files (Cai et al. 2020, sec. 3.4)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import itertools
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa.config import build
from ofa.errors import UserError
from ofa.files import read_json, write_atomic, write_json
from ofa.space import Genomes, SearchSpace

SCHEMA_VERSION = 1
FIT_COMMAND = "python scripts/fit_predictor.py"
ROWS_AT_ONCE = 2048


class AccuracyMLP(nn.Module):
    """Linear layers with ReLU between them, and one output."""

    def __init__(self, num_features: int, hidden_sizes: Sequence[int] = (400, 400, 400)) -> None:
        """Create the randomly initialised network."""
        super().__init__()
        sizes = [num_features, *hidden_sizes]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, num_features) to standardised accuracies (n,)."""
        return torch.as_tensor(self.layers(features)).squeeze(1)


@dataclass(frozen=True)
class PredictorInfo:
    """What is known about a fitted predictor; stored beside its weights.

    `metrics` maps a model's name to its metrics on the held-out records; `provenance` is that of the records.
    """

    metrics: dict[str, dict[str, float]]
    settings: dict[str, Any]
    seed: int
    num_records: int
    num_holdout: int
    provenance: dict[str, str]


class AccuracyPredictor:
    """Estimator of top-1 accuracy: genomes of a space in, fractions out."""

    def __init__(
        self, space: SearchSpace, network: AccuracyMLP, mean: float, std: float, info: PredictorInfo
    ) -> None:
        """Keep a fitted network and the mean and standard deviation of its targets (top-1 fractions)."""
        self.space = space.whole
        self.network = network.eval()
        self.mean = mean
        self.std = std
        self.info = info

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return the predicted top-1 fractions, shape (n,), of genomes (n, num_genes).

        Predictions are not clipped to 0..1: equal values would hide which network is better.
        """
        starts = range(0, max(len(genomes), 1), ROWS_AT_ONCE)
        with torch.inference_mode():
            parts = [
                self.network(torch.from_numpy(self.space.encode(genomes[start : start + ROWS_AT_ONCE])))
                for start in starts
            ]
            standardised = torch.cat(parts).numpy()
        return standardised.astype(np.float64) * self.std + self.mean

    def save(self, path: Path) -> None:
        """Write the weights to `path` (predictor.pt) and everything else to its .json twin.

        Raises:
            UserError: if a file cannot be written; the old one then stays.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors["mean"] = torch.tensor(self.mean, dtype=torch.float64)
        tensors["std"] = torch.tensor(self.std, dtype=torch.float64)
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        content = buffer.getvalue()
        write_atomic(path, lambda temporary: temporary.write_bytes(content))
        values = {
            "schema_version": SCHEMA_VERSION,
            "space": {"fingerprint": self.space.fingerprint, **self.space.to_dict()},
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "info": asdict(self.info),
            "versions": _versions(),
        }
        write_json(path.with_suffix(".json"), values)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> AccuracyPredictor:
        """Return the predictor that `save` wrote to `path`.

        Raises:
            UserError: if one of the two files is missing, truncated or not of the other's making, or the
                predictor is of another space.
        """
        twin = path.with_suffix(".json")
        values = read_json(twin, "accuracy predictor", FIT_COMMAND)
        info = _check(twin, values, space)
        if not path.is_file():
            raise UserError(f"No accuracy predictor at {path}. Make one with: {FIT_COMMAND}")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != values.get("weights_sha256"):
            raise UserError(
                f"The weights {path} do not match {twin.name}: the file is truncated, or the two were not "
                f"written together. Make them again with: {FIT_COMMAND}"
            )
        tensors = torch.load(io.BytesIO(content), weights_only=True)
        mean, std = tensors.pop("mean").item(), tensors.pop("std").item()
        state = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
        outputs = [tensor.shape[0] for name, tensor in state.items() if name.endswith("weight")]
        network = AccuracyMLP(space.num_features, outputs[:-1])
        network.load_state_dict(state)
        return cls(space, network, mean, std, info)


def _check(path: Path, values: dict[str, Any], space: SearchSpace) -> PredictorInfo:
    """Return the info of a predictor's JSON after checking its version and space."""
    if values.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"The accuracy predictor {path} has schema version {values.get('schema_version')!r}; this "
            f"version reads {SCHEMA_VERSION}. Make it again with: {FIT_COMMAND}"
        )
    found = values.get("space")
    name, fingerprint = (found.get("name"), found.get("fingerprint")) if isinstance(found, dict) else ("", "")
    if fingerprint != space.fingerprint:
        raise UserError(
            f"The accuracy predictor {path} is of space {name!r} ({fingerprint}); expected space "
            f"{space.name!r} ({space.fingerprint}). Choose that space or another predictor."
        )
    return build(PredictorInfo, values.get("info", {}), where=str(path))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scikit-learn": importlib.metadata.version("scikit-learn"),
    }
