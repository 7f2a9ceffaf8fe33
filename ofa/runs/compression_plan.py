"""`decide_changes`: which convolutions of a network change into what, measured, decided once and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from torch import Tensor, nn

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.common.progress import Note, ProgressCallback
from ofa.common.reading import read_json
from ofa.common.score_file import ScoreFile
from ofa.compression.candidates import Candidate, find_candidates, with_rank
from ofa.compression.change_harms import change_harms
from ofa.compression.changes import apply_changes
from ofa.compression.cost_line import CostLine
from ofa.compression.form_costs import fastest_changes, latencies_in_network
from ofa.compression.plan import (
    UNITS,
    CompressionPlan,
    LayerOptions,
    layer_options,
    make_plan,
    useful_changes,
)
from ofa.compression.programs import TimedModule, form_costs, form_programs
from ofa.modules.cost import module_cost
from ofa.runs.compression_settings import CompressionLimits
from ofa.runs.decided_changes import DecidedChanges

Bar = Callable[[str], AbstractContextManager[ProgressCallback]]
"""Opens a progress bar with a description; see `ofa.common.progress.progress_bar`."""

MeasureModules = Callable[[Mapping[str, TimedModule]], Mapping[str, float]]
"""Measures the latency (ms) of modules on the CPU in eval mode, together."""

PLAN_FILE, LATENCY_FILE, HARM_FILE = "plan.json", "latency.jsonl", "harm.jsonl"
MAX_CORRECTIONS = 3
_NETWORK, _UNCOMPRESSED = "the network", "the network with all channels"
_FASTEST = "the network with the fastest forms"
_CLOSE = 0.97
"""A plan is good enough if it uses so much of the limit, measured."""


def decide_changes(
    network: nn.Module,
    images: Tensor,
    forms: Sequence[str],
    limits: CompressionLimits,
    folder: Path,
    *,
    bar: Bar,
    note: Note,
    measure: MeasureModules | None = None,
    rank: int | None = None,
    uncompressed: nn.Module | None = None,
) -> DecidedChanges:
    """Return the changes with the least harm within a limit; those that were decided before are read.

    Each form of each convolution is measured on the device, or its multiply-accumulates are counted; forms
    that gain nothing are left out. Latencies are fitted to that of the whole network with the fastest forms.
    Harm is measured on images, and an exact choice made. The chosen network is measured end to end. Where it
    misses the limit, plans between the closest networks above and within it are measured, `MAX_CORRECTIONS`
    of them at most.

    Args:
        network: network on the CPU in eval mode.
        images: images (n, channels, h, w) at its resolution, on the CPU.
        forms: keys of `ofa.compression.changes.FORMS`.
        limits: bound of the cost.
        folder: folder of latencies, harms and the decision.
        bar: opens progress bars.
        note: called with lines for the user.
        measure: measures latency, for a limit of it.
        rank: rank of all convolutions that can have it, each in the form that costs least, where there is no
            limit; None for the choice within the limit.
        uncompressed: network on the CPU in eval mode whose cost shares refer to; None for the network itself.

    Raises:
        UserError: if no convolution qualifies, no form gains anything, the limit cannot be kept, or a file
            cannot be written.
    """
    path = folder / PLAN_FILE
    if path.exists():
        return build(DecidedChanges, read_json(path, "plan of a compression"), str(path))
    shape = (images.shape[1], images.shape[2], images.shape[3])
    candidates = find_candidates(network, shape, forms)
    if rank is not None:
        candidates = with_rank(candidates, rank)
    note(candidates.text)
    cost = limits.cost if rank is None else "macs" if measure is None else "latency_ms"
    costs = _Costs(
        network, candidates.layers, shape, cost, folder, bar=bar, measure=measure, uncompressed=uncompressed
    )
    if rank is None:
        costs.fit_to_network()
        options = _options(network, images, candidates.layers, costs, folder, bar)
        plan, predicted, after = _within(network, options, costs, limits.bound(costs.full_cost), note)
    else:
        plan = _cheapest(network, images, candidates.layers, costs, folder, bar)
        predicted, after = plan.predicted, costs.measured(apply_changes(network, plan.changes))
    decided = _decided(plan, predicted, after, costs.full_cost)
    write_json(path, dataclasses.asdict(decided))
    return decided


def _decided(plan: CompressionPlan, predicted: float, after: float, full_cost: float) -> DecidedChanges:
    lines = tuple(plan.lines)
    return DecidedChanges(
        plan.changes, plan.cost, plan.total, predicted, after, plan.to_dict(), lines, full_cost
    )


class _Costs:
    """Costs of a network, of its convolutions and of their forms: multiply-accumulates or latencies."""

    def __init__(
        self,
        network: nn.Module,
        candidates: Sequence[Candidate],
        shape: tuple[int, int, int],
        name: str,
        folder: Path,
        *,
        bar: Bar,
        measure: MeasureModules | None,
        uncompressed: nn.Module | None,
    ) -> None:
        self.name, self._network, self._shape, self._measure = name, network, shape, measure
        self.of_forms: Mapping[str, Sequence[float]]
        if name == "macs":
            self.total = float(module_cost(network, shape).macs)
            self.full_cost = (
                self.total if uncompressed is None else float(module_cost(uncompressed, shape).macs)
            )
            self.of_forms = {layer.layer: (layer.macs, *layer.changed_macs) for layer in candidates}
            return
        assert measure is not None
        self._scores = scores = ScoreFile(folder / LATENCY_FILE)
        programs = {_NETWORK: TimedModule(network, shape), **form_programs(network, candidates)}
        if uncompressed is not None:
            programs[_UNCOMPRESSED] = TimedModule(uncompressed, shape)
        new = {key: program for key, program in programs.items() if key not in scores}
        for key, value in (measure(new) if new else {}).items():
            scores.add(key, value)
        latencies_ms = {key: scores[key] for key in programs}
        self.total = latencies_ms[_NETWORK]
        self.full_cost = latencies_ms.get(_UNCOMPRESSED, self.total)
        self._costs = [form_costs(network, layer, latencies_ms) for layer in candidates]
        self.of_forms = {own.candidate.layer: own.latencies_ms for own in self._costs}

    def fit_to_network(self) -> None:
        """Let latencies of forms be those in the whole network; see `latencies_in_network`."""
        if self.name != "macs" and (fastest := fastest_changes(self._costs)):
            key = f"{_FASTEST}: {', '.join(f'{change.layer} {change.key}' for change in fastest)}"
            latency = self._scores.value(key, lambda: self.measured(apply_changes(self._network, fastest)))
            fitted = latencies_in_network(self._costs, self.total, latency)
            names = [own.candidate.layer for own in self._costs]
            self.of_forms = dict(zip(names, fitted, strict=True))

    def measured(self, changed: nn.Module) -> float:
        """Return the cost of a changed network; a latency by its share of that of the unchanged one."""
        if self.name == "macs":
            return float(module_cost(changed, self._shape).macs)
        assert self._measure is not None
        pair = {"before": self._network, "after": changed}
        programs = {key: TimedModule(module, self._shape) for key, module in pair.items()}
        return latency_after(programs, self.total, self._measure)


def latency_after(programs: Mapping[str, TimedModule], before_ms: float, measure: MeasureModules) -> float:
    """Return the latency (ms) of a changed network, by its share of that of the network, measured together.

    Args:
        programs: the network, "before", and the changed one, "after".
        before_ms: latency of the network.
        measure: measures latency.
    """
    latencies = measure(programs)
    return before_ms * latencies["after"] / latencies["before"]


def _options(
    network: nn.Module,
    images: Tensor,
    candidates: Sequence[Candidate],
    costs: _Costs,
    folder: Path,
    bar: Bar,
) -> list[LayerOptions]:
    """Return what each convolution can become, with harms; forms that cost no less are left out."""
    changes = [
        change for layer in candidates for change in useful_changes(layer, costs.of_forms[layer.layer])
    ]
    if not changes:
        unit = "takes less time than" if costs.name == "latency_ms" else "has fewer MACs than"
        raise UserError(
            f"None of the {sum(len(layer.changes) for layer in candidates)} forms of {len(candidates)} "
            f"convolutions {unit} the convolution itself: these steps gain nothing here."
        )
    scores = ScoreFile(folder / HARM_FILE)
    with bar(f"measuring the harm of {len(changes)} changes on {len(images)} images") as progress:
        harms = dict(zip(changes, change_harms(network, changes, images, scores, progress), strict=True))
    return [layer_options(layer, costs.of_forms[layer.layer], harms) for layer in candidates]


def _cheapest(
    network: nn.Module,
    images: Tensor,
    candidates: Sequence[Candidate],
    costs: _Costs,
    folder: Path,
    bar: Bar,
) -> CompressionPlan:
    """Return the plan that changes every convolution to the form that costs least, whatever its harm."""
    chosen = []
    for layer in candidates:
        of_forms = costs.of_forms[layer.layer]
        position = min(range(1, len(of_forms)), key=of_forms.__getitem__)
        chosen.append((layer.changes[position - 1], (of_forms[0], of_forms[position])))
    scores = ScoreFile(folder / HARM_FILE)
    with bar(f"measuring the harm of {len(chosen)} changes on {len(images)} images") as progress:
        harms = change_harms(network, [change for change, _ in chosen], images, scores, progress)
    options = tuple(
        LayerOptions(layer, (None, change), pair, (0.0, harm))
        for layer, (change, pair), harm in zip(candidates, chosen, harms, strict=True)
    )
    return CompressionPlan(options, (1,) * len(options), costs.name, costs.total)


def _within(
    network: nn.Module, options: Sequence[LayerOptions], costs: _Costs, limit: float, note: Note
) -> tuple[CompressionPlan, float, float]:
    """Return a plan whose network was measured within the limit, its predicted and its measured cost."""
    divisor, unit = UNITS[costs.name]
    best = None
    plan = make_plan(options, cost=costs.name, total=costs.total, limit=limit)
    line = CostLine((plan.smallest, plan.smallest), (costs.total, costs.total))
    for turn in range(1 + MAX_CORRECTIONS):
        expected, after = line.measured(plan.predicted), costs.measured(apply_changes(network, plan.changes))
        note(
            f"plan {turn + 1}: {expected / divisor:.4g} {unit} predicted, {after / divisor:.4g} {unit} "
            f"measured; at most {limit / divisor:.4g} {unit}"
        )
        if after <= limit and (best is None or plan.total_harm < best[0].total_harm):
            best = plan, expected, after
        if _CLOSE * limit <= after <= limit or (after <= limit and costs.name == "macs"):
            break
        line = line.closer((plan.predicted, after), limit)
        earlier, aim = plan, line.total((1 + _CLOSE) / 2 * limit)
        plan = make_plan(options, cost=costs.name, total=costs.total, limit=max(aim, plan.smallest))
        if plan.changes == earlier.changes:
            break
    if best is None:
        raise UserError(
            f"No network was measured within {limit / divisor:.4g} {unit} in {turn + 1} attempts; the last "
            f"one takes {after / divisor:.4g} {unit}. Measure while the machine is quiet, with more "
            "device.minutes, or give a larger limit."
        )
    return best
