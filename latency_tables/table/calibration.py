"""Networks for calibrating and validating a table: their choice, the affine fit, the error."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from latency_tables.table.affine_fit import fit_affine
from latency_tables.table.amounts import AMOUNTS, MILLION
from latency_tables.table.regression import MAX_NETWORKS as MAX_FITTED
from latency_tables.table.regression import LatencyFit, Values, fit_latencies, left_out_ms, min_networks
from latency_tables.table.timing import process_latency_ms, summarize
from ofa.architecture.cost import space_costs
from ofa.architecture.layer import LayerSpec
from ofa.common.display import listed_names
from ofa.common.errors import UserError
from ofa.common.metrics import kendall_tau, mape
from ofa.space.config import Config
from ofa.space.estimator import Estimator
from ofa.space.genes import unique_rows
from ofa.space.space import SearchSpace

C = TypeVar("C", bound=Config)

Runs = Sequence[Sequence[float]]
"""Milliseconds of all runs of a network, one list per process."""

MAX_NETWORKS = 1000
"""Most networks of a table: each is measured in every round."""

_CANDIDATES_PER_CALIBRATION_NETWORK = 12
_NUM_SUMS = 1000


def choose_networks(
    space: SearchSpace[C], num_calibration: int, num_validation: int, rng: np.random.Generator
) -> tuple[tuple[C, ...], tuple[C, ...]]:
    """Return distinct random networks of a space whose MACs are known: for calibration, and for validation.

    Validation networks are plain draws. Calibration networks are spread evenly over the MACs of further
    draws, so that the fit covers short and long latencies.

    Raises:
        UserError: if the space is too small for so many distinct networks, or they are too many.
    """
    num_needed = num_calibration + num_validation
    if num_needed > MAX_NETWORKS:
        raise UserError(
            f"num_calibration and num_validation are {num_calibration} and {num_validation}; expected at "
            f"most {MAX_NETWORKS} together."
        )
    num_drawn = num_validation + num_calibration * _CANDIDATES_PER_CALIBRATION_NETWORK
    genomes = space.sample(10 * num_drawn, rng)
    genomes = genomes[unique_rows(genomes)][:num_drawn]
    if len(genomes) < num_needed:
        raise UserError(
            f"Random draws from space {space.name!r} gave {len(genomes)} distinct networks; calibration and "
            f"validation need {num_needed}. Use a larger space or fewer networks."
        )
    configs = [space.config(genome) for genome in genomes]
    order = np.argsort(space_costs(space)["macs"](genomes[num_validation:]), kind="stable")
    indices = np.linspace(0, len(order) - 1, num_calibration).round().astype(int)
    candidates = configs[num_validation:]
    return tuple(candidates[order[i]] for i in indices), tuple(configs[:num_validation])


def smallest_sum(space: SearchSpace, total: Estimator, rng: np.random.Generator) -> float:
    """Return the smallest sum of the first choices of all genes and of random networks of a space.

    Args:
        space: the networks.
        total: sum of the entries of a population.
        rng: source of the random networks.
    """
    first_choices = np.array([[allowed[0] for allowed in space.allowed]], np.int8)
    genomes = np.concatenate([space.canonical(first_choices), space.sample(_NUM_SUMS, rng)])
    return float(total(genomes).min())


def calibrate(
    configs: Sequence[Config],
    sums_ms: Sequence[float],
    runs: Sequence[Runs],
    smallest_sum_ms: float,
    amounts: NDArray[np.float64] | None = None,
) -> Calibration:
    """Return the map from sums of entries to latencies, fitted on these networks.

    With amounts of work, kinds of layers are weighted anew where that predicts a network by the others better
    than an affine map of the sums does: a layer between two narrow convolutions, or alone, does not take
    exactly what it takes in a network, and what is missing depends on its kind.

    Args:
        configs: the networks.
        sums_ms: sum of the entries of each, in milliseconds.
        runs: runs of each.
        smallest_sum_ms: smallest sum in the space; its latency is positive, too.
        amounts: amounts of work of each, shape (n, number of amounts); see `amounts_of`.
    """
    measured_ms = np.array([summarize(r).latency_ms for r in runs])
    scale, offset = fit_affine(sums_ms, measured_ms.tolist(), smallest_sum_ms)
    ms_per_million: dict[str, float] = {}
    sums = np.array(sums_ms)
    if amounts is not None and (fit := _better_fit(np.column_stack([sums, amounts]), measured_ms)):
        (scale, *weights), offset = fit.weights, fit.offset_ms
        named_weights = zip(AMOUNTS, weights, strict=True)
        ms_per_million = {name: weight / scale for name, weight in named_weights if weight}
        sums += amounts @ weights / scale
    return Calibration(scale, offset, _records(configs, sums, runs, scale, offset), ms_per_million)


def _better_fit(columns: Values, measured_ms: Values) -> LatencyFit | None:
    """Return the fit of sums and amounts if it predicts left-out networks better than the sums alone."""
    if not min_networks(1) <= len(columns) <= MAX_FITTED:
        return None
    sums = columns[:, 0]

    def by_line(rest: NDArray[np.bool_], left_out: int) -> float:
        scale, offset = fit_affine(sums[rest].tolist(), measured_ms[rest].tolist())
        return scale * float(sums[left_out]) + offset

    numbers = np.arange(len(sums))
    line_ms = np.array([by_line(numbers != left_out, left_out) for left_out in range(len(sums))])
    fit_ms = left_out_ms(columns, 1, measured_ms)
    if mape(fit_ms, measured_ms) >= mape(line_ms, measured_ms):
        return None
    fit = fit_latencies(columns, 1, measured_ms)
    return fit if fit.weights[0] > 0 and any(fit.weights[1:]) else None


def validate(
    configs: Sequence[Config], sums_ms: Sequence[float], runs: Sequence[Runs], calibration: Calibration
) -> Validation:
    """Return the errors of the calibrated sums on these networks, and their repeatability."""
    networks = _records(configs, sums_ms, runs, calibration.scale, calibration.offset_ms)
    return Validation.of(networks, repeatability_percent(runs))


def repeatability_percent(runs: Sequence[Runs]) -> float | None:
    """Return the median relative difference of a network's latency between processes, in percent.

    No estimate can be expected to be closer to a single process. None with a single process.
    """
    differences = []
    for processes in runs:
        latencies = [process_latency_ms(process) for process in processes]
        pairs = [abs(a - b) for a, b in itertools.combinations(latencies, 2)]
        if pairs:
            differences.append(100 * float(np.mean(pairs) / np.mean(latencies)))
    return float(np.median(differences)) if differences else None


def _records(
    configs: Sequence[Config],
    sums_ms: Sequence[float] | Values,
    runs: Sequence[Runs],
    scale: float,
    offset_ms: float,
) -> tuple[MeasuredNetwork, ...]:
    return tuple(
        MeasuredNetwork(
            id=config.id,
            config=config.to_dict(),
            measured_ms=timing.latency_ms,
            predicted_ms=float(scale * sum_ms + offset_ms),
            spread_ms=timing.spread_ms,
        )
        for config, sum_ms, timing in zip(configs, sums_ms, map(summarize, runs), strict=True)
    )


@dataclass(frozen=True)
class MeasuredNetwork:
    """A whole network: its id and config, end-to-end measurement and the table's prediction (ms)."""

    id: str
    config: dict[str, Any]
    measured_ms: float
    predicted_ms: float
    spread_ms: float

    def __post_init__(self) -> None:
        """Check that all values are finite."""
        for name in ("measured_ms", "predicted_ms", "spread_ms"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} is {getattr(self, name)}; expected a number.")


