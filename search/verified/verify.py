"""Verified search: candidates are measured, the estimator is corrected, and the search repeated.

A search is biased towards networks whose latency its estimator underestimates. Therefore candidates just
below and just above the limit are measured end to end, the estimator is scaled to the measurements, and the
search is repeated for more accurate candidates than the best that keeps the limit. The result was measured
inside the limit with a margin for the spread of measurements, and confirmed by a separate measurement.
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
from search.verified.picks import different_configs

TARGETS = (-1.5, -0.5, 0.5)
"""Targets relative to the limit, in standard deviations of the corrected estimator."""

TOO_FAST = 0.9
MORE_TURNS = 3
"""Additional turns while no network keeps the limit, or the best is faster than `TOO_FAST` of it."""

_JUST_ABOVE = 1 + 1e-6


@dataclass(frozen=True)
class VerifySettings:
    """Effort of `verified_search`.

    Attributes:
        turns: number of turns of search, measurement and correction.
        candidates: largest number of networks measured per turn.
        processes: fresh processes per measurement.
    """

    turns: int = 4
    candidates: int = 6
    processes: int = 3

    def __post_init__(self) -> None:
        """Check all ranges and report every value out of range."""
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
    """Search for the most accurate network whose measured value keeps the first limit.

    Args:
        plan: a search for one network.
        space: the (restricted) space to search.
        accuracy: estimator that is maximised.
        limits: limits; the first is verified by measurement, the others by their estimators.
        seed: seed of the searches.
        measure: measures networks in the unit of the first limit.
        settings: effort of the verification.
        progress: passed to the searches.

    Returns:
        The result with `verification`. If a measured network keeps the limit, it is the best, all ranked
        candidates are measured, and their value of the first limit is the measured one. Otherwise `measure`
        could not measure at once: candidates are pending, and the result is that of the corrected search.

    Raises:
        UserError: if the plan finds a front, the first limit is infinite, or no sub-network keeps the limits;
            if the first limit is too small, with the measured value of the smallest network.
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
    """The state of a verified search: measurements and their consequences."""

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
        """Run the turns; see `verified_search`."""
        self._take({c: v for c, v in self._measure.known_values.items() if self._space.contains(c)})
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
        self._fall_back()
        self._confirm(max_turns)
        return self._result()

    # -- measurements -----------------------------------------------------------------------------

    def _verification(self) -> Verification:
        """Return all measurements; `best_id` is the most accurate network that keeps the limit."""
        networks = tuple(sorted(self._networks.values(), key=lambda n: (-n.accuracy, n.measured)))
        scale = fit_correction(networks, self._limit.maximum).scale
        margin = fit_margin(networks)
        verification = Verification(self._limit.name, scale, margin, networks, None, self._pending)
        best_id = next((n.config.id for n in networks if verification.keeps(n, self._limit.maximum)), None)
        return dataclasses.replace(verification, best_id=best_id)

    def _best(self) -> VerifiedNetwork | None:
        verification = self._verification()
        return next((n for n in verification.networks if n.config.id == verification.best_id), None)

    def _measured(self, configs: Sequence[AnyConfig]) -> bool:
        """Measure networks; return False if they are pending instead."""
        measurements = self._measure(configs)
        self._take(measurements)
        self._pending = () if measurements else tuple(configs)
        return bool(measurements)

    def _take(self, runs: Mapping[AnyConfig, Sequence[float]]) -> None:
        if not runs:
            return
        genomes = self._space.genomes(list(runs))
        accuracies, predictions = self._accuracy(genomes), self._limit.estimator(genomes)
        for (config, values), expected, value in zip(runs.items(), accuracies, predictions, strict=True):
            earlier_measurements = self._networks[config].measurements if config in self._networks else ()
            measurements = (*earlier_measurements, tuple(map(float, values)))
            self._networks[config] = VerifiedNetwork(config, float(expected), float(value), measurements)

    def _fall_back(self) -> None:
        """Measure the smallest network if no other keeps the limit, and raise if it does not either."""
        if not (self._best() or self._pending or self._smallest in self._networks):
            self._measured([self._smallest])
        self._refuse_unreachable()

    def _refuse_unreachable(self) -> None:
        """Raise if the smallest network was measured outside the limit, and none inside."""
        verification, limit = self._verification(), self._limit
        smallest = self._networks.get(self._smallest)
        if smallest is None or verification.best_id is not None:
            return
        min_limit = smallest.measured * (1 + verification.margin)
        raise UserError(
            f"No sub-network of space {self._space.name!r} reaches {limit.name} = "
            f"{limit.show(limit.maximum)}; the smallest reachable was measured at "
            f"{limit.show(smallest.measured)} (predicted {limit.show(smallest.predicted)}). Raise the limit "
            f"to at least {limit.show(min_limit)}, which includes the margin for the spread of measurements."
        )

    # -- searching ---------------------------------------------------------------------------------

    def _search(self, maximum: float) -> SearchResult:
        """Search with the corrected estimator under `maximum`, or the smallest reachable value if larger."""
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
        """Return new networks to measure, more accurate than the best, just below and above the limit.

        Args:
            count: largest number of networks.
            num_failed: consecutive turns in which no network kept the limit; each lowers the targets.
        """
        networks, best = list(self._networks.values()), self._best()
        target = self._limit.maximum / (1 + (fit_margin(networks) if networks else 0.0))
        spread = fit_correction(networks, self._limit.maximum).spread
        picks: list[AnyConfig] = []
        errors: list[UserError] = []
        for index, offset in enumerate(TARGETS):
            share = count * (index + 1) // len(TARGETS) - len(picks)
            try:
                result = self._search(target * (1 + (offset - num_failed) * spread))
            except UserError as error:
                # The tightened limit can be unreachable together with the others.
                errors.append(error)
                continue
            min_accuracy = best.accuracy if best else -np.inf
            picks += different_configs(
                self._space,
                result,
                measured_configs=self._networks,
                picks=picks,
                count=share,
                min_accuracy=min_accuracy,
            )
        if len(errors) == len(TARGETS) and not best:
            raise errors[-1]
        return picks

    def _contradicted(self, count: int) -> list[AnyConfig]:
        """Return networks to measure again once, because the best network's measurement contradicts theirs.

        A device that was busy during the first measurements makes all networks look too slow, and the search
        stays far below the limit. The earlier measurements of the returned networks are discarded.
        """
        best, verification = self._best(), self._verification()
        if best is None or best.measured >= TOO_FAST * self._limit.maximum or not self._measure.is_local:
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

    # -- the result --------------------------------------------------------------------------------

    def _confirm(self, max_attempts: int) -> None:
        """Measure the best network again, alone; if it fails, the next best, and the smallest if all do."""
        for _ in range(max_attempts if self._measure.is_local else 0):
            best = self._best()
            if best is None or len(best.measurements) > 1:
                return
            self._measured([best.config])
            self._fall_back()

    def _result(self) -> SearchResult:
        verification, best, limit = self._verification(), self._best(), self._limit
        try:
            result = self._search(limit.maximum)
        except UserError:
            # A network measured inside the limit can be outside the corrected limits.
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
        """Return the network as a candidate with the measured value of the first limit."""
        genome = self._space.genome(network.config)[None]
        values = {self._limit.name: network.measured}
        values |= {limit.name: float(limit.estimator(genome)[0]) for limit in self._limits[1:]}
        return Candidate(network.config, network.accuracy, values)
