"""Latencies of forms in a whole network: what it takes beyond its layers by themselves."""

from __future__ import annotations

import pytest
from torch import nn

from ofa.common.errors import UserError
from ofa.compression.candidates import find_candidates
from ofa.compression.form_costs import FormCosts, fastest_changes, latencies_in_network
from ofa.compression.programs import form_costs, form_programs

NETWORK = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 64, 3, padding=1)).eval()


def costs(nanoseconds: float) -> list[FormCosts]:
    """Return costs of which a multiply-accumulate takes so long, and nothing else any time."""
    layers = find_candidates(NETWORK, (16, 8, 8), ["split"]).layers
    latencies = dict.fromkeys(form_programs(NETWORK, layers), 0.0)
    free = [form_costs(NETWORK, layer, latencies) for layer in layers]
    return [
        FormCosts(
            own.candidate,
            tuple(1e-6 * nanoseconds * macs for macs in (own.candidate.macs, *own.candidate.changed_macs)),
            own.weights,
        )
        for own in free
    ]


def of_fastest(own_costs: list[FormCosts], latencies_ms: list[tuple[float, ...]]) -> float:
    """Return what the fastest forms save."""
    pairs = zip(own_costs, latencies_ms, strict=True)
    return sum(latencies[0] - latencies[own.fastest] for own, latencies in pairs)


def test_weights_are_counted() -> None:
    first, second = costs(1.0)
    assert (first.weights[0], second.weights[0]) == (16 * 16 * 9 + 16, 16 * 64 * 9 + 64)
    (rank,) = second.candidate.changes[0].ranks
    assert second.weights[1] == 16 * rank * 3 + rank * 64 * 3 + 64
    assert [change.layer for change in fastest_changes([first, second])] == ["0", "2"]


def test_what_the_sum_lacks_is_divided_among_the_weights() -> None:
    own_costs = costs(1.0)
    saved = of_fastest(own_costs, [own.latencies_ms for own in own_costs])
    fitted = latencies_in_network(own_costs, 10.0, 10.0 - saved - 1.0)
    assert of_fastest(own_costs, fitted) == pytest.approx(saved + 1.0)
    more = [
        [after - before for after, before in zip(latencies, own.latencies_ms, strict=True)]
        for own, latencies in zip(own_costs, fitted, strict=True)
    ]
    per_weight = more[0][0] / own_costs[0].weights[0]
    for values, own in zip(more, own_costs, strict=True):
        assert values == pytest.approx([per_weight * count for count in own.weights])


def test_a_sum_that_is_too_large_gets_a_factor() -> None:
    own_costs = costs(1.0)
    saved = of_fastest(own_costs, [own.latencies_ms for own in own_costs])
    fitted = latencies_in_network(own_costs, 10.0, 10.0 - saved / 2)
    for own, latencies in zip(own_costs, fitted, strict=True):
        assert latencies[0] == own.latencies_ms[0]
        assert latencies[0] - latencies[1] == pytest.approx((own.latencies_ms[0] - own.latencies_ms[1]) / 2)


def test_forms_that_save_nothing_in_the_network() -> None:
    with pytest.raises(UserError, match=r"takes 10 ms, unchanged 10 ms: these steps gain nothing"):
        latencies_in_network(costs(1.0), 10.0, 10.0)