@dataclass(frozen=True)
class Calibration:
    """Network latency = scale * (sum of its layers) + offset_ms, fitted on `networks`.

    Attributes:
        scale: factor of the sum.
        offset_ms: milliseconds of every network.
        networks: networks of the fit.
        ms_per_million: milliseconds that each layer adds to its entry for a million of an amount of its
            work, by names of `AMOUNTS`.
    """

    scale: float
    offset_ms: float
    networks: tuple[MeasuredNetwork, ...]
    ms_per_million: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the latency increases with the sum, and the amounts of work."""
        if unknown_names := sorted(set(self.ms_per_million) - set(AMOUNTS)):
            raise UserError(f"Unknown amounts of work: {listed_names(unknown_names)}.")
        if not all(0 <= value < math.inf for value in self.ms_per_million.values()):
            raise UserError(f"ms_per_million is {self.ms_per_million}; expected finite numbers from 0 on.")
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.offset_ms)):
            raise UserError(
                f"scale and offset_ms are {self.scale} and {self.offset_ms}; "
                "expected a positive scale and a finite offset_ms."
            )

    def work_ms(self, spec: LayerSpec) -> float:
        """Return the milliseconds that a layer adds to its entry for its work."""
        return sum(value * AMOUNTS[name](spec) / MILLION for name, value in self.ms_per_million.items())


@dataclass(frozen=True)
class Validation:
    """The table's error on networks that their predictions were not fitted to.

    Attributes:
        mape_percent: mean absolute percentage error of the predictions.
        max_error_percent: largest error, in percent.
        kendall_tau: rank correlation of predictions and measurements.
        networks: predicted and measured networks.
        repeatability_percent: median relative difference of a network's latency between processes, at a
            common speed of the machine: a lower bound of any error. None with a single process.
        cross_validated: whether the networks are those of the calibration, each predicted by a fit to the
            others.
    """

    mape_percent: float
    max_error_percent: float
    kendall_tau: float
    networks: tuple[MeasuredNetwork, ...]
    repeatability_percent: float | None = None
    cross_validated: bool = False

    @classmethod
    def of(
        cls,
        networks: Sequence[MeasuredNetwork],
        repeatability_percent: float | None = None,
        *,
        cross_validated: bool = False,
    ) -> Validation:
        """Return the errors of the predictions for these networks."""
        predictions = np.array([network.predicted_ms for network in networks])
        measurements = np.array([network.measured_ms for network in networks])
        return cls(
            mape(predictions, measurements),
            float(100 * np.max(np.abs(predictions - measurements) / measurements)),
            kendall_tau(predictions, measurements),
            tuple(networks),
            repeatability_percent,
            cross_validated,
        )

    @property
    def text(self) -> str:
        """One line about the error."""
        floor = self.repeatability_percent
        repeated = "" if floor is None else f" (the same networks differ by {floor:.2f} % between processes)"
        kind = "left-out" if self.cross_validated else "other"
        return (
            f"error on {len(self.networks)} {kind} whole networks: MAPE {self.mape_percent:.2f} %, "
            f"max {self.max_error_percent:.2f} %, tau {self.kendall_tau:.3f}{repeated}"
        )
