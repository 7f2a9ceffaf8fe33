"""How long a collection takes, said after its first networks."""

from __future__ import annotations

import math

from ofa.common.progress import Note, duration_text

NUM_TIMED = 2
MAX_UNSAID_S = 300.0
"""Collections that take longer than this get the count that takes about so long proposed."""

MIN_PROPOSED = 40
"""The smallest count that is proposed; with fewer records a predictor hardly ranks networks."""


class CollectionPace:
    """Says once, after `NUM_TIMED` networks, how long the rest takes, and which count would be quicker."""

    def __init__(self, note: Note) -> None:
        """Begin without a measurement; `note` takes the line."""
        self._note, self._seconds = note, list[float]()

    def add(self, seconds: float, num_done: int, count: int, at_once: int = 1) -> None:
        """Add the seconds of the networks that were measured last.

        Args:
            seconds: time of `at_once` networks, measured at the same time.
            num_done: number of records.
            count: number of records in the end.
            at_once: number of processes.
        """
        self._seconds.append(seconds)
        if len(self._seconds) != NUM_TIMED:
            return
        mean_s = _logarithmic_mean(*self._seconds) / at_once
        remaining_s = (count - num_done) * mean_s
        if remaining_s < MAX_UNSAID_S:
            return
        line = f"about {duration_text(remaining_s)} for {count - num_done} more sub-networks"
        proposal = num_done + int(MAX_UNSAID_S / mean_s / 10) * 10
        if MIN_PROPOSED <= proposal < count:
            line += f"; count={proposal} takes about {duration_text((proposal - num_done) * mean_s)}"
        self._note(line)


def _logarithmic_mean(first: float, second: float) -> float:
    """Return the mean over values that are spread evenly in their logarithm between two ends.

    The first networks of a stratified collection are the smallest and the largest one.
    """
    low, high = sorted((first, second))
    return (high - low) / math.log(high / low) if high > 1.001 * low > 0 else high
