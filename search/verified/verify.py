"""Verified search: candidates are measured, the estimator is corrected by what is seen, and searched again.

A search comes up with networks that its estimator takes for fast; some of them are not. So candidates just
below and just above the limit are measured end to end, the estimator is scaled to what was measured, and the
search is repeated for candidates that are more accurate than the best one that keeps the limit. What is
returned was measured inside the limit, with a margin for what measurements differ by, and once more alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ofa.common.config import below_minimum
from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.space.config import AnyConfig
from ofa.space.estimator import Affine, Estimator
from ofa.space.space import SearchSpace
from search.algorithms.registry import SearchPlan
from search.limits.limit import Limit
from search.limits.reachable import smallest_reachable
from search.result.result import Candidate, SearchResult
from search.result.verification import Verification, VerifiedNetwork
from search.verified.correction import fit_correction, fit_margin
from search.verified.measure import Measure

AIMS = (-1.5, -0.5, 0.5)
"""Targets relative to the limit, in standard deviations of the corrected estimator."""

TOO_FAST = 0.9
MORE_TURNS = 3
"""Turns that are added while no network keeps the limit, or the best is below `TOO_FAST` of it."""

_JUST_ABOVE = 1 + 1e-6


@dataclass(frozen=True)
class VerifySettings:
    """Effort of `verified_search`.

    Attributes:
        turns: of search, measurement and correction.
        candidates: networks that are measured in a turn, at most.
        processes: fresh processes in which each of them is measured.
    """

    turns: int = 4
    candidates: int = 6
    processes: int = 3

    def __post_init__(self) -> None:
        """Check all ranges and report every value that is outside."""
        if problems := below_minimum(self, {"turns": 1, "candidates": 1, "processes": 1}):
            raise UserError(" ".join(problems))


def verified_search(
    plan: SearchPlan,
    space: SearchSpace,
    accuracy: Estimator,
    limits: Sequence[Limit],
    seed: int,
    measure: Measure,
    settings: VerifySettings | None = None,
    progress: ProgressCallback = silent,
) -> SearchResult:
    """Search the most accurate network whose measured value keeps the first limit.

    Args:
        plan: a search for one network.
        space: the (restricted) space to search.
        accuracy: what to maximise.
        limits: the first is verified; the others are kept by their estimators.
        seed: of the searches.
        measure: measures networks in the unit of the first limit.
        settings: effort.
        progress: passed to the searches.

    Returns:
        The result with `verification`. If a network was found to keep the limit, it is the best, all ranked
        candidates were measured, and their value of the first limit is the measured one. Otherwise `measure`
        could not measure here: candidates are pending, and the result is that of the corrected search.

    Raises:
        UserError: if the plan finds a front, the first limit is infinite, or no sub-network keeps the limits;
            where the first limit is too small, with the measured value of the smallest network.
    """
    if plan.finds_front:
        raise UserError(
            f"search={plan.algorithm} finds a whole front; verify=true looks for one network inside a limit. "
            "Use search=evolution."
        )
    if not limits[0].bounded:
        raise UserError(f"{limits[0].name} is infinite; verify=true expects a finite limit.")
    verifier = _Verifier(plan, space, accuracy, tuple(limits), seed, measure, progress)
    return verifier.run(settings or VerifySettings())


class _Verifier:
    """The state of a verified search: what was measured, and what follows from it."""

    def __init__(
        self,
        plan: SearchPlan,
        space: SearchSpace,
        accuracy: Estimator,
        limits: tuple[Limit, ...],
        seed: int,
        measure: Measure,
        progress: ProgressCallback,
    ) -> None:
        self._plan, self._space, self._accuracy, self._limits = plan, space, accuracy, limits
        self._seed, self._measure, self._progress = seed, measure, progress
        self._limit = limits[0]
        self._networks: dict[AnyConfig, VerifiedNetwork] = {}
        self._pending: tuple[AnyConfig, ...] = ()
        self._repeated: set[AnyConfig] = set()
        genome, self._min_value = smallest_reachable(
            space, self._limit.estimator, np.random.default_rng(seed)
        )
        self._smallest = space.config(genome)
        self._seconds = 0.0

    def run(self, settings: VerifySettings) -> SearchResult:
        """Make the turns; see `verified_search`."""
        self._take({c: v for c, v in self._measure.known.items() if self._space.contains(c)})
        max_turns, num_failed = settings.turns + MORE_TURNS, 0
        for turn in range(max_turns):
            self._refuse_unreachable()
            best = self._best()
            if turn >= settings.turns and best and best.measured >= TOO_FAST * self._limit.maximum:
                break
            picks = self._pick(settings.candidates, num_failed) or self._contradicted(settings.candidates)
            if not picks or not self._measured(picks):
                break
            num_failed = 0 if self._best() else num_failed + 1
        if not (self._best() or self._pending or self._smallest in self._networks):
            self._measured([self._smallest])
        self._refuse_unreachable()
        self._confirm(max_turns)
        return self._result()

    # -- what is known -----------------------------------------------------------------------------

    def _verification(self) -> Verification:
        """Return what was measured so far; the choice is the most accurate network that keeps the limit."""
        networks = tuple(sorted(self._networks.values(), key=lambda n: (-n.accuracy, n.measured)))
        scale = fit_correction(networks, self._limit.maximum).scale
        margin = fit_margin(networks)
        verification = Verification(self._limit.name, scale, margin, networks, None, self._pending)
        chosen_id = next((n.config.id for n in networks if verification.keeps(n, self._limit.maximum)), None)
        return dataclasses.replace(verification, chosen=chosen_id)

    def _best(self) -> VerifiedNetwork | None:
        verification = self._verification()
        return next((n for n in verification.networks if n.config.id == verification.chosen), None)

    def _measured(self, configs: Sequence[AnyConfig]) -> bool:
        """Have networks measured; return whether they were, else they are pending."""
        measurements = self._measure(configs)
        self._take(measurements)
        self._pending = () if measurements else tuple(configs)
        return bool(measurements)

    def _take(self, runs: Mapping[AnyConfig, Sequence[float]]) -> None:
        if not runs:
            return
        genomes = self._space.genomes(list(runs))
        accuracies, predictions = self._accuracy(genomes), self._limit.estimator(genomes)
        for (config, values), top1, value in zip(runs.items(), accuracies, predictions, strict=True):
            earlier_measurements = self._networks[config].measurements if config in self._networks else ()
            measurements = (*earlier_measurements, tuple(map(float, values)))
            self._networks[config] = VerifiedNetwork(config, float(top1), float(value), measurements)

    def _refuse_unreachable(self) -> None:
        """Raise if the smallest network was measured outside the limit, and no network inside."""
        verification, limit = self._verification(), self._limit
        smallest = self._networks.get(self._smallest)
        if smallest is None or verification.chosen is not None:
            return
        min_limit = smallest.measured * (1 + verification.margin)
        raise UserError(
            f"No sub-network of space {self._space.name!r} reaches {limit.name} = "
            f"{limit.show(limit.maximum)}; the smallest reachable was measured at "
            f"{limit.show(smallest.measured)} (predicted {limit.show(smallest.predicted)}). Raise the limit "
            f"to at least {limit.show(min_limit)}, which leaves room for what measurements differ by."
        )

    # -- searching ---------------------------------------------------------------------------------

    def _search(self, maximum: float) -> SearchResult:
        """Search with the corrected estimator under `maximum`, or what the smallest network needs."""
        scale = self._verification().scale
        maximum = max(maximum, scale * self._min_value * _JUST_ABOVE)
        corrected_limit = dataclasses.replace(
            self._limit, estimator=Affine(self._limit.estimator, scale), maximum=maximum
        )
        limits = (corrected_limit, *self._limits[1:])
        result = self._plan.run(self._space, self._accuracy, limits, self._seed, self._progress)
        self._seconds += result.seconds
        return result

    def _pick(self, count: int, num_failed: int) -> list[AnyConfig]:
        """Return networks to measure: new, more accurate than the best, just below and above the limit.

        Args:
            count: their largest number.
            num_failed: turns on end in which no network kept the limit; each lowers the aims.
        """
        networks, best = list(self._networks.values()), self._best()
        aim = self._limit.maximum / (1 + (fit_margin(networks) if networks else 0.0))
        spread = fit_correction(networks, self._limit.maximum).spread
        picks: list[AnyConfig] = []
        refused: list[UserError] = []
        for index, offset in enumerate(AIMS):
            share = count * (index + 1) // len(AIMS) - len(picks)
            try:
                result = self._search(aim * (1 + (offset - num_failed) * spread))
            except UserError as error:
                # Tightened, this limit can be out of reach together with the others.
                refused.append(error)
                continue
            picks += self._different(result, picks, share, best.accuracy if best else -np.inf)
        if len(refused) == len(AIMS) and not best:
            raise refused[-1]
        return picks

    def _contradicted(self, count: int) -> list[AnyConfig]:
        """Return networks to measure anew, each once: by the best network's measurement they keep the limit.

        A device that was busy while the first networks were measured makes all of them look too slow, and the
        search stays far below the limit. What was measured of them is forgotten.
        """
        best, verification = self._best(), self._verification()
        if best is None or best.measured >= TOO_FAST * self._limit.maximum or not self._measure.here:
            return []
        max_predicted = self._limit.maximum / (1 + verification.margin) * best.predicted / best.measured
        candidates = [
            n.config
            for n in verification.networks
            if n.accuracy > best.accuracy and n.predicted <= max_predicted
        ]
        repeated_configs = [config for config in candidates if config not in self._repeated][:count]
        self._repeated.update(repeated_configs)
        for config in repeated_configs:
            del self._networks[config]
        return repeated_configs

    def _different(
        self, result: SearchResult, picks: Sequence[AnyConfig], count: int, above: float
    ) -> list[AnyConfig]:
        """Return up to `count` new candidates with an accuracy above `above`: the best, then unlike ones."""
        # Only the upper end of the front, which reaches down to the smallest networks, competes.
        upper = (*result.ranked, *reversed(result.front[-len(result.ranked) :]))
        pool = [c.config for c in upper if c.accuracy > above and c.config not in picks]
        pool = [config for config in dict.fromkeys(pool) if config not in self._networks]
        new_configs = pool[: min(1, count)]
        while len(new_configs) < min(count, len(pool)):
            remaining_configs = [config for config in pool if config not in new_configs]
            other_genomes = self._space.genomes([*picks, *new_configs])
            differing = self._space.genomes(remaining_configs)[:, None] != other_genomes[None]
            new_configs.append(remaining_configs[int(differing.sum(axis=2).min(axis=1).argmax())])
        return new_configs

    # -- the result --------------------------------------------------------------------------------

    def _confirm(self, max_attempts: int) -> None:
        """Measure the choice again, alone; where it fails, the next one."""
        for _ in range(max_attempts if self._measure.here else 0):
            best = self._best()
            if best is None or len(best.measurements) > 1:
                return
            self._measured([best.config])

    def _result(self) -> SearchResult:
        verification, best, limit = self._verification(), self._best(), self._limit
        try:
            result = self._search(limit.maximum)
        except UserError:
            # A network that was measured inside can lie outside all limits together as corrected.
            if best is None:
                raise
            result = self._search(verification.scale * best.predicted * _JUST_ABOVE)
        records = (dataclasses.replace(result.limits[0], maximum=limit.maximum), *result.limits[1:])
        networks_inside = (n for n in verification.networks if verification.keeps(n, limit.maximum))
        ranked = tuple(map(self._candidate, networks_inside)) or result.ranked
        return dataclasses.replace(
            result, limits=records, ranked=ranked, verification=verification, seconds=self._seconds
        )

    def _candidate(self, network: VerifiedNetwork) -> Candidate:
        """Return the network with its measured value of the first limit."""
        genome = self._space.genome(network.config)[None]
        others = {limit.name: float(limit.estimator(genome)[0]) for limit in self._limits[1:]}
        return Candidate(network.config, network.accuracy, {self._limit.name: network.measured, **others})
