"""Fitting the accuracy predictor: hold-out first, then training with early stopping, then the metrics."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor
from torch.nn.functional import mse_loss

from ofa.errors import UserError
from ofa.progress import ProgressCallback, silent
from ofa.space import Genomes, SearchSpace
from predictors.baselines import accuracy_metrics, fit_baselines
from predictors.mlp import AccuracyMLP, AccuracyPredictor, PredictorInfo

MIN_PART = 2


@dataclass(frozen=True)
class FitSettings:
    """How the MLP is fitted.

    The defaults are tuned on 80 to 500 measured ImageNet accuracies; the strong (decoupled) weight decay
    is what makes the MLP better than linear regression there.

    Attributes:
        hidden_sizes: widths of the hidden layers.
        learning_rate: AdamW's, falling to 0 along a cosine over `max_epochs`.
        weight_decay: AdamW's; a step shrinks the weights by learning_rate * weight_decay.
        batch_size: records per step.
        max_epochs: passes over the training records.
        patience: epochs without a better validation error after which training stops.
        holdout_fraction: part of the records that only serves the reported metrics.
        validation_fraction: part of the other records that early stopping looks at.
    """

    hidden_sizes: tuple[int, ...] = (400, 400, 400)
    learning_rate: float = 1e-3
    weight_decay: float = 10.0
    batch_size: int = 64
    max_epochs: int = 150
    patience: int = 40
    holdout_fraction: float = 0.2
    validation_fraction: float = 0.15

    def __post_init__(self) -> None:
        """Report everything that is out of range."""
        object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))
        errors = []
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            errors.append(f"hidden_sizes are {list(self.hidden_sizes)}; expected positive integers.")
        for name in ("batch_size", "max_epochs", "patience"):
            if getattr(self, name) < 1:
                errors.append(f"{name} is {getattr(self, name)}; expected at least 1.")
        if not self.learning_rate > 0:
            errors.append(f"learning_rate is {self.learning_rate}; expected a positive number.")
        if not self.weight_decay >= 0 or self.learning_rate * self.weight_decay >= 1:
            errors.append(
                f"weight_decay is {self.weight_decay}; expected 0 or more, and below 1 / learning_rate."
            )
        for name in ("holdout_fraction", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                errors.append(f"{name} is {getattr(self, name)}; expected a number between 0 and 1.")
        if errors:
            raise UserError("\n".join(errors))


@dataclass(frozen=True)
class Split:
    """Disjoint indices of the records: for fitting, for early stopping, and for the metrics alone."""

    training: NDArray[np.intp]
    validation: NDArray[np.intp]
    holdout: NDArray[np.intp]


@dataclass(frozen=True)
class FitReport:
    """A fitted predictor and how it came about.

    `metrics` maps mlp, ridge and random forest to rmse_points, kendall_tau and spearman on the hold-out.
    """

    predictor: AccuracyPredictor
    metrics: dict[str, dict[str, float]]
    split: Split
    best_epoch: int


def split_records(num_records: int, settings: FitSettings, seed: int) -> Split:
    """Return the random split of `num_records` records.

    Raises:
        UserError: if a part would have fewer than two records.
    """
    order = np.random.default_rng([seed, 0]).permutation(num_records)
    num_holdout = round(settings.holdout_fraction * num_records)
    num_validation = round(settings.validation_fraction * (num_records - num_holdout))
    num_training = num_records - num_holdout - num_validation
    if min(num_training, num_validation, num_holdout) < MIN_PART:
        raise UserError(
            f"{num_records} accuracy records split into {num_training} for training, {num_validation} for "
            f"early stopping and {num_holdout} held out; expected at least {MIN_PART} of each. Collect more "
            "records, or change holdout_fraction and validation_fraction."
        )
    holdout, validation, training = np.split(order, [num_holdout, num_holdout + num_validation])
    return Split(training, validation, holdout)


def fit_predictor(
    space: SearchSpace,
    genomes: Genomes,
    top1: NDArray[np.float64],
    settings: FitSettings,
    seed: int,
    provenance: Mapping[str, str],
    progress: ProgressCallback = silent,
) -> FitReport:
    """Fit the MLP, and the baselines for comparison, and report all metrics on the held-out records.

    The baselines are fitted on everything that is not held out; they need no early stopping.

    Args:
        space: space of the genomes.
        genomes: distinct canonical genomes, shape (n, num_genes).
        top1: their measured accuracies as fractions, shape (n,).
        settings: see `FitSettings`.
        seed: of the split, the initial weights and the batches; the global generators are left alone.
        provenance: where the records come from, kept with the predictor.
        progress: called after each epoch.

    Raises:
        UserError: if there are too few records, or fitting diverges.
    """
    split = split_records(len(genomes), settings, seed)
    features = space.encode(genomes)
    known = np.concatenate([split.training, split.validation])
    mean, std = float(top1[known].mean()), float(top1[known].std()) or 1.0
    inputs = torch.from_numpy(features)
    targets = torch.from_numpy(((top1 - mean) / std).astype(np.float32))
    training = (inputs[split.training], targets[split.training])
    validation = (inputs[split.validation], targets[split.validation])
    network, best_epoch = _train(training, validation, settings, seed, progress)

    holdout = split.holdout
    with torch.inference_mode():
        predicted = {"mlp": network(inputs[holdout]).numpy().astype(np.float64) * std + mean}
    for name, predict in fit_baselines(features[known], top1[known], seed).items():
        predicted[name] = predict(features[holdout])
    metrics = {name: accuracy_metrics(values, top1[holdout]) for name, values in predicted.items()}
    info = PredictorInfo(metrics, asdict(settings), seed, len(genomes), len(holdout), dict(provenance))
    return FitReport(AccuracyPredictor(space, network, mean, std, info), metrics, split, best_epoch)


def _train(
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    settings: FitSettings,
    seed: int,
    progress: ProgressCallback,
) -> tuple[AccuracyMLP, int]:
    """Return the network with the smallest validation error, and the epoch (from 1) that gave it."""
    inputs, targets = training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AccuracyMLP(inputs.shape[1], settings.hidden_sizes)
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    rng = np.random.default_rng([seed, 1])
    best_error, best_epoch, best_state = math.inf, 0, copy.deepcopy(network.state_dict())
    for epoch in range(1, settings.max_epochs + 1):
        decay = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / settings.max_epochs))
        optimiser.param_groups[0]["lr"] = settings.learning_rate * decay
        for batch in torch.split(torch.from_numpy(rng.permutation(len(inputs))), settings.batch_size):
            optimiser.zero_grad()
            mse_loss(network(inputs[batch]), targets[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.inference_mode():
            error = mse_loss(network(validation[0]), validation[1]).item()
        if error < best_error:
            best_error, best_epoch, best_state = error, epoch, copy.deepcopy(network.state_dict())
        progress(epoch, settings.max_epochs, f"validation error {math.sqrt(best_error):.3f} std")
        if epoch - best_epoch >= settings.patience:
            break
    if not math.isfinite(best_error):
        raise UserError(
            f"Fitting diverged with learning_rate {settings.learning_rate}; expected a finite validation "
            "error. Check the accuracies of the records, or lower the learning rate."
        )
    network.load_state_dict(best_state)
    return network, best_epoch


def format_metrics(report: FitReport) -> Table:
    """Return a table of the hold-out metrics of the MLP and the baselines, side by side."""
    info = report.predictor.info
    table = Table(title=f"On {info.num_holdout} held-out of {info.num_records} sub-networks")
    table.add_column("predictor")
    for title in ("RMSE (points of top-1)", "Kendall tau", "Spearman"):
        table.add_column(title, justify="right")
    for name, values in report.metrics.items():
        table.add_row(name, *(f"{values[key]:.3f}" for key in ("rmse_points", "kendall_tau", "spearman")))
    return table
