"""The machine's speed is taken out of measurements; the programs' own latencies stay."""

from __future__ import annotations

import numpy as np
import pytest

from latency_tables.measuring.drift import remove_drift
from latency_tables.table.timing import process_latency_ms

Window = list[tuple[str, list[float]]]


def measured(
    latencies: dict[str, float], speeds: list[float], per_window: int, noise: float, seed: int
) -> list[Window]:
    """Return visits to random programs in windows of a machine with these speeds."""
    rng = np.random.default_rng(seed)
    names = list(latencies)
    return [
        [
            (name, [latencies[name] * speed * float(rng.normal(1, noise)) for _ in range(3)])
            for name in rng.choice(names, per_window)
        ]
        for speed in speeds
    ]


def latencies_of(windows: list[Window]) -> dict[str, float]:
    runs: dict[str, list[float]] = {}
    for name, found in (visit for window in windows for visit in window):
        runs.setdefault(name, []).extend(found)
    return {name: process_latency_ms(found) for name, found in runs.items()}


def test_changes_of_speed_are_taken_out() -> None:
    rng = np.random.default_rng(0)
    truth = {f"p{i}": float(latency) for i, latency in enumerate(rng.uniform(0.1, 5, 40))}
    # Phases of a minute at one speed, as a shared host has them.
    speeds = np.repeat(rng.uniform(1, 1.6, 12), 10).tolist()
    windows = measured(truth, speeds, 12, 0.01, 1)
    for found, most in ((latencies_of(windows), 0.6), (latencies_of(remove_drift(windows)), 0.025)):
        ratios = np.array([found[name] / truth[name] for name in truth])
        error = float(np.ptp(ratios) / np.median(ratios))
        assert error < most
    assert error > 0
    # The common speed is that of the fast slots.
    assert np.median(ratios) == pytest.approx(np.percentile(np.repeat(speeds, 12), 5), rel=0.05)


def test_a_steady_machine_changes_nothing_but_noise() -> None:
    windows = measured({"a": 1.0, "b": 2.0}, [1.0] * 30, 10, 0.0, 2)
    for before, after in zip(windows, remove_drift(windows), strict=True):
        assert [name for name, _ in before] == [name for name, _ in after]
        assert [runs for _, runs in after] == [pytest.approx(runs) for _, runs in before]


def test_short_windows_are_joined() -> None:
    # One visit cannot tell a slow program from a slow slot; alone, each would be made equal to its median.
    latencies = {"a": 1.0, "b": 3.0}
    windows = measured(latencies, [1.0, 1.5] * 40, 1, 0.2, 3)
    found = [runs for window in remove_drift(windows) for _, runs in window]
    assert np.std(np.concatenate(found)) > 0.3
    spread = [
        process_latency_ms(runs) for window in remove_drift(windows) for name, runs in window if name == "a"
    ]
    assert np.std(spread) > 0.02


def test_nothing_measured_stays_nothing() -> None:
    assert remove_drift([]) == []
    assert remove_drift([[]]) == [[]]
