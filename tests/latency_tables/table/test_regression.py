from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from latency_tables.table.regression import (
    MAX_NETWORKS,
    STRENGTHS,
    fit_latencies,
    left_out_ms,
    min_networks,
)
from ofa.common.errors import UserError

Values = NDArray[np.float64]


def drawn_columns(num_networks: int = 10, num_columns: int = 4, seed: int = 0) -> Values:
    """Columns of very different sizes."""
    return np.random.default_rng(seed).uniform(1.0, 3.0, (num_networks, num_columns)) * 10.0 ** np.arange(
        num_columns
    )


def noisy(values: Values, seed: int = 1) -> Values:
    return values * np.exp(0.05 * np.random.default_rng(seed).standard_normal(len(values)))


def bounded_fit(columns: Values, measured: Values, strength: float, num_free: int = 1) -> Values:
    """Weights and offset of the penalised problem by another solver, for a finite strength."""
    shares = np.column_stack([columns, np.ones(len(columns))]) / measured[:, None]
    penalty = math.sqrt(strength * len(columns)) * np.diag((columns / measured[:, None]).mean(0))[num_free:]
    rows = np.vstack([shares, np.column_stack([penalty, np.zeros(len(penalty))])])
    scales = np.abs(rows).max(0)
    targets = np.concatenate([np.ones(len(columns)), np.zeros(len(penalty))])
    solution: Values = lsq_linear(rows / scales, targets, (0, np.inf), tol=1e-14).x / scales
    return solution


def test_a_positive_combination_of_the_columns_is_recovered() -> None:
    columns = drawn_columns()
    measured = columns @ [2.0, 0.0, 0.01, 0.003] + 1.5
    fit = fit_latencies(columns, 1, measured)
    assert fit.weights == pytest.approx((2.0, 0.0, 0.01, 0.003), abs=1e-9)
    assert fit.offset_ms == pytest.approx(1.5)
    others = drawn_columns(50, seed=2)
    np.testing.assert_allclose(fit.predict(others), others @ [2.0, 0.0, 0.01, 0.003] + 1.5, rtol=1e-9)
    np.testing.assert_allclose(left_out_ms(columns, 1, measured), measured, rtol=1e-9)


def test_an_affine_map_of_the_free_column_needs_no_other() -> None:
    columns = drawn_columns()
    fit = fit_latencies(columns, 1, 3.0 * columns[:, 0] + 0.25)
    assert fit.strength == math.inf
    assert fit.weights == pytest.approx((3.0, 0.0, 0.0, 0.0)) and fit.offset_ms == pytest.approx(0.25)


def test_weights_are_never_negative() -> None:
    columns = drawn_columns()
    # Latencies fall with two of the columns.
    measured = 40.0 - columns @ [1.0, 1.0, 0.0, 0.0]
    assert measured.min() > 0
    fit = fit_latencies(columns, 1, measured)
    assert min(*fit.weights, fit.offset_ms) >= 0
    assert fit.predict(drawn_columns(500, seed=3)).min() > 0


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_that_of_the_strength_with_the_smallest_left_out_error(seed: int) -> None:
    columns = drawn_columns(seed=seed)
    measured = noisy(columns @ [2.0, 0.1, 0.0, 0.002] + 1.0, seed)

    def error(strength: float) -> float:
        errors = []
        for index in range(len(measured)):
            rest = np.arange(len(measured)) != index
            if math.isinf(strength):
                solution = np.zeros(5)
                solution[[0, 4]] = bounded_fit(columns[rest][:, :1], measured[rest], 0.0)
            else:
                solution = bounded_fit(columns[rest], measured[rest], strength)
            predicted = columns[index] @ solution[:-1] + solution[-1]
            errors.append((predicted / measured[index] - 1) ** 2)
        return float(sum(errors))

    fit = fit_latencies(columns, 1, measured)
    assert fit.strength == min(STRENGTHS, key=error)
    if math.isfinite(fit.strength):
        expected = bounded_fit(columns, measured, fit.strength)
        assert [*fit.weights, fit.offset_ms] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-7)


def test_the_left_out_network_has_no_part_in_its_prediction() -> None:
    columns = drawn_columns()
    measured = noisy(columns @ [2.0, 0.1, 0.0, 0.002] + 1.0)
    predictions = left_out_ms(columns, 1, measured)
    rest = np.arange(10) != 4
    assert predictions[4] == fit_latencies(columns[rest], 1, measured[rest]).predict(columns[[4]])[0]
    changed = measured.copy()
    changed[4] *= 3
    assert left_out_ms(columns, 1, changed)[4] == predictions[4]


def test_a_column_that_is_zero_everywhere_has_no_weight() -> None:
    columns = drawn_columns()
    columns[:, 2] = 0.0
    fit = fit_latencies(columns, 1, noisy(columns @ [2.0, 0.1, 0.0, 0.002]))
    assert fit.weights[2] == 0.0


@pytest.mark.parametrize("num_networks", [4, MAX_NETWORKS + 1])
def test_too_few_and_too_many_networks_are_refused(num_networks: int) -> None:
    columns = drawn_columns(num_networks)
    for function in (fit_latencies, left_out_ms):
        with pytest.raises(UserError, match=f"{num_networks} networks; expected 5 to {MAX_NETWORKS}"):
            function(columns, 1, columns.sum(1))
    assert min_networks(1) == 5


def test_the_fewest_networks_suffice() -> None:
    columns = drawn_columns(min_networks(2))
    assert fit_latencies(columns, 2, columns[:, 0] + columns[:, 1]).weights[:2] == pytest.approx((1.0, 1.0))
