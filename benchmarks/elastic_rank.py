"""Ranks searched in the supernet beside widths, or convolutions split after the search, at equal latency.

    python benchmarks/elastic_rank.py ROOT [--shares 0.5 0.35] [--seeds 0] [--folder FOLDER]

ROOT holds FashionMNIST/raw. All begin with one trained ResNet-20 (see `trained_originals.py`) and learn from
its outputs. "rank" makes one supernet of widths and ranks, trains all sub-networks together, fits a
predictor, measures a latency table, searches below a share of the original's latency and fine-tunes the best.
"width" does the same without ranks; "width, split" searches half of the way and splits that network the rest
of the way, as `ofa compress` plans it; "split" splits the original all the way. The limit of each is moved
until the network, measured in turns with the original in ONNX Runtime by the processor time of one thread,
takes the same share of its latency. Rows that are in the folder are not made again.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compression import row_of
from graph_tables import ProcessorTimeEngine
from latency_plans import SHAPE, Options, measured
from torch import nn
from trained_originals import (
    CALIBRATION_IMAGES,
    SIDE,
    add_row,
    images_of,
    read_rows,
    trained_original,
    training,
)
from trained_supernets import fitted, train_all

from latency_tables.engines.registry import create_engine
from latency_tables.measuring.graph_networks import GraphNetworks
from latency_tables.measuring.tables import measure
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError
from ofa.common.progress import progress_bar
from ofa.compression.changes import apply_changes
from ofa.compression.programs import TimedModule
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.graph.convert import make_elastic
from search.find import find
from search.limits.limit import Limit

METHODS = ("rank", "width", "width, split", "split")
_MAX_TURNS = 5
_SLACK = 0.02

Make = Callable[[float], nn.Module]
"""Returns a network of at most a latency (ms), as it is estimated."""


class Searched:
    """A supernet with or without ranks, trained, with a predictor and a table; made when it is asked."""

    def __init__(self, original: nn.Module, data: ImageData, seed: int, options: Any, ranks: Any) -> None:
        """Train the supernet, collect records, fit the predictor and measure the table."""
        name = f"{'rank' if ranks else 'width'}-{seed}"
        example = torch.rand(2, 1, SIDE, SIDE)
        self.supernet = make_elastic(
            original, example, widths=options.widths, depths=[1.0], ranks=ranks, name=name
        )
        space = self.supernet.space
        self.supernet.eval().sort_channels(space.only_largest)
        start_s = time.process_time()
        train_all(self.supernet, data, seed, options)
        self.predictor = fitted(self.supernet, data, seed, options)
        self.processor_s = time.process_time() - start_s
        with progress_bar(f"table of {name}") as progress:
            table = measure(
                GraphNetworks(self.supernet, space),
                device_of(options),
                options.folder / f"{name}.json",
                progress=progress,
                engine=ProcessorTimeEngine(create_engine(device_of(options))),
            )
        self.latency = table.estimator(space)
        self.seed = seed
        self._evaluator = SubnetEvaluator(self.supernet, data, calibration_images=CALIBRATION_IMAGES)

    def network(self, limit_ms: float) -> nn.Module:
        """Return the network that is predicted to be best within a latency."""
        limit = Limit("latency_ms", self.latency, limit_ms, "ms")
        best = find(self.supernet.space, self.predictor, [limit], seed=self.seed).best
        print(f"{limit_ms:.3f} ms: {best.config}", flush=True)
        return self._evaluator.network(best.config)


def device_of(options: Any) -> DeviceSpec:
    """Return ONNX Runtime with one thread, measured in this process."""
    return DeviceSpec("onnx", "onnx_runtime", minutes=options.minutes, min_rounds=4, processes=1)


def latencies_of(original: nn.Module, network: nn.Module, options: Any) -> tuple[float, float]:
    """Return the latencies (ms) of two networks that are measured in turns."""
    programs = {"original": TimedModule(original, SHAPE), "network": TimedModule(network, SHAPE)}
    found = measured(programs, device_of(options))
    return found["original"], found["network"]


def at_share(original: nn.Module, make: Make, share: float, options: Any) -> tuple[nn.Module, float]:
    """Return the network that takes most of a share of the original's latency, with its share.

    The limit is moved by what was measured.
    """
    full_ms, _ = latencies_of(original, original, options)
    limit_ms, best = share * full_ms, None
    for _ in range(_MAX_TURNS):
        network = make(limit_ms)
        full_ms, network_ms = latencies_of(original, network, options)
        found = network_ms / full_ms
        print(f"limit {limit_ms:.3f} ms: {100 * found:.1f} % of the latency", flush=True)
        if found <= share * (1 + _SLACK) and (best is None or found > best[1]):
            best = network, found
        if abs(found / share - 1) <= _SLACK:
            break
        limit_ms *= share / found
    if best is None:
        raise UserError(f"No network of {100 * share:g} % of the latency was found.")
    return best


def split_to(network: nn.Module, data: ImageData, name: str, options: Any) -> Make:
    """Return what splits a network to a latency as `ofa compress` plans it."""
    choices = Options(network, data, device_of(options), options.folder / name, ("split",))

    def split(limit_ms: float) -> nn.Module:
        changes = choices.by_latency(limit_ms)
        if changes is None:
            raise UserError(f"No splits reach {limit_ms:.4g} ms.")
        return apply_changes(network, changes)

    return split


def main() -> None:
    """Make the missing rows and print the table."""
    options = options_of()
    torch.set_num_threads(1)
    data, path = images_of(options.root), options.folder / "rows.jsonl"
    original = trained_original("resnet20", data, options.folder)
    known = {(row["method"], row["share"], row["seed"]) for row in read_rows(path)}

    @cache
    def searched(seed: int, has_ranks: bool) -> Searched:
        return Searched(original, data, seed, options, options.ranks if has_ranks else [])

    def maker(method: str, share: float, seed: int) -> Make:
        if method == "split":
            return split_to(original, data, "original", options)
        if method != "width, split":
            return searched(seed, method == "rank").network
        half, _ = at_share(original, searched(seed, False).network, math.sqrt(share), options)
        return split_to(half, data, f"half-{share:g}-{seed}", options)

    for seed in options.seeds:
        for method in options.methods:
            for share in options.shares:
                if (method, share, seed) in known:
                    continue
                network, found = at_share(original, maker(method, share, seed), share, options)
                row = {"method": method, "share": share, "seed": seed, "latency_share": found}
                row |= row_of(network, original, data, training(seed, lr=0.005, steps=options.steps))
                if method != "split":
                    row["supernet_s"] = searched(seed, method == "rank").processor_s
                add_row(path, row)
                print(row, flush=True)
    print_table(read_rows(path))


def options_of() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.35], help="of the latency")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--widths", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    parser.add_argument("--ranks", type=float, nargs="+", default=[0.125, 0.25, 0.5])
    parser.add_argument("--supernet-steps", type=int, default=150)
    parser.add_argument("--steps", type=int, default=200, help="steps of fine-tuning")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of the supernet, per 64 images")
    parser.add_argument("--subnets", type=int, default=3, help="sub-networks of a step")
    parser.add_argument("--count", type=int, default=40, help="records of the predictor")
    parser.add_argument("--minutes", type=float, default=2.0, help="of measuring, at most")
    parser.add_argument("--folder", type=Path, default=Path("runs/elastic_rank"))
    # As `trained_supernets.py` reads them.
    parser.set_defaults(sandwich=True, soft_loss="soft_cross_entropy", job="")
    return parser.parse_args()


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the means over the seeds in Markdown."""
    print("| method | latency | MACs | parameters | before fine-tuning | test top-1 | seeds |")
    print("|---" * 7 + "|")
    for method, share in dict.fromkeys((row["method"], row["share"]) for row in rows):
        group = [row for row in rows if (row["method"], row["share"]) == (method, share)]
        names = ("latency_share", "macs_share", "parameters_share", "before_top1", "test_top1")
        means = [100 * float(np.mean([row[name] for row in group])) for name in names]
        cells = [f"{mean:.0f} %" for mean in means[:3]] + [f"{mean:.2f} %" for mean in means[3:]]
        print(f"| {method} | {' | '.join(cells)} | {len(group)} |")


if __name__ == "__main__":
    main()
