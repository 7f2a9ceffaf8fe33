"""`FormCosts`: what forms of convolutions take by themselves, and from that what they take in a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofa.common.errors import UserError
from ofa.compression.candidates import Candidate
from ofa.compression.changes import LayerChange


@dataclass(frozen=True)
class FormCosts:
    """What a convolution, unchanged and in each of its forms, takes by itself.

    Attributes:
        candidate: the convolution.
        latencies_ms: milliseconds, unchanged first.
        weights: number of weights, unchanged first.
    """

    candidate: Candidate
    latencies_ms: tuple[float, ...]
    weights: tuple[int, ...]

    @property
    def fastest(self) -> int:
        """Position of the fastest form, 0 for the convolution itself."""
        return min(range(len(self.latencies_ms)), key=self.latencies_ms.__getitem__)


def fastest_changes(costs: Sequence[FormCosts]) -> tuple[LayerChange, ...]:
    """Return the fastest form of every convolution that has one faster than itself."""
    return tuple(own.candidate.changes[own.fastest - 1] for own in costs if own.fastest)


def latencies_in_network(
    costs: Sequence[FormCosts], total_ms: float, fastest_ms: float
) -> list[tuple[float, ...]]:
    """Return latencies of which those of the fastest forms save together what they save in the network.

    A layer that is measured by itself finds its weights in the cache; in a network whose weights do not fit
    into it, they have to be read anew. So what the fastest forms save beyond the sum is divided among the
    weights that they save. Where they save less than the sum, all savings get one factor.

    Args:
        costs: what the convolutions take by themselves.
        total_ms: latency of the unchanged network.
        fastest_ms: latency of the network with `fastest_changes`.

    Raises:
        UserError: if that network is no faster.
    """
    if fastest_ms >= total_ms:
        raise UserError(
            f"With the fastest form of every convolution the network takes {fastest_ms:.4g} ms, unchanged "
            f"{total_ms:.4g} ms: these steps gain nothing here."
        )
    saved_ms = sum(own.latencies_ms[0] - own.latencies_ms[own.fastest] for own in costs)
    saved_weights = sum(own.weights[0] - own.weights[own.fastest] for own in costs)
    more_ms = total_ms - fastest_ms - saved_ms
    if more_ms > 0 and saved_weights > 0:
        ms = more_ms / saved_weights
        return [
            tuple(latency + ms * count for latency, count in zip(own.latencies_ms, own.weights, strict=True))
            for own in costs
        ]
    factor = (total_ms - fastest_ms) / saved_ms
    return [
        tuple(own.latencies_ms[0] + factor * (latency - own.latencies_ms[0]) for latency in own.latencies_ms)
        for own in costs
    ]
