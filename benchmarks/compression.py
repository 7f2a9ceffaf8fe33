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
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latency_plans import SHAPE, MeasuredPlan, Options, measured, plans_of
from torch import nn
from trained_originals import (
    CALIBRATION_IMAGES,
    MODELS,
    accuracies,
    add_row,
    images_of,
    read_rows,
    trained_original,
    training,
    tuned,
)

from latency_tables.table.device import DeviceSpec
from ofa.compression.changes import apply_changes
from ofa.compression.programs import TimedModule
from ofa.data.base import ImageData
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.modules.cost import module_cost


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
