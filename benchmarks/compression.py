"""Smaller forms of convolutions at a share of the latency: planned by latency, by MACs, or uniformly.

    python benchmarks/compression.py ROOT [--models vgg resnet20] [--engines onnx_runtime openvino]
        [--precisions fp32 int8] [--share 0.5] [--seeds 0 1 2] [--steps 200] [--folder FOLDER]

ROOT holds FashionMNIST/raw. For each network, engine and precision all forms of all convolutions are measured
together, by the processor time of one thread, and what the fastest forms save together in the network. Three
plans keep the same latency, measured and corrected as `ofa compress` does it: the one with the least harm by
latency (`ofa compress`), the one with the least harm by multiply-accumulates with the largest limit of them
that does so, and the largest share of the MACs that all layers take alike. The networks are measured again
end to end, interleaved, fine-tuned with the same settings beside a control, and judged on all test images.
Rows that are in the folder are not made again; a limit that a plan cannot keep is a row without a network.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graph_tables import ProcessorTimeEngine
from torch import nn
from trained_originals import (
    CALIBRATION_IMAGES,
    MODELS,
    SIDE,
    accuracies,
    add_row,
    images_of,
    read_rows,
    trained_original,
    training,
    tuned,
)

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
from ofa.evaluation.recalibrate import recalibrate_batchnorm
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


def rows_of(
    name: str, device: DeviceSpec, data: ImageData, options: argparse.Namespace, known: set[Any]
) -> None:
    """Write the missing rows of a network on a device."""
    original = trained_original(name, data, options.folder)
    choices = Options(original, data, device, options.folder / name)
    limit = options.share * choices.total
    plans = plans_of(choices, limit)
    networks = {name: apply_changes(original, plan.changes) for name, plan in plans.items() if plan}
    programs = {"original": TimedModule(original, SHAPE)}
    programs |= {name: TimedModule(network, SHAPE) for name, network in networks.items()}
    latencies = measured(programs, device)
    networks["control"], plans["control"] = copy.deepcopy(original), MeasuredPlan((), choices.total)
    for seed in options.seeds:
        for kind, plan in plans.items():
            # The control is the same for all devices.
            where = "" if kind == "control" else device.name
            if (name, where, kind, seed) in known:
                continue
            row: dict[str, Any] = {"model": name, "device": where, "plan": kind, "seed": seed}
            row |= {"steps": options.steps, "share": options.share}
            if plan is not None:
                row |= row_of(networks[kind], original, data, training(seed, lr=0.005, steps=options.steps))
                row["layers"] = len(plan.changes)
                if kind != "control":
                    row |= {
                        "full_ms": choices.total,
                        "predicted_ms": plan.predicted_ms,
                        "measured_ms": choices.total * latencies[kind] / latencies["original"],
                    }
            add_row(options.folder / "rows.jsonl", row)
            known.add((name, where, kind, seed))


def row_of(network: nn.Module, original: nn.Module, data: ImageData, settings: Any) -> dict[str, Any]:
    """Return MACs, parameters and accuracies of a network before and after fine-tuning."""
    network = copy.deepcopy(network)
    images = data.batches("train", 250, torch.device("cpu"), CALIBRATION_IMAGES)
    recalibrate_batchnorm(network, (batch for batch, _ in images))
    before = accuracies(network, data)["test_top1"]
    after = accuracies(tuned(network, original, data, settings), data)
    cost, full = module_cost(network, SHAPE), module_cost(original, SHAPE)
    shares = {"macs_share": cost.macs / full.macs, "parameters_share": cost.parameters / full.parameters}
    return {**shares, "before_top1": before, **after}


def main() -> None:
    """Make the missing rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["vgg", "resnet20"])
    parser.add_argument("--engines", nargs="+", default=["onnx_runtime", "openvino"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--share", type=float, default=0.5, help="share of the latency")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200, help="steps of fine-tuning")
    parser.add_argument("--minutes", type=float, default=2.0, help="of measuring for each device")
    parser.add_argument("--folder", type=Path, default=Path("runs/compression"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = images_of(options.root)
    path = options.folder / "rows.jsonl"

    def is_asked(row: Mapping[str, Any]) -> bool:
        return bool(row["steps"] == options.steps and row["share"] == options.share)

    names = ("model", "device", "plan", "seed")
    known = {tuple(row[key] for key in names) for row in filter(is_asked, read_rows(path))}
    for name in options.models:
        for engine in options.engines:
            for precision in options.precisions:
                device = DeviceSpec(
                    f"{engine}_{precision}", engine, precision=precision, minutes=options.minutes, processes=1
                )
                rows_of(name, device, data, options, known)
    print_table(list(filter(is_asked, read_rows(path))))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the means over the seeds in Markdown."""
    print(
        "| network | device | plan | layers | MACs | latency, measured | predicted | test top-1 before | "
        "after |\n|---|---|---|---|---|---|---|---|---|"
    )
    groups = dict.fromkeys((row["model"], row["device"], row["plan"]) for row in rows)
    for model, device, plan in groups:
        group = [row for row in rows if (row["model"], row["device"], row["plan"]) == (model, device, plan)]
        if "test_top1" not in group[0]:
            print(f"| {model} | {device} | {plan} | | | not reached | | | |")
            continue
        mean = partial(_mean, group)
        top1 = 100 * np.array([row["test_top1"] for row in group])
        spread = f" ± {top1.std(ddof=1):.2f}" if len(group) > 1 else ""
        share = error = ""
        if plan != "control":
            share = f"{100 * mean('measured_ms') / mean('full_ms'):.0f} %"
            error = f"{100 * (mean('predicted_ms') / mean('measured_ms') - 1):+.1f} %"
        print(
            f"| {model} | {device} | {plan} | {mean('layers'):.0f} | {100 * mean('macs_share'):.0f} % | "
            f"{share} | {error} | {100 * mean('before_top1'):.2f} % | {top1.mean():.2f} %{spread} |"
        )


def _mean(group: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in group]))


if __name__ == "__main__":
    main()
