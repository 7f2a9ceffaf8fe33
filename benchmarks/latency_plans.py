"""What each convolution of a network can become, and plans that keep a latency, measured and corrected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from graph_tables import ProcessorTimeEngine
from torch import nn
from trained_originals import SIDE

from latency_tables.engines.registry import create_engine
from latency_tables.measuring.networks import TimedNetwork, measure_networks
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError
from ofa.common.progress import progress_bar
from ofa.common.score_file import ScoreFile
from ofa.compression.candidates import find_candidates
from ofa.compression.change_harms import change_harms
from ofa.compression.changes import LayerChange, apply_changes
from ofa.compression.cost_line import CostLine
from ofa.compression.form_costs import fastest_changes, latencies_in_network
from ofa.compression.plan import layer_options, make_plan
from ofa.compression.programs import TimedModule, form_costs, form_programs
from ofa.data.base import ImageData
from ofa.modules.cost import module_cost
from ofa.runs.compression_plan import MAX_CORRECTIONS, latency_after

SHAPE = (1, SIDE, SIDE)
PLANS = ("latency", "macs", "uniform")
FORMS = ("split", "tucker")
_ATTEMPTS = 40

Changes = tuple[LayerChange, ...]


@dataclass(frozen=True)
class MeasuredPlan:
    """Changes, with the latency (ms) that was predicted before they were measured."""

    changes: Changes
    predicted_ms: float


Plans = dict[str, MeasuredPlan | None]


def measured(modules: Mapping[str, TimedModule], device: DeviceSpec) -> dict[str, float]:
    """Return the processor time (ms) of a run of each module, measured together."""
    timed = {name: TimedNetwork(module.module, module.input_shape) for name, module in modules.items()}
    engine = ProcessorTimeEngine(create_engine(device))
    with progress_bar(f"measuring {len(timed)} programs on {device.name}") as progress:
        timings = measure_networks(timed, device, 0, progress, engine)
    return {name: timings[name].latency_ms for name in timed}


class Options:
    """What each convolution of a network can become, with its latency, MACs and harm."""

    def __init__(
        self,
        network: nn.Module,
        data: ImageData,
        device: DeviceSpec,
        folder: Path,
        forms: Sequence[str] = FORMS,
    ) -> None:
        """Measure everything that the folder does not have."""
        self.candidates = find_candidates(network, SHAPE, forms).layers
        programs = {"network": TimedModule(network, SHAPE), **form_programs(network, self.candidates)}
        scores = ScoreFile(folder / f"{device.name}.jsonl")
        if missing := {key: program for key, program in programs.items() if key not in scores}:
            for key, value in measured(missing, device).items():
                scores.add(key, value)
        latencies = {key: scores[key] for key in programs}
        self.total = latencies["network"]
        costs = [form_costs(network, layer, latencies) for layer in self.candidates]
        self._network, self._measure = network, partial(measured, device=device)

        def fastest_ms() -> float:
            pair = {"before": TimedModule(network, SHAPE)}
            pair |= {"after": TimedModule(apply_changes(network, fastest_changes(costs)), SHAPE)}
            return latency_after(pair, self.total, self._measure)

        self.latencies = latencies_in_network(costs, self.total, scores.value("fastest", fastest_ms))
        self.macs = [(float(layer.macs), *map(float, layer.changed_macs)) for layer in self.candidates]
        images, _ = next(data.batches("train", 64, torch.device("cpu"), 64))
        changes = [change for layer in self.candidates for change in layer.changes]
        with progress_bar(f"harm of {len(changes)} changes") as progress:
            harms = change_harms(network, changes, images, ScoreFile(folder / "harm.jsonl"), progress)
        self.harms = dict(zip(changes, harms, strict=True))
        self._full_macs = float(module_cost(network, SHAPE).macs)

    def predicted(self, changes: Sequence[LayerChange]) -> float:
        """Return the predicted latency (ms) of the network with changes."""
        chosen = {change.layer: change for change in changes}
        total = self.total
        for layer, costs in zip(self.candidates, self.latencies, strict=True):
            if layer.layer in chosen:
                total += costs[1 + layer.changes.index(chosen[layer.layer])] - costs[0]
        return total

    def within(self, make: Callable[[float], Changes | None], limit: float) -> MeasuredPlan | None:
        """Return the slowest measured network within the limit, of plans for several predicted latencies."""
        smallest = self.total - sum(costs[0] - min(costs) for costs in self.latencies)
        line, aim = CostLine((smallest, smallest), (self.total, self.total)), limit
        best: tuple[float, MeasuredPlan] | None = None
        for _ in range(1 + MAX_CORRECTIONS):
            changes = make(max(aim, smallest))
            if changes is None:
                break
            predicted_ms = self.predicted(changes)
            plan = MeasuredPlan(changes, line.measured(predicted_ms))
            pair = {"before": TimedModule(self._network, SHAPE)}
            pair |= {"after": TimedModule(apply_changes(self._network, changes), SHAPE)}
            after = latency_after(pair, self.total, self._measure)
            if after <= limit and (best is None or after > best[0]):
                best = after, plan
            if 0.97 * limit <= after <= limit:
                break
            line = line.closer((predicted_ms, after), limit)
            aim = line.total(0.985 * limit)
        return None if best is None else best[1]

    def by_latency(self, limit: float) -> Changes | None:
        """Return the plan of `ofa compress`."""
        pairs = zip(self.candidates, self.latencies, strict=True)
        options = [layer_options(layer, costs, self.harms) for layer, costs in pairs]
        try:
            return make_plan(options, cost="latency_ms", total=self.total, limit=limit).changes
        except UserError as error:
            print(error)
            return None

    def by_macs(self, limit: float) -> Changes | None:
        """Return the plan by MACs with the largest limit of them whose predicted latency keeps the limit."""
        pairs = zip(self.candidates, self.macs, strict=True)
        options = [layer_options(layer, costs, self.harms) for layer, costs in pairs]
        for share in np.linspace(1, 0, _ATTEMPTS, endpoint=False):
            try:
                plan = make_plan(
                    options, cost="macs", total=self._full_macs, limit=float(share) * self._full_macs
                )
            except UserError:
                return None
            if self.predicted(plan.changes) <= limit:
                return plan.changes
        return None

    def uniform(self, limit: float) -> Changes | None:
        """Return splits of all layers to about the same share of their MACs, the largest within the limit."""
        for share in np.linspace(1, 0, _ATTEMPTS, endpoint=False):
            changes = []
            for layer in self.candidates:
                splits = [
                    (macs, change)
                    for change, macs in zip(layer.changes, layer.changed_macs, strict=True)
                    if change.form == "split" and macs <= share * layer.macs
                ]
                if splits:
                    changes.append(max(splits, key=lambda pair: pair[0])[1])
            if self.predicted(changes) <= limit:
                return tuple(changes)
        return None


def plans_of(options: Options, limit: float) -> Plans:
    """Return the best measured plan of each kind; None where the limit cannot be kept."""
    makers = {"latency": options.by_latency, "macs": options.by_macs, "uniform": options.uniform}
    return {name: options.within(makers[name], limit) for name in PLANS}
