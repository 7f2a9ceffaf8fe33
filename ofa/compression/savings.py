"""What forms of convolutions save in a whole network, from what they save by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa.common.errors import UserError
from ofa.compression.candidates import Candidate
from ofa.compression.changes import LayerChange

Latencies = Mapping[str, Sequence[float]]
"""Milliseconds by convolution: unchanged, and of each of its forms."""


def fastest_changes(candidates: Sequence[Candidate], latencies_ms: Latencies) -> tuple[LayerChange, ...]:
    """Return the fastest form of every convolution that has one faster than itself."""
    changes = []
    for layer in candidates:
        own, *of_forms = latencies_ms[layer.layer]
        if min(of_forms) < own:
            changes.append(layer.changes[of_forms.index(min(of_forms))])
    return tuple(changes)


def scaled_savings(
    latencies_ms: Latencies, total_ms: float, fastest_ms: float
) -> dict[str, tuple[float, ...]]:
    """Return latencies whose savings are multiplied by one factor, so that their sum holds in the network.

    A layer that is measured by itself finds its weights in the cache, and has other neighbours.

    Args:
        latencies_ms: latencies of forms by themselves.
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
    saved = sum(latencies[0] - min(latencies) for latencies in latencies_ms.values())
    factor = (total_ms - fastest_ms) / saved
    return {
        name: tuple(latencies[0] + factor * (latency - latencies[0]) for latency in latencies)
        for name, latencies in latencies_ms.items()
    }
