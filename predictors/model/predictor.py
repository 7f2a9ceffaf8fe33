"""The accuracy predictor: a small MLP on one-hot genes, and its files (Cai et al. 2020, sec. 3.4)."""

from __future__ import annotations

import importlib.metadata
import io
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from ofa.common.accelerator import torch_threads
from ofa.common.config import below_minimum, build
from ofa.common.display import short_repr, short_text
from ofa.common.errors import UserError
from ofa.common.files import json_writer, sha256, write_together
from ofa.common.metric import DEFAULT_METRIC, Metric
from ofa.common.mismatches import checked_state
from ofa.common.reading import read_bytes, read_json
from ofa.common.tensors import load_tensors
from ofa.space.genes import Genomes
from ofa.space.space import SearchSpace
from predictors.model.features import FeatureMap

SCHEMA_VERSION = 2
ROWS_AT_ONCE = 1024


class AccuracyMLP(nn.Module):
    """One wide hidden layer with ReLU, a linear path beside it, and several outputs.

    Output 0 is the prediction; the others are the members of an ensemble that shares the hidden layer.
    """

    def __init__(self, num_inputs: int, hidden_units: int, num_outputs: int) -> None:
        """Create the network with PyTorch's initial weights."""
        super().__init__()
        self.hidden = nn.Linear(num_inputs, hidden_units)
        self.head = nn.Linear(hidden_units, num_outputs)
        self.linear = nn.Linear(num_inputs, num_outputs, bias=False)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> AccuracyMLP:
        """Return the network with the given entries of its state dict, as float32."""
        num_outputs, hidden_units = state["head.weight"].shape
        network = cls.empty(state["hidden.weight"].shape[1], hidden_units, num_outputs)
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
        return network

    @classmethod
    def empty(cls, num_inputs: int, hidden_units: int, num_outputs: int) -> AccuracyMLP:
        """Return the network without memory; no weights are drawn, so the global generator is unchanged."""
        with torch.device("meta"):
            return cls(num_inputs, hidden_units, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (n, num_inputs) to predicted standardised accuracies (n,)."""
        return self._outputs(inputs, slice(0, 1)).squeeze(1)

    def members(self, inputs: Tensor) -> Tensor:
        """Map inputs (n, num_inputs) to the members' standardised accuracies (n, num_outputs - 1)."""
        return self._outputs(inputs, slice(1, None))

    def _outputs(self, inputs: Tensor, which: slice) -> Tensor:
        units = self.hidden(inputs).relu_()
        beside = linear(inputs, self.linear.weight[which], self.head.bias[which])
        return beside + linear(units, self.head.weight[which])


@dataclass(frozen=True)
class PredictorInfo:
    """Information on a fitted predictor, stored beside its weights.

    Attributes:
        metrics: metrics of each model on held-out records, fitted without them.
        settings: settings of the fit.
        seed: seed of the fit.
        num_records: number of records of the fit, held-out ones included.
        num_holdout: number of records that were held out.
        provenance: origin of the records.
        metric: predicted metric.
        num_folds: number of folds if every record was held out once; 0 for a single hold-out.
        model: name of the model that predicts, one of `metrics`.
        best_value: best measured value of the records; None if it is not known.
    """

    metrics: dict[str, dict[str, float]]
    settings: dict[str, Any]
    seed: int
    num_records: int
    num_holdout: int
    provenance: dict[str, str]
    metric: Metric = DEFAULT_METRIC
    num_folds: int = 0
    model: str = "mlp"
    best_value: float | None = None


@dataclass(frozen=True)
class TargetScale:
    """Conversion of standardised values to values of the metric.

    Attributes:
        mean: mean of the records.
        std: standard deviation of the records.
        noise: standard deviation of one measurement, standardised.
        interval_factor: factor of the uncertainty, at least 1.
    """

    mean: float
    std: float
    noise: float
    interval_factor: float

    def __post_init__(self) -> None:
        """Check that no deviation is negative.

        Raises:
            UserError: naming the value.
        """
        if errors := below_minimum(self, {"std": 0, "noise": 0, "interval_factor": 0}):
            raise UserError(" ".join(errors))


class AccuracyPredictor:
    """Estimator of a metric: genomes of a space in, its values out."""

    def __init__(
        self,
        features: FeatureMap,
        network: AccuracyMLP,
        scale: TargetScale,
        info: PredictorInfo,
        *,
        threads: int | None = 1,
    ) -> None:
        """Take a fitted network with the maps of its inputs and outputs.

        Args:
            features: map from genomes to inputs.
            network: network fitted on these inputs.
            scale: conversion of outputs to the metric.
            info: information stored with the predictor.
            threads: CPU threads of a call; None for PyTorch's number.
        """
        self.features = features
        self.space = features.space
        self.network = network.eval()
        self.scale = scale
        self.info = info
        self.threads = threads

    def __call__(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return the predicted values of the metric, shape (n,), of genomes (n, num_genes).

        Fractions are not clipped to 0..1: clipped values would no longer rank networks.
        """
        with torch.inference_mode(), torch_threads(self.threads):
            parts = [self.network(inputs).double().numpy() for inputs in self._batches(genomes)]
        return np.asarray(np.concatenate(parts) * self.scale.std + self.scale.mean)

    def uncertainty(self, genomes: Genomes, /) -> NDArray[np.float64]:
        """Return the standard deviation of a measured value around its prediction, shape (n,).

        It combines the posterior spread (of the members) and the noise of a measurement; about 90 % of
        measured values lie within 1.645 of it.
        """
        with torch.inference_mode(), torch_threads(self.threads):
            members = [self.network.members(inputs).double().numpy() for inputs in self._batches(genomes)]
        deviation = np.sqrt(np.concatenate(members).var(axis=1, ddof=1) + self.scale.noise**2)
        return np.asarray(self.scale.interval_factor * self.scale.std * deviation)

    @property
    def metric(self) -> Metric:
        """The predicted metric."""
        return self.info.metric

    def _batches(self, genomes: Genomes) -> list[Tensor]:
        starts = range(0, max(len(genomes), 1), ROWS_AT_ONCE)
        return [torch.from_numpy(self.features(genomes[i : i + ROWS_AT_ONCE])) for i in starts]

    def save(self, path: Path) -> None:
        """Write the weights to `path` (predictor.pt) and everything else to its .json twin.

        Raises:
            UserError: if a file cannot be written; the old files are then unchanged.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors["cost_mean"] = torch.from_numpy(self.features.cost_mean)
        tensors["cost_std"] = torch.from_numpy(self.features.cost_std)
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        content = buffer.getvalue()
        values = {
            "schema_version": SCHEMA_VERSION,
            "space": {"fingerprint": self.space.fingerprint, **self.space.to_dict()},
            "weights_sha256": sha256(content),
            "scale": asdict(self.scale),
            "info": asdict(self.info),
            "versions": _versions(),
        }
        write_together(
            {
                path: lambda temporary: temporary.write_bytes(content),
                path.with_suffix(".json"): json_writer(values),
            }
        )

    @classmethod
    def load(cls, path: Path, space: SearchSpace, threads: int | None = 1) -> AccuracyPredictor:
        """Return the predictor that `save` wrote to `path`; `threads` as in the constructor.

        Raises:
            UserError: if one of the two files is missing, truncated or the two do not match, or the
                predictor belongs to another space.
        """
        twin = path.with_suffix(".json")
        values = read_json(twin, "accuracy predictor", "fit")
        info = _check(twin, values, space)
        content = read_bytes(path, "accuracy predictor", stage="fit")
        if sha256(content) != values.get("weights_sha256"):
            raise UserError(
                f"The weights {path} do not match {twin.name}: the file is truncated, or the two were not "
                f"written together.",
                stage="fit",
            )
        features, network = _read_weights(path, space)
        scale = build(TargetScale, _renamed(values.get("scale", {})), where=str(twin))
        return cls(features, network, scale, info, threads=threads)


def _read_weights(path: Path, space: SearchSpace) -> tuple[FeatureMap, AccuracyMLP]:
    """Return the inputs and the network of a predictor's file, which fits the space."""
    tensors = load_tensors(path, "accuracy predictor", stage="fit")
    features = FeatureMap(space, np.zeros(0), np.zeros(0))
    num_costs = features.num_inputs - features.num_choices
    matrices = {
        name: value for name, value in tensors.items() if isinstance(value, Tensor) and value.dim() == 2
    }
    hidden_units, num_outputs = (
        len(matrices.get(f"network.{layer}.weight", "1")) for layer in ("hidden", "head")
    )
    network = AccuracyMLP.empty(features.num_inputs, hidden_units, num_outputs)
    expected = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    expected |= dict.fromkeys(("cost_mean", "cost_std"), torch.empty(num_costs, dtype=torch.float64))
    state = checked_state(tensors, expected, f"The accuracy predictor {path}", "fit")
    features.cost_mean, features.cost_std = (state.pop(name).numpy() for name in ("cost_mean", "cost_std"))
    if not (features.cost_std > 0).all():
        raise UserError(f"The accuracy predictor {path} has a cost_std that is not positive.", stage="fit")
    weights = {name.removeprefix("network."): tensor for name, tensor in state.items()}
    network.load_state_dict(weights, assign=True)
    return features, network


def _check(path: Path, values: dict[str, Any], space: SearchSpace) -> PredictorInfo:
    """Return the info of a predictor's JSON after checking its version and space."""
    if values.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"The accuracy predictor {path} has schema version {short_repr(values.get('schema_version'))}; "
            f"this version reads {SCHEMA_VERSION}.",
            stage="fit",
        )
    entry = values.get("space")
    name, fingerprint = (entry.get("name"), entry.get("fingerprint")) if isinstance(entry, dict) else ("", "")
    if fingerprint != space.fingerprint:
        raise UserError(
            f"The accuracy predictor {path} is of space {short_repr(name)} ({short_text(fingerprint)}); "
            f"expected space {space.name!r} ({space.fingerprint}). Choose that space or another predictor."
        )
    return build(PredictorInfo, values.get("info", {}), where=str(path))


def _renamed(scale: object) -> Any:
    """Return a scale with current names: older files call the interval factor calibration."""
    if not isinstance(scale, dict):
        return scale
    return {("interval_factor" if name == "calibration" else name): value for name, value in scale.items()}


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scikit-learn": importlib.metadata.version("scikit-learn"),
    }
